//! Who may have which session: the pool.
//!
//! Owns the public [`Pool`] and the tasks behind it. What may happen to a slot is decided in
//! `proto::slot`; what bytes mean, in `proto`; how one session works, in `session`. Nothing here
//! runs code of the application, waits, or drops what could under a lock.

pub(crate) mod accept;
pub(crate) mod admission;
pub(crate) mod builder;
mod connection;
pub(crate) mod dial;
pub(crate) mod draining;
pub(crate) mod get_or_dial;
pub(crate) mod halt;
pub(crate) mod hooks;
pub(crate) mod idle;
pub(crate) mod inner;
pub(crate) mod install;
pub(crate) mod keep;
pub(crate) mod latch;
pub(crate) mod obtain;
pub(crate) mod outcome;
pub(crate) mod permit;
pub(crate) mod race;
pub(crate) mod reaper;
pub(crate) mod registry;
pub(crate) mod room;
pub(crate) mod shutdown;
pub(crate) mod target;
pub(crate) mod view;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::error::{AdoptError, DialError, ListenError, SendErrorKind, SendToError};
use crate::base::event::Events;
use crate::base::id::PeerId;
use crate::base::io::{BoxedStream, Stream};
use crate::base::metrics::Snapshot;
use crate::base::metrics::Stats;
use crate::pool::accept::{NotAccepted, Runs};
use crate::pool::builder::PoolBuilder;
use crate::pool::dial::{Opener, Source};
use crate::pool::get_or_dial::GetOrDial;
use crate::pool::inner::{Inner, PeerSlot};
use crate::pool::shutdown::{Disconnect, DrainReport};
use crate::pool::target::Target;
use crate::session::{Availability, ExclusiveLease, Lease};
use crate::{ConfigError, Identity};

/// Holds at most one session per peer, and shares it among all who ask.
///
/// A cheap clone: all clones are one pool. When the last one is dropped the pool closes as by
/// [`Pool::close`], without anybody waiting for it.
#[derive(Clone)]
pub struct Pool {
    owner: Arc<Owner>,
}

/// Ends the pool with its last handle: tasks hold `Inner`, never this.
struct Owner {
    inner: Arc<Inner>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.inner.shut_down();
    }
}

/// What [`Pool::adopt`] is on the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We begin the handshake with this peer.
    Initiator {
        /// Who is at the other end.
        peer: PeerId,
    },
    /// The other end begins, and tells us who it is.
    Responder,
}

impl Pool {
    /// Begins to build a pool that speaks as `identity`.
    pub fn builder(identity: Identity) -> PoolBuilder {
        PoolBuilder::new(identity)
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.owner.inner
    }

    /// Our own name.
    pub fn id(&self) -> PeerId {
        self.owner.inner.peer
    }

    // ---- accepting -----------------------------------------------------------------------------

    /// Accepts connections on `address`; port 0 picks one. May be called for several addresses.
    ///
    /// Returns the address that is really listened on.
    ///
    /// # Errors
    /// [`ListenError::Bind`] if the system refuses the address, [`ListenError::PoolClosed`] once
    /// the pool drains.
    ///
    /// # Cancel safety
    /// Safe: either the listener runs or the address is free.
    pub async fn listen(&self, address: SocketAddr) -> Result<SocketAddr, ListenError> {
        self.owner.inner.listen(address).await
    }

    /// The addresses that are listened on.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        crate::base::sync::lock(&self.owner.inner.listeners).clone()
    }

    // ---- sessions ------------------------------------------------------------------------------

    /// A lease on the live session to `peer`, or none. Never dials, never waits.
    ///
    /// None also when `max_leases` are out. A session that was silent for `ping_after` is returned
    /// as it is, and probed in the background.
    #[inline]
    pub fn get(&self, peer: &PeerId) -> Option<Lease> {
        let inner = &self.owner.inner;
        let Some(lease) = inner.hit(peer) else {
            inner.counters.misses.one();
            return None;
        };
        match lease.availability() {
            Availability::Ready => {}
            Availability::NeedsProbe => lease.session().request_probe(),
            Availability::Retired => return None,
        }
        inner.counters.hits.one();
        Some(lease)
    }

    /// Whether a live session to `peer` exists. As cheap as a look-up.
    pub fn contains(&self, peer: &PeerId) -> bool {
        self.owner.inner.registry.read(peer, is_live).unwrap_or(false)
    }

    /// The peers to which a live session exists, in no order.
    pub fn peers(&self) -> Vec<PeerId> {
        self.owner.inner.registry.collect(|peer, slot| is_live(slot).then_some(*peer))
    }

    /// A lease on a session to the target: the live one, or that of the one dial that all callers
    /// share.
    ///
    /// The dial belongs to the pool. It goes on for others when this caller gives up, and stops
    /// when nobody waits any more, unless the peer may have accepted it already. A session that was
    /// silent for `ping_after` is probed first, once for all who ask.
    ///
    /// # Errors
    /// See [`DialError`]; all who wait on one dial get the same error, and
    /// [`DialError::retry`] says when to ask again.
    ///
    /// # Cancel safety
    /// Safe at any await.
    #[inline]
    pub fn get_or_dial(&self, target: impl Into<Target>) -> GetOrDial<'_> {
        GetOrDial::new(&self.owner.inner, target.into())
    }

    /// As [`Pool::get_or_dial`], over a stream that `open` makes if a dial is begun: a SOCKS proxy,
    /// a relay, a Unix socket.
    ///
    /// `open` is not called when a session exists or is being dialled.
    ///
    /// # Errors
    /// As [`Pool::get_or_dial`]; [`DialError::Open`] if `open` fails.
    ///
    /// # Cancel safety
    /// Safe at any await.
    pub async fn get_or_dial_with<F, Fut, S>(
        &self,
        target: impl Into<Target>,
        open: F,
    ) -> Result<Lease, DialError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = io::Result<S>> + Send + 'static,
        S: Stream,
    {
        let target = target.into();
        if let Some(lease) = self.owner.inner.sound_hit(&target.peer) {
            return Ok(lease);
        }
        let opener: Opener = Box::new(|| {
            let opening = open();
            Box::pin(async move { Ok(Box::new(opening.await?) as BoxedStream) })
        });
        let source = Source::Opener(opener, target.data.clone());
        Box::pin(self.owner.inner.obtain(target, source)).await
    }

    /// All leases of the session to the target, dialled if need be: until it is returned, nobody
    /// else sends, and what the peer sends goes to the holder.
    ///
    /// Waits until the leases that are out have returned; those who ask meanwhile wait behind.
    ///
    /// # Errors
    /// As [`Pool::get_or_dial`].
    ///
    /// # Cancel safety
    /// Safe at any await.
    pub async fn get_exclusive(
        &self,
        target: impl Into<Target>,
    ) -> Result<ExclusiveLease, DialError> {
        let target = target.into();
        let source = Source::of(&target);
        Box::pin(self.owner.inner.obtain_exclusive(target, source)).await
    }

    /// Runs the handshake on a stream that the caller brought.
    ///
    /// As initiator it is a dial like any other: others may join it. The stream comes back when a
    /// session to the peer exists or is being dialled.
    ///
    /// # Errors
    /// See [`AdoptError`].
    ///
    /// # Cancel safety
    /// As responder, dropping the future closes the stream; as initiator it leaves the dial, as
    /// [`Pool::get_or_dial`] does.
    pub async fn adopt<S: Stream>(&self, stream: S, role: Role) -> Result<Lease, AdoptError<S>> {
        let inner = &self.owner.inner;
        if !inner.is_open() {
            return Err(AdoptError::PoolClosed);
        }
        match role {
            Role::Initiator { peer } => inner.adopt_as_initiator(stream, peer).await,
            Role::Responder => {
                let Some(ticket) = inner.enter_handshake() else {
                    return Err(AdoptError::Limit(crate::base::error::Limit::PendingHandshakes));
                };
                let responding = inner.respond(Box::new(stream), None, ticket, Runs::Task);
                let core = match responding.await {
                    Ok(accepted) => accepted.core,
                    Err(NotAccepted::PoolClosed) => return Err(AdoptError::PoolClosed),
                    Err(NotAccepted::Shed) => {
                        return Err(AdoptError::Limit(
                            crate::base::error::Limit::PendingHandshakes,
                        ));
                    }
                    Err(NotAccepted::Handshake(error)) => return Err(AdoptError::Handshake(error)),
                    Err(NotAccepted::Rejected(peer, reason)) => {
                        return Err(AdoptError::Rejected { peer, reason });
                    }
                };
                inner.adopted(core).await.map_err(AdoptError::Dial)
            }
        }
    }

    /// Leases a session to the target, sends, and returns the lease.
    ///
    /// A session that is found dead before anything was written is dialled once more; a message is
    /// never sent twice.
    ///
    /// # Errors
    /// The message comes back with the reason.
    ///
    /// # Cancel safety
    /// The message is accepted whole or not at all; a message whose future is dropped before it
    /// was accepted is gone with the future.
    pub async fn send(&self, target: impl Into<Target>, message: Bytes) -> Result<(), SendToError> {
        let target = target.into();
        let mut message = message;
        let mut redialled = false;
        loop {
            let lease = match self.get_or_dial(target.clone()).await {
                Ok(lease) => lease,
                Err(source) => return Err(SendToError::Dial { message, source }),
            };
            match lease.send(message).await {
                Ok(()) => return Ok(()),
                Err(error) => match error.kind {
                    // Not accepted, so nothing of it was written.
                    SendErrorKind::Closed(_) | SendErrorKind::Retired(_) if !redialled => {
                        redialled = true;
                        message = error.message;
                    }
                    _ => return Err(SendToError::Send(error)),
                },
            }
        }
    }

    // ---- peers ---------------------------------------------------------------------------------

    /// Holds a session to the target's peer: dials now, and again with backoff whenever the session
    /// is lost. It is neither evicted nor expired for want of use.
    pub fn keep(&self, target: impl Into<Target>) {
        self.owner.inner.keep(target.into());
    }

    /// Ends [`Pool::keep`] for the peer; its session stays. Whether it was kept.
    pub fn unkeep(&self, peer: &PeerId) -> bool {
        self.owner.inner.unkeep(peer)
    }

    /// Ends the session to `peer`, stops a dial under way, and keeps the peer no longer.
    ///
    /// Those who wait for the dial get [`DialError::Disconnected`]. A dial that the peer may have
    /// accepted already runs to its verdict and is drained then. Returns whether there was a
    /// session or a dial.
    pub fn disconnect(&self, peer: &PeerId, what: Disconnect) -> bool {
        self.owner.inner.disconnect(peer, what)
    }

    // ---- the end -------------------------------------------------------------------------------

    /// Stops dialling and accepting, lets leases return until `deadline` from now, flushes, says
    /// goodbye, closes. The inbox stays readable, and ends with `None`.
    ///
    /// At the deadline the sessions whose leases are still out are drained under them; that takes
    /// at most `drain_timeout` more. A second call waits for the same end.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the pool draining, for as long as leases are out; another call, or
    /// [`Pool::close`], ends it.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        self.owner.inner.drain(deadline).await
    }

    /// As [`Pool::drain`], for the sessions of one peer; the peer may come back.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the sessions draining, for as long as leases are out.
    pub async fn drain_peer(&self, peer: &PeerId, deadline: Duration) -> DrainReport {
        self.owner.inner.drain_peer(peer, deadline).await
    }

    /// Cuts every session and dial now, and waits until the last task has ended. Idempotent.
    ///
    /// # Cancel safety
    /// Safe: the cut is done before the first await.
    pub async fn close(&self) {
        self.owner.inner.close().await;
    }

    // ---- looking inside ------------------------------------------------------------------------

    /// What happens from now on, in order. See [`Events`].
    pub fn subscribe(&self) -> Events {
        self.owner.inner.events.subscribe()
    }

    /// A picture of every session and dial, the limits and the counters.
    pub fn snapshot(&self) -> Snapshot {
        self.owner.inner.snapshot()
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        self.owner.inner.stats()
    }

    /// The median offset of our peers' clocks from ours, in seconds, as their handshakes told it.
    pub fn clock_offset(&self) -> Option<i64> {
        self.owner.inner.native.clock_offset()
    }

    /// Replaces what our handshakes tell peers about us, at most 16 KiB. Sessions that exist are
    /// not told.
    ///
    /// # Errors
    /// If it is too long.
    pub fn set_application_payload(&self, payload: Bytes) -> Result<(), ConfigError> {
        crate::base::config::check_application_payload(&payload)?;
        self.owner.inner.native.set_application_payload(payload);
        Ok(())
    }
}

/// Whether the slot has a session that is handed out. One that was discarded or closed stays in its
/// slot until its driver notices.
fn is_live(slot: &PeerSlot) -> bool {
    slot.session().is_some_and(|held| held.core.session().availability() != Availability::Retired)
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("id", &self.id())
            .field("slots", &self.owner.inner.registry.len())
            .field("life", &self.owner.inner.life())
            .finish_non_exhaustive()
    }
}
