//! The end of a session: in good order by drain, goodbye, half-close and end of stream, or at once.
//!
//! Owns the order of those steps on our side, whichever side begins, and the report. The connection says when
//! a record may be written; this decides when we want to. It must never let our goodbye count a message
//! that has not been delivered.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::time::Instant;

use crate::base::error::{CloseReason, GoodbyeReason, PingError, SendErrorKind};
use crate::base::metrics::SessionReport;
use crate::proto::wire::connection::Connection;
use crate::session::host::Ended;
use crate::session::receive::window::Priority;
use crate::session::send::buffer::{Entry, Queued, QueuedMessages};
use crate::session::send::queue::QueueLevel;
use crate::session::send::unsent::Unsent;

use super::task::{Drain, Driver, Peer};

/// Why sends are refused when the peer drains: it says why only in its goodbye.
const PEER_DRAINS: CloseReason = CloseReason::PeerDrains;

impl Driver {
    /// Stops accepting, and lets the connection write our drain once the queue is empty. `why` is ours,
    /// or none when the peer began. Open → Begun.
    pub(super) fn begin_drain(&mut self, why: Option<CloseReason>, now: Instant) {
        if self.drain != Drain::Open {
            return;
        }
        self.drain = Drain::Begun(why);
        self.liveness.draining(&self.session.context.settings, now.into_std());
        let reason = why.unwrap_or(PEER_DRAINS);
        if why.is_none() {
            self.host.retired(&self.session, reason);
        }
        self.session.drain_now(reason);
        let was_probing = self.liveness.probe_over();
        if self.check.take().is_some() || was_probing {
            let stands = self.session.retired().unwrap_or(reason);
            self.session.probes.resolve(Err(PingError::Closed(stands)));
        }
        self.connection.drain();
        tracing::debug!(%reason, "draining");
        // A draining session may go beyond the inbox's first bound.
        self.resume(now);
    }

    /// Lets the connection write our goodbye once all that the peer sent has been delivered; on a wire
    /// without a drain, whose peer may be waiting for ours, as soon as all that we have to send is
    /// written.
    pub(super) fn say_goodbye_when_due(&mut self) {
        let Drain::Begun(why) = self.drain else { return };
        let is_all_delivered = self.peer != Peer::Open && self.reading.pending.is_empty();
        if is_all_delivered || !self.connection.abilities().drain {
            self.connection.goodbye(match why {
                None => GoodbyeReason::Answer,
                Some(CloseReason::Idle) => GoodbyeReason::Idle,
                Some(CloseReason::Age) => GoodbyeReason::Age,
                Some(CloseReason::Evicted) => GoodbyeReason::Evicted,
                Some(CloseReason::Superseded | CloseReason::InDoubt) => GoodbyeReason::Superseded,
                Some(CloseReason::Drained | CloseReason::PoolClosed) => GoodbyeReason::Shutdown,
                Some(_) => GoodbyeReason::Disconnected,
            });
        }
    }

    /// The session is over once both sides have half-closed.
    pub(super) fn finish_if_closed(&mut self) -> Result<(), CloseReason> {
        if !(self.reading.end_of_stream && self.writing.half_closed) {
            return Ok(());
        }
        Err(match (self.drain, self.peer) {
            (Drain::Begun(Some(ours)), _) => ours,
            (_, Peer::Gone { why, .. }) => CloseReason::Peer(why),
            _ => PEER_DRAINS,
        })
    }

    /// Ends the session, last of all.
    pub(super) fn end_session(&mut self, why: CloseReason) {
        let session = Arc::clone(&self.session);
        if why != CloseReason::Internal {
            self.deliver_rest();
        }
        session.context.inbox.note_discarded(self.reading.pending.size().messages);
        self.reading.pending.clear();

        // Nothing is accepted from here on, so the report is final.
        session.queue.refuse(SendErrorKind::Closed(why));
        let retired = session.retired().unwrap_or(why);
        let unsent = match why {
            // What a stream has done that panicked nobody knows.
            CloseReason::Internal => {
                let queued = self.take_unsealed();
                self.leave(queued)
            }
            _ => self.take_unsent(),
        };
        session.context.budget.note_use();
        session.queue.settle(&session.context.budget);
        let report = self.report();
        // First the fact, then the pool's map, and only then the waiters, which will look there.
        session.end(why, report);
        let host = &self.host;
        let ended = Ended { why, retired, report, unsent };
        if catch_unwind(AssertUnwindSafe(|| host.ended(&session, ended))).is_err() {
            tracing::error!("the pool panicked at the end of a session");
        }
        session.release_successor();
        session.announce_end(why);
    }

    /// What has become of the session's messages.
    fn report(&self) -> SessionReport {
        let QueueLevel { accepted, carried, left: unsent, .. } = self.session.queue.level();
        let expired = self.session.metrics.expired() + self.writing.batch.expired;
        let written = accepted.saturating_sub(expired).saturating_sub(unsent);
        let delivered = match self.peer {
            // A peer may confirm whatever it likes.
            Peer::Gone { delivered, .. } => delivered.min(written),
            Peer::Open | Peer::Drained => 0,
        };
        SessionReport {
            accepted: accepted.saturating_sub(carried),
            carried,
            delivered,
            unknown: written - delivered,
            unsent,
            expired,
            received: self.connection.received(),
        }
    }

    /// All messages that have certainly not been delivered, in order. Nothing is written any more.
    fn take_unsent(&mut self) -> Option<Unsent> {
        let mut queued = self.writing.out.take_unsent();
        if let Some(terms) = self.writing.current.take()
            && let Some(body) = self.connection.take_unfinished()
        {
            queued.push(Entry::Message(Queued { body, terms }));
        }
        queued.append(self.take_unsealed());
        self.leave(queued)
    }

    /// All messages that are not sealed, in order.
    fn take_unsealed(&mut self) -> QueuedMessages {
        let mut queued = std::mem::take(&mut self.writing.taken);
        queued.append(self.session.queue.take_rest());
        queued
    }

    /// These messages leave the session.
    fn leave(&self, queued: QueuedMessages) -> Option<Unsent> {
        if queued.is_empty() {
            return None;
        }
        let unsent = Unsent::new(&self.session.context.budget, queued);
        self.session.queue.leave(&unsent);
        Some(unsent)
    }

    /// A newer session stands and waits for what this one has not sent. A session that is superseded
    /// leaves what is not sealed, and drains. One in doubt, or whose writes are stuck, leaves all that is
    /// not written whole, or that would come late and out of order: it writes no more, and reads on until
    /// its drain is over, since what is in flight may arrive.
    pub(super) fn leave_to_successor(&mut self, now: Instant) {
        let unsent = match self.drain {
            Drain::Begun(Some(CloseReason::Superseded))
                if !self.liveness.is_stuck(now.into_std()) =>
            {
                let queued = self.take_unsealed();
                self.leave(queued)
            }
            Drain::Begun(Some(CloseReason::Superseded | CloseReason::InDoubt)) => {
                self.writing.half_closed = true;
                self.take_unsent()
            }
            _ => None,
        };
        if let Some(unsent) = unsent {
            self.host.left(&self.session, unsent);
        }
        self.session.release_successor();
    }

    /// Delivers what has come in, as far as the second bound allows.
    fn deliver_rest(&mut self) {
        loop {
            self.session.deliver(&mut self.reading.pending, Priority::Ending);
            if !self.reading.pending.is_empty() || !self.next_messages() {
                return;
            }
        }
    }
}
