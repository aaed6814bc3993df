//! The responder's side of a handshake, from a stranger's first byte to its authentication.
//!
//! Owns how strangers are bounded: a place, a time, and not one byte in return before they have shown
//! that they know our key. What fails is read and discarded for a random time, so that the failure
//! tells nothing. What becomes of an authenticated peer is for `decide`.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::base::address::Address;
use crate::base::environment::share;
use crate::base::error::{HandshakeError, Limit, RejectReason};
use crate::base::event::PoolEvent;
use crate::base::id::PeerId;
use crate::base::io::BoxedStream;
use crate::base::metrics::LimitUse;
use crate::pool::limits::CountedLimit;
use crate::session::LeaseHandle;
use crate::transport::seam::{Failed, Proposed as _, Transport as _};

use super::decide::{AcceptedSession, Decider, DecisionParts, DriverTask};
use super::pending::{HandshakePermit, PendingHandshakes};

/// The least time for which a failed handshake is read and discarded. The longest is
/// `handshake_timeout`.
const MIN_DISCARD: Duration = Duration::from_millis(500);

/// Why an inbound connection did not become a session.
pub(crate) enum NotAccepted {
    /// The pool ends.
    PoolClosed,
    /// No place among the pending handshakes, or shed for a newcomer.
    Shed,
    /// The handshake failed; the peer is a stranger.
    Handshake(HandshakeError),
    /// The peer was told no.
    Rejected(PeerId, RejectReason),
}

/// See the module.
pub(crate) struct Responder {
    parts: Arc<DecisionParts>,
    pending: Arc<PendingHandshakes>,
    discarding: CountedLimit,
}

impl Responder {
    pub(crate) fn new(parts: DecisionParts) -> Arc<Self> {
        let settings = &parts.ctx.settings;
        Arc::new(Self {
            pending: PendingHandshakes::new(settings.max_pending_handshakes),
            discarding: CountedLimit::new(settings.max_discarding),
            parts: Arc::new(parts),
        })
    }

    /// The pending handshakes.
    pub(crate) fn pending(&self) -> &PendingHandshakes {
        &self.pending
    }

    /// What is held of `max_discarding`.
    pub(crate) fn discarding(&self) -> LimitUse {
        self.discarding.snapshot()
    }

    /// A place among the pending handshakes; counts and reports the one that was shed for it.
    pub(crate) fn enter(&self) -> Option<HandshakePermit> {
        let entry = self.pending.enter();
        if entry.shed {
            self.parts.ctx.counters.handshake_failures.shed.one();
            self.parts.ctx.limit_hit(Limit::PendingHandshakes);
        }
        entry.permit
    }

    /// Runs the responder's side of one connection, to its end.
    ///
    /// # Cancel safety
    /// Dropped, the connection ends; a session that is in its slot by then has a driver.
    pub(crate) async fn respond(
        &self,
        stream: BoxedStream,
        remote: Option<Address>,
        permit: HandshakePermit,
        task: DriverTask,
    ) -> Result<AcceptedSession, NotAccepted> {
        let began = Instant::now();
        let handshake = tokio::select! {
            biased;
            () = permit.stop().aborted() => return Err(self.shed_or_closed()),
            done = self.parts.transport.respond(stream, || permit.verified()) => done,
        };
        // Shed by another thread while this one came to its end: that was counted, and is all.
        let (proposed, permit) = match handshake {
            Ok(proposed) => match permit.authenticated() {
                Some(permit) => (proposed, permit),
                None => return Err(self.shed_or_closed()),
            },
            Err(Failed { error, stream }) if permit.failed() => {
                return Err(self.handshake_failed(error, stream, remote));
            }
            Err(_) => return Err(self.shed_or_closed()),
        };
        let peer = proposed.proposal().peer;
        let decider = Decider::new(self.parts.clone(), remote, began, permit, task);
        // Boxed, so that a stranger who never gets so far does not carry its state.
        let decided = Box::pin(decider.decide(proposed)).await;
        decided.map_err(|reason| NotAccepted::Rejected(peer, reason))
    }

    /// Gives up the handle of a session that [`respond`](Self::respond) accepted.
    pub(crate) fn release(&self, leases: LeaseHandle) {
        self.parts.sessions.release(leases);
    }

    /// The decision about a peer that has authenticated without a handshake.
    #[cfg(all(test, noise_pool_loom))]
    pub(crate) fn decider(
        &self,
        remote: Option<Address>,
        began: Instant,
        permit: HandshakePermit,
        task: DriverTask,
    ) -> Decider {
        Decider::new(self.parts.clone(), remote, began, permit, task)
    }

    /// Why a handshake was stopped.
    fn shed_or_closed(&self) -> NotAccepted {
        if self.parts.lifecycle.is_open() { NotAccepted::Shed } else { NotAccepted::PoolClosed }
    }

    /// A handshake failed before the peer was authenticated: the peer learns nothing.
    fn handshake_failed(
        &self,
        error: HandshakeError,
        stream: Option<BoxedStream>,
        remote: Option<Address>,
    ) -> NotAccepted {
        let ctx = &self.parts.ctx;
        ctx.counters.handshake_failures.count((&error).into());
        debug!(%error, "handshake failed");
        ctx.events.publish(|| PoolEvent::HandshakeFailed { remote, cause: (&error).into() });
        if let Some(stream) = stream {
            self.discard(stream);
        }
        NotAccepted::Handshake(error)
    }

    /// Reads and discards until a random deadline, then closes; at most `max_discarding` at once.
    fn discard(&self, mut stream: BoxedStream) {
        let ctx = &self.parts.ctx;
        let Some(permit) = self.discarding.try_acquire() else {
            ctx.limit_hit(Limit::Discarding);
            return;
        };
        let spread = ctx.settings.handshake_timeout.saturating_sub(MIN_DISCARD);
        let until = Instant::now() + MIN_DISCARD + spread.mul_f64(share(&*ctx.settings.entropy));
        let stop = self.parts.lifecycle.accepting().clone();
        self.parts.lifecycle.spawn(async move {
            let reading = async {
                let mut scrap = [0; 512];
                while matches!(stream.read(&mut scrap).await, Ok(n) if n > 0) {}
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                _ = timeout_at(until, reading) => {}
            }
            drop(permit);
        });
    }
}
