//! The end of a session in good order: flush, drain, goodbye, half-close, end of stream.
//!
//! Owns the order of those steps on our side, whoever begins. The core says when a record may be
//! written; this decides when we want to. It must never let our goodbye count a message that has not
//! been handed over.

use tokio::time::Instant;

use crate::base::error::{CloseReason, GoodbyeReason, PingError, SendErrorKind};

use super::{Drain, Driver};

/// Why sends are refused when the peer drains: it says why only in its goodbye.
const PEER_DRAINS: CloseReason = CloseReason::PeerDrains;

impl Driver {
    /// Stops accepting, and lets the core write our drain once the queue is empty. `why` is ours, or
    /// none when the peer began.
    pub(super) fn begin_drain(&mut self, why: Option<CloseReason>, now: Instant) {
        if self.drain.is_some() {
            return;
        }
        self.drain = Some(Drain {
            deadline: now + self.session.shared.settings.drain_timeout,
            why,
            peers_reason: None,
        });
        let reason = why.unwrap_or(PEER_DRAINS);
        if why.is_none() {
            self.host.retired(&self.session, reason);
        }
        self.session.drain_now(reason);
        if self.probe.take().is_some() {
            let stands = self.session.retired().unwrap_or(reason);
            self.session.probes.resolve(Err(PingError::Closed(stands)));
        }
        self.session.queue.refuse(SendErrorKind::Retired(reason));
        self.core.drain();
        tracing::debug!(%reason, "draining");
        // A draining session may go beyond the inbox's first bound.
        self.resume(now);
    }

    /// Lets the core write our goodbye once all that the peer sent has been handed over.
    pub(super) fn say_goodbye_when_due(&mut self) {
        if let Some(drain) = &self.drain
            && self.peer_drained
            && self.pending.is_empty()
        {
            self.core.goodbye(match drain.why {
                None => GoodbyeReason::Answer,
                Some(CloseReason::Idle) => GoodbyeReason::Idle,
                Some(CloseReason::Age) => GoodbyeReason::Age,
                Some(CloseReason::Evicted) => GoodbyeReason::Evicted,
                Some(CloseReason::Superseded) => GoodbyeReason::Superseded,
                Some(CloseReason::Drained | CloseReason::PoolClosed) => GoodbyeReason::Shutdown,
                Some(_) => GoodbyeReason::Disconnected,
            });
        }
    }

    /// Both sides have half-closed: the session is over.
    pub(super) fn end_when_parted(&mut self) -> Result<(), CloseReason> {
        if !(self.end_of_stream && self.half_closed) {
            return Ok(());
        }
        let drain = self.drain;
        let peers = drain.and_then(|drain| drain.peers_reason);
        Err(drain
            .and_then(|drain| drain.why)
            .or(peers.map(CloseReason::Peer))
            .unwrap_or(PEER_DRAINS))
    }
}
