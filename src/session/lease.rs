//! Leases: callers' shares of a session.
//!
//! Owns the count of leases and the turns of callers who wait for one. The count is that of an `Arc`,
//! so that a checkout touches one contended word; a semaphore exists only when `max_leases` is set or
//! an exclusive lease is wanted. A lease must never reach a session other than its own.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::{fmt, mem};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::base::address::Address;
use crate::base::error::{CloseReason, PingError, SendError, SendErrorKind, SessionClosed};
use crate::base::id::{Origin, PeerId, SessionId};
use crate::base::sync;
use crate::base::sync::AtomicU64;

use super::{Availability, Session, Shared};

/// A share of a session. Each lease has one; what the pool has of its own is [`UncountedRef`](super::UncountedRef).
pub(crate) type LeaseHandle = sync::Arc<LeaseCore>;

/// Leads to a share as long as there is one, and keeps none.
pub(crate) type WeakLeaseHandle = sync::Weak<LeaseCore>;

/// What all leases of a session hold together.
///
/// When the last has gone, the session is told; a retired one then drains.
///
/// It has all that a checkout touches, side by side and in as little memory as can be: where there are
/// very many sessions, each line of memory that is not in a cache costs more than all the rest of a
/// hit.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct LeaseCore {
    /// When a lease was last checked out or returned, by the coarse clock; above that the session's
    /// marks, and [`REPLACED`].
    state: AtomicU64,
    /// Nothing while it is a blank.
    of: Option<Of>,
}

/// What a core is a core of.
#[derive(Debug)]
#[repr(C)]
struct Of {
    peer: PeerId,
    shared: Arc<Shared>,
    id: SessionId,
    permits: Option<Arc<Permits>>,
    session: Arc<Session>,
}

/// A newer core has taken its place, for an exclusive lease: no further leases of this one.
const REPLACED: u32 = 1 << 7;

/// From which bit of a core's state on the marks stand.
const MARKS: u32 = 56;

/// The bits below: more milliseconds than there have been.
const LAST_USE: u64 = (1 << MARKS) - 1;

#[derive(Debug)]
struct Permits {
    semaphore: Arc<Semaphore>,
    all: u32,
}

impl LeaseCore {
    /// A core for the session's slot. `permits` bounds its leases; `u32::MAX` serves an exclusive
    /// lease on a session whose leases are not limited. Earlier cores give out no further leases.
    pub(crate) fn new(session: Arc<Session>, permits: Option<NonZeroU32>) -> LeaseHandle {
        let permits = permits.map(|all| {
            Arc::new(Permits {
                semaphore: Arc::new(Semaphore::new(all.get() as usize)),
                all: all.get(),
            })
        });
        let semaphore = permits.as_ref().map(|permits| Arc::clone(&permits.semaphore));
        let shared = Arc::clone(&session.shared);
        let core = shared.slab.fill(Self {
            state: AtomicU64::new(shared.ticks()),
            of: Some(Of {
                peer: session.peer(),
                shared: Arc::clone(&shared),
                id: session.id(),
                permits,
                session,
            }),
        });
        core.session().add_core(&core, semaphore);
        core
    }

    #[inline]
    #[expect(clippy::expect_used, reason = "nobody but the stock of blanks has a blank")]
    fn of(&self) -> &Of {
        self.of.as_ref().expect("a core that is in use is of a session")
    }

    /// Who is at the other end.
    #[inline]
    pub(crate) fn peer(&self) -> &PeerId {
        &self.of().peer
    }

    /// The session.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.of().session
    }

    /// As [`Session::fit`].
    #[inline]
    pub(crate) fn availability(&self) -> Availability {
        Availability::of(self.marks() & !REPLACED)
    }

    #[inline]
    fn marks(&self) -> u32 {
        (self.state.load(Ordering::Relaxed) >> MARKS) as u32
    }

    pub(super) fn mark(&self, marks: u32) {
        self.state.fetch_or(u64::from(marks) << MARKS, Ordering::AcqRel);
    }

    pub(super) fn unmark(&self, marks: u32) {
        self.state.fetch_and(!(u64::from(marks) << MARKS), Ordering::AcqRel);
    }

    /// A newer core takes its place.
    pub(super) fn replace(&self) {
        self.mark(REPLACED);
    }

    pub(super) fn last_use(&self) -> u64 {
        self.state.load(Ordering::Relaxed) & LAST_USE
    }

    /// Marks a use by the coarse clock: no clock read, and no write unless the clock has moved.
    #[inline]
    fn mark_use(&self) {
        self.mark_use_at(self.of().shared.ticks());
    }

    #[inline]
    fn mark_use_at(&self, now: u64) {
        if cfg!(noise_pool_loom) {
            // A model has no time, and must take the same course whenever it runs.
            return;
        }
        let later = |state| (state & LAST_USE < now).then_some(state & !LAST_USE | now);
        // An error says that it was marked already.
        let _ = self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }

    /// Whether its leases are counted by permits.
    #[inline]
    pub(crate) fn has_permits(&self) -> bool {
        self.of().permits.is_some()
    }

    /// Lets one lease more be given out, if that is to be had now. With permits, the lease has one then.
    #[inline]
    fn admit(&self) -> bool {
        if self.marks() & REPLACED != 0 {
            return false;
        }
        let of = self.of();
        if let Some(permits) = &of.permits {
            match permits.semaphore.try_acquire() {
                Ok(permit) => permit.forget(),
                Err(_) => return false,
            }
        }
        self.mark_use_at(of.shared.ticks());
        true
    }
}

impl Drop for LeaseCore {
    fn drop(&mut self) {
        if let Some(of) = &self.of {
            of.shared.slab.gone();
            of.session.core_gone(self.last_use());
        }
    }
}

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
    core: LeaseHandle,
}

/// How a message is to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendOptions {
    /// When the message becomes worthless. One that is still queued then is dropped and counted, and
    /// never delays the rest. Default: never.
    pub deadline: Option<Instant>,
}

impl SendOptions {
    /// Sets [`deadline`](Self::deadline).
    #[must_use]
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
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
    /// A lease, if one is to be had now without passing anybody who waits.
    #[inline]
    pub(crate) fn try_checkout(core: &LeaseHandle) -> Option<Self> {
        core.admit().then(|| Self { core: LeaseHandle::clone(core) })
    }

    /// As [`try_checkout`](Self::try_checkout), of a share that the caller has no more use for.
    ///
    /// # Errors
    ///
    /// The share, if there is no lease to be had now.
    #[inline]
    pub(crate) fn try_from_core(core: LeaseHandle) -> Result<Self, LeaseHandle> {
        if core.admit() { Ok(Self { core }) } else { Err(core) }
    }

    /// Another lease of the same session, at the cost of one counter. `None` when the session's
    /// leases are limited and all are out, or somebody waits for all of them.
    pub fn try_clone(&self) -> Option<Self> {
        Self::try_checkout(&self.core)
    }

    /// Who is at the other end.
    pub fn peer(&self) -> PeerId {
        *self.core.peer()
    }

    /// Which session this is a share of.
    pub fn session_id(&self) -> SessionId {
        self.core.of().id
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
        let shared = &*session.shared;
        let control = &*session.control;
        let push = |message| session.queue.push(control, shared, message, options.deadline);
        let outcome = match options.deadline {
            None => push(message).await,
            Some(deadline) => tokio::time::timeout_at(deadline, push(message.clone()))
                .await
                .unwrap_or(Err((message, SendErrorKind::Expired))),
        };
        outcome.map_err(|(message, kind)| SendError { message, kind })
    }

    /// Accepts a message if there is room for it now that nobody waits for.
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
        session.queue.try_push(&session.control, &session.shared, message, options.deadline)
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

    /// As [`Session::fit`].
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
        let of = self.core.of();
        self.core.mark_use_at(of.shared.ticks());
        if of.permits.is_some() || of.shared.idle_wanted() {
            give_back(&mut self.core);
        }
    }
}

/// Returns a lease whose return others wait for, or may: it is not counted any more when its permit is
/// given back, and when those who wait for a session to fall idle are told.
#[cold]
fn give_back(core: &mut LeaseHandle) {
    let session = Arc::clone(core.session());
    let permits = core.of().permits.clone();
    // Not by its drop, which comes last.
    drop(mem::replace(core, session.shared.slab.vacant()));
    if let Some(permits) = permits {
        permits.semaphore.add_permits(1);
    }
    if session.shared.idle_wanted() && session.leases_out() == 0 {
        session.shared.note_idle();
    }
}

/// A caller's wait for a lease, or for all of them. It holds no lease core, so that those who wait
/// neither count as leases nor keep a retired session from draining.
#[derive(Debug)]
pub(crate) struct LeaseWaiter {
    core: WeakLeaseHandle,
    session: Arc<Session>,
    permits: Option<Arc<Permits>>,
}

impl LeaseWaiter {
    pub(crate) fn of(core: &LeaseHandle) -> Self {
        Self {
            core: LeaseHandle::downgrade(core),
            session: Arc::clone(core.session()),
            permits: core.of().permits.clone(),
        }
    }

    /// Waits for a lease, first come first served. Cancel safe: dropped, it gives up its place.
    ///
    /// # Errors
    ///
    /// Why the session was retired or has ended.
    pub(crate) async fn wait(self) -> Result<Lease, CloseReason> {
        Ok(self.wait_for(|_| 1).await?.0)
    }

    /// Waits for all leases of a core with permits: one lease, and the permits of all others. Cancel
    /// safe.
    pub(super) async fn wait_for_all(
        self,
    ) -> Result<(Lease, Option<OwnedSemaphorePermit>), CloseReason> {
        self.wait_for(|all| all).await
    }

    async fn wait_for(
        self,
        how_many: impl FnOnce(u32) -> u32,
    ) -> Result<(Lease, Option<OwnedSemaphorePermit>), CloseReason> {
        let mut permits = match self.permits {
            None => None,
            Some(permits) => {
                let semaphore = Arc::clone(&permits.semaphore);
                match semaphore.acquire_many_owned(how_many(permits.all)).await {
                    Ok(acquired) => Some(acquired),
                    Err(_) => return Err(why_retired(&self.session)),
                }
            }
        };
        let core = self.core.upgrade().filter(|_| self.session.retired().is_none());
        let Some(core) = core else { return Err(why_retired(&self.session)) };
        core.mark_use();
        // The lease's own goes back by its drop, the others are the caller's.
        if let Some(own) = permits.as_mut().and_then(|permits| permits.split(1)) {
            own.forget();
        }
        Ok((Lease { core }, permits))
    }
}

/// The reason for the closed permits or the vanished core. A core vanishes without one only when the
/// pool itself has gone.
fn why_retired(session: &Session) -> CloseReason {
    session.retired().unwrap_or(CloseReason::PoolClosed)
}
