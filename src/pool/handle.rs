//! The public handle of a pool.
//!
//! Owns what callers see: each method is documented here and done by a part of the pool.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::config::{self, ConfigError};
use crate::base::error::{AdoptError, DialError, Limit, ListenError, SendErrorKind, SendToError};
use crate::base::event::Events;
use crate::base::id::PeerId;
use crate::base::io::Stream;
use crate::base::metrics::{Snapshot, Stats};
use crate::pool::dial::{Fate, StreamSource};
use crate::pool::inbound::{DriverTask, NotAccepted};
use crate::pool::report;
use crate::pool::shutdown::{self, Disconnect, DrainReport};
use crate::pool::state::PoolState;
use crate::pool::target::Target;
use crate::session::{Availability, ExclusiveLease, Lease};
use crate::transport::seam::Transport as _;

/// Holds at most one session per peer, and shares it among all who ask.
///
/// A cheap clone: all clones are one pool. When the last one is dropped the pool closes as by
/// [`Pool::close`], without anybody waiting for it.
#[derive(Clone)]
pub struct Pool {
    owner: Arc<Owner>,
}

/// Ends the pool with its last handle: tasks hold the parts, never this.
struct Owner(PoolState);

impl Drop for Owner {
    fn drop(&mut self) {
        shutdown::shut_down(&self.0);
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
    pub(crate) fn new(state: PoolState) -> Self {
        Self { owner: Arc::new(Owner(state)) }
    }

    /// The pool's parts.
    pub(crate) fn state(&self) -> &PoolState {
        &self.owner.0
    }

    /// Our own name.
    pub fn id(&self) -> PeerId {
        self.state().ctx.peer
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
        self.state().listeners.listen(address).await
    }

    /// The addresses that are listened on.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.state().listeners.addresses()
    }

    // ---- sessions ------------------------------------------------------------------------------

    /// A lease on the live session to `peer`, or none. Never dials, never waits.
    ///
    /// None also when `max_leases` are out. A session that was silent for `ping_after` is returned
    /// as it is, and probed in the background.
    #[inline]
    pub fn get(&self, peer: &PeerId) -> Option<Lease> {
        let PoolState { sessions, ctx, .. } = self.state();
        let Some(lease) = sessions.hit(peer) else {
            ctx.counters.misses.one();
            return None;
        };
        match lease.availability() {
            Availability::Ready => {}
            Availability::NeedsProbe => lease.session().request_probe(),
            Availability::Retired => return None,
        }
        ctx.counters.hits.one();
        Some(lease)
    }

    /// Whether a live session to `peer` exists. As cheap as a look-up.
    pub fn contains(&self, peer: &PeerId) -> bool {
        self.state().sessions.contains(peer)
    }

    /// The peers to which a live session exists, in no order.
    pub fn peers(&self) -> Vec<PeerId> {
        self.state().sessions.peers()
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
        let source = StreamSource::Connector(target.connector_data());
        Box::pin(self.state().acquirer.exclusive(target, source)).await
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
        let PoolState { lifecycle, acquirer, responder, .. } = self.state();
        if !lifecycle.is_open() {
            return Err(AdoptError::PoolClosed);
        }
        match role {
            Role::Initiator { peer } => acquirer.adopt(stream, peer).await,
            Role::Responder => {
                let no_place = || AdoptError::Limit(Limit::PendingHandshakes);
                let permit = responder.enter().ok_or_else(no_place)?;
                let responding = responder.respond(Box::new(stream), None, permit, DriverTask::Own);
                let leases = match responding.await {
                    Ok(accepted) => accepted.leases,
                    Err(NotAccepted::PoolClosed) => return Err(AdoptError::PoolClosed),
                    Err(NotAccepted::Shed) => return Err(no_place()),
                    Err(NotAccepted::Handshake(error)) => return Err(AdoptError::Handshake(error)),
                    Err(NotAccepted::Rejected(peer, reason)) => {
                        return Err(AdoptError::Rejected { peer, reason });
                    }
                };
                acquirer.adopted(leases).await.map_err(AdoptError::Dial)
            }
        }
    }

    /// Leases a session to the target, sends, and returns the lease.
    ///
    /// Where a dial is needed, a message of up to 16 KiB travels with its handshake, so that it arrives
    /// after two and a half round trips; all that travel with one dial are so much together. A session
    /// that is found dead before anything was written is dialled once more; a message is never sent
    /// twice.
    ///
    /// # Errors
    /// The message comes back with the reason. [`SendToError::Unknown`] if it may have been sent.
    ///
    /// # Cancel safety
    /// The message is accepted whole or not at all; a message whose future is dropped before it
    /// was accepted is gone with the future, unless it is under way with a handshake.
    pub async fn send(&self, target: impl Into<Target>, message: Bytes) -> Result<(), SendToError> {
        let target = target.into();
        let mut message = message;
        let acquirer = &self.state().acquirer;
        if acquirer.may_travel(message.len()) && !self.contains(&target.peer) {
            match acquirer.send_with_dial(&target, &message).await {
                Ok(Fate::Sent) => return Ok(()),
                Ok(Fate::Unsent) => {}
                Ok(Fate::Unknown) => return Err(SendToError::Unknown { message }),
                Err(source) => return Err(SendToError::Dial { message, source }),
            }
        }
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
        self.state().persistent.keep(target.into());
    }

    /// Ends [`Pool::keep`] for the peer; its session stays. Whether it was kept.
    pub fn unkeep(&self, peer: &PeerId) -> bool {
        self.state().persistent.unkeep(peer)
    }

    /// Ends the session to `peer`, stops a dial under way, and keeps the peer no longer.
    ///
    /// Those who wait for the dial get [`DialError::Disconnected`]. A dial that the peer may have
    /// accepted already runs to its verdict and is drained then. Returns whether there was a
    /// session or a dial.
    pub fn disconnect(&self, peer: &PeerId, what: Disconnect) -> bool {
        shutdown::disconnect(self.state(), peer, what)
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
        shutdown::drain(self.state(), deadline).await
    }

    /// As [`Pool::drain`], for the sessions of one peer; the peer may come back.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the sessions draining, for as long as leases are out.
    pub async fn drain_peer(&self, peer: &PeerId, deadline: Duration) -> DrainReport {
        shutdown::drain_peer(self.state(), peer, deadline).await
    }

    /// Cuts every session and dial now, and waits until the last task has ended. Idempotent.
    ///
    /// # Cancel safety
    /// Safe: the cut is done before the first await.
    pub async fn close(&self) {
        shutdown::close(self.state()).await;
    }

    // ---- looking inside ------------------------------------------------------------------------

    /// What happens from now on, in order. See [`Events`].
    pub fn subscribe(&self) -> Events {
        self.state().ctx.events.subscribe()
    }

    /// A picture of every session and dial, the limits and the counters.
    pub fn snapshot(&self) -> Snapshot {
        report::snapshot(self.state())
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        report::stats(self.state())
    }

    /// The median offset of our peers' clocks from ours, in seconds, as their handshakes told it.
    pub fn clock_offset(&self) -> Option<i64> {
        self.state().transport.clock_offset()
    }

    /// Replaces what our handshakes tell peers about us, at most 16 KiB. Sessions that exist are
    /// not told.
    ///
    /// # Errors
    /// If it is too long.
    pub fn set_application_payload(&self, payload: Bytes) -> Result<(), ConfigError> {
        config::check_application_payload(&payload)?;
        self.state().transport.set_application_payload(payload);
        Ok(())
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("id", &self.id())
            .field("slots", &self.state().sessions.slots.len())
            .field("life", &self.state().lifecycle.life())
            .finish_non_exhaustive()
    }
}
