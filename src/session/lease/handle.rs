//! The lease: a caller's share of a session, and what it is good for.
//!
//! Owns the public calls, and the names of the generic parts for sessions. A lease must never reach a
//! session other than its own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::base::address::Address;
use crate::base::error::{CloseReason, PingError, SendError, SendErrorKind, SessionClosed};
use crate::base::id::{Origin, PeerId, SessionId};
use crate::session::life::Availability;
use crate::session::state::Session;

use super::core::give_back;

/// A session's [`core::LeaseCore`](super::core::LeaseCore).
pub(crate) type LeaseCore = super::core::LeaseCore<Session>;

/// A share of a session: [`core::LeaseHandle`](super::core::LeaseHandle).
pub(crate) type LeaseHandle = super::core::LeaseHandle<Session>;

/// A share that is no lease: [`table::UncountedRef`](super::table::UncountedRef).
pub(crate) type UncountedRef = super::table::UncountedRef<Session>;

/// A share of one session to one peer. Dropping it returns it.
///
/// Any number of tasks may hold leases of one session and send at the same time. A lease that outlives
/// its session gives errors that say why the session ended; it never reaches a successor.
///
/// One word, so that it travels in a register, and out of a `Result` in one piece: a checkout costs a
/// handful of nanoseconds, and two words that are written one by one and read together would be a good
/// part of it.
pub struct Lease {
    /// With permits, the lease has one of them.
    pub(super) core: LeaseHandle,
}

/// How a message is to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendOptions {
    deadline: Option<Instant>,
}

impl SendOptions {
    /// When the message becomes worthless. One that is still queued then is dropped and counted, and
    /// never delays the rest. Default: never.
    #[must_use]
    pub fn deadline(mut self, deadline: std::time::Instant) -> Self {
        self.deadline = Some(deadline.into());
        self
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("peer", &self.peer())
            .field("session", &self.session_id())
            .finish_non_exhaustive()
    }
}

impl Lease {
    /// A lease, if there is one now without passing a caller who waits.
    #[inline]
    pub(crate) fn try_checkout(core: &LeaseHandle) -> Option<Self> {
        core.admit().then(|| Self { core: LeaseHandle::clone(core) })
    }

    /// As [`try_checkout`](Self::try_checkout), of a share that the caller has no more use for.
    ///
    /// # Errors
    ///
    /// The share, if there is no lease now.
    #[inline]
    pub(crate) fn try_from_core(core: LeaseHandle) -> Result<Self, LeaseHandle> {
        if core.admit() { Ok(Self { core }) } else { Err(core) }
    }

    /// Another lease of the same session, at the cost of one counter. `None` when the session's
    /// leases are limited and all are out, or a caller waits for all of them.
    pub fn try_clone(&self) -> Option<Self> {
        Self::try_checkout(&self.core)
    }

    /// Who is at the other end.
    pub fn peer(&self) -> PeerId {
        *self.core.peer()
    }

    /// Which session this is a share of.
    pub fn session_id(&self) -> SessionId {
        self.core.id()
    }

    /// Who opened the session.
    pub fn origin(&self) -> Origin {
        self.core.session().origin()
    }

    /// The other end's address, if the stream has one.
    pub fn remote_address(&self) -> Option<&Address> {
        self.core.session().remote()
    }

    /// How the peer sees our address, if we dialled and it said so: what a router behind a NAT
    /// learns its outer address from. A peer may say anything.
    pub fn observed_address(&self) -> &str {
        self.core.session().observed()
    }

    /// The hash of the handshake, the same on both sides and unique to the session: what channel
    /// bindings are made from (Noise specification, section 11.2).
    pub fn handshake_hash(&self) -> &[u8; 32] {
        self.core.session().handshake_hash()
    }

    /// What the peer's pool put into the handshake as its application payload.
    pub fn peer_payload(&self) -> &Bytes {
        self.core.session().peer_payload()
    }

    /// Whether the session is no longer handed out to others.
    pub fn is_retired(&self) -> bool {
        self.core.session().retired().is_some()
    }

    /// Accepts a message into the session's queue, waiting for room, first come first served.
    ///
    /// An accepted message is written unless the session ends first; the session's report counts what
    /// became of it.
    ///
    /// # Errors
    ///
    /// The message comes back, with the reason: too large, or the session takes no more.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it returns, the message was not accepted.
    pub async fn send(&self, message: Bytes) -> Result<(), SendError> {
        match self.offer(message, SendOptions::default()) {
            Ok(()) => Ok(()),
            Err(refused) => self.wait_for_room(refused, SendOptions::default()).await,
        }
    }

    /// [`send`](Self::send), with options.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); [`SendErrorKind::Expired`] when the deadline passes first.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it returns, the message was not accepted.
    pub async fn send_with(&self, message: Bytes, options: SendOptions) -> Result<(), SendError> {
        match self.offer(message, options) {
            Ok(()) => Ok(()),
            Err(refused) => self.wait_for_room(refused, options).await,
        }
    }

    /// The rest of a send whose message was not accepted at once, which is the rare case: apart, so
    /// that the usual one does not move its message through this one's state.
    async fn wait_for_room(
        &self,
        (message, kind): (Bytes, SendErrorKind),
        options: SendOptions,
    ) -> Result<(), SendError> {
        if kind != SendErrorKind::Full {
            return Err(SendError { message, kind });
        }
        let session = self.core.session();
        let (signal, budget) = (&*session.signal, &session.context.budget);
        let push = |message| session.queue.push(signal, budget, message, options.deadline);
        let outcome = match options.deadline {
            None => push(message).await,
            Some(deadline) => tokio::time::timeout_at(deadline, push(message.clone()))
                .await
                .unwrap_or(Err((message, SendErrorKind::Expired))),
        };
        outcome.map_err(|(message, kind)| SendError { message, kind })
    }

    /// Accepts a message if there is room for it now for which no other sender waits.
    ///
    /// # Errors
    ///
    /// The message comes back, with the reason; [`SendErrorKind::Full`] when there is no room.
    pub fn try_send(&self, message: Bytes) -> Result<(), SendError> {
        self.try_send_with(message, SendOptions::default())
    }

    /// [`try_send`](Self::try_send), with options.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    pub fn try_send_with(&self, message: Bytes, options: SendOptions) -> Result<(), SendError> {
        self.offer(message, options).map_err(|(message, kind)| SendError { message, kind })
    }

    #[inline]
    fn offer(&self, message: Bytes, options: SendOptions) -> Result<(), (Bytes, SendErrorKind)> {
        let session = self.core.session();
        let limit = session.spec.max_message;
        if message.len() > limit {
            let len = message.len();
            return Err((message, SendErrorKind::TooLarge { len, limit }));
        }
        if options.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err((message, SendErrorKind::Expired));
        }
        let budget = &session.context.budget;
        session.queue.try_push(&session.signal, budget, message, options.deadline)
    }

    /// Waits until all that was accepted on this session before the call is handed to the operating
    /// system (or has expired). It does not say that the peer has it: a drain does.
    ///
    /// # Errors
    ///
    /// The session ended first.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn flush(&self) -> Result<(), SessionClosed> {
        self.core.session().flush().await
    }

    /// Asks the peer for a sign of life and measures the round-trip time; all who ask at the same
    /// time share one ping. Where the peer is known to be alive but its application (or ours) does
    /// not read, the result is the time that has passed without an answer.
    ///
    /// # Errors
    ///
    /// No answer within `ping_timeout`, or the session ended; it is closed then.
    /// [`PingError::Unsupported`] where the transport has no ping: the session stays as it is.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the ping goes on for others.
    pub async fn ping(&self) -> Result<Duration, PingError> {
        self.core.session().probe().await
    }

    /// Says that the session is broken: it is closed and removed, for everybody.
    pub fn discard(self) {
        self.core.session().close(CloseReason::Discarded);
    }

    /// Waits for the session's end, and says why it ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn closed(&self) -> CloseReason {
        self.core.session().closed().await
    }

    /// Whether the session may be handed out.
    #[inline]
    pub(crate) fn availability(&self) -> Availability {
        self.core.availability()
    }

    /// The session, for the exclusive lease and for the pool.
    pub(crate) fn session(&self) -> &Arc<Session> {
        self.core.session()
    }
}

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        let context = self.core.context();
        self.core.mark_use(context.ticks());
        if self.core.has_permits() || context.idle_wanted() {
            give_back(&mut self.core);
        }
    }
}
