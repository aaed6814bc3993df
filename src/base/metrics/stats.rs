//! What the pool counts.
//!
//! Owns the public [`Stats`] and the live `Counters` behind them. Counters only grow; permits count what
//! is held at a moment, never two counters that could drift apart.

use std::time::Duration;

use tokio::time::Instant;

use super::counter::{Sampled, Striped};
use super::failures::{DialFailures, HandshakeFailures, HookStats, Rejections};
use super::table::stats;
use crate::base::error::CloseReason;

/// One wait, counted when it begins; its time is counted when it is dropped, however it ended.
pub(crate) struct Waited<'a> {
    counters: &'a Counters,
    began: Instant,
}

impl<'a> Waited<'a> {
    pub(crate) fn new(counters: &'a Counters) -> Self {
        counters.waits.one();
        Self { counters, began: Instant::now() }
    }
}

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        self.counters.wait_time.add(self.began.elapsed());
    }
}

stats! {
    /// What a pool has counted since it began.
    ///
    /// Numbers are read one after another while the pool works: two of them may differ by what happened
    /// in between.
    Stats, live as Counters {
        /// Calls that found a live session.
        hits: u64, live as Striped;
        /// Calls that found none.
        misses: u64, live as Striped;
        /// Dials that began.
        dials: u64;
        /// Calls that joined a dial of another call.
        dials_shared: u64, live as Striped;
        /// Dials that ended in a session.
        dials_succeeded: u64;
        /// Dials that ended otherwise, by cause.
        dial_failures: DialFailures;
        /// Calls that failed at once because of an earlier failure.
        backoffs: u64;
        /// Calls that had to wait for a lease or for room.
        waits: u64;
        /// How long those waited together.
        #[cfg_attr(feature = "serde", serde(rename = "wait_time_ns", with = "crate::base::metrics::nanos"))]
        wait_time: Duration;
        /// Sessions that passed their checks and were pooled.
        opened: u64;
        /// Sessions that ended, whatever the reason.
        closed: u64;
        /// Sessions that ended for want of use.
        expired_idle: u64;
        /// Sessions that ended for age.
        expired_age: u64;
        /// Sessions that made room for others.
        evicted: u64;
        /// Sessions whose peer was silent for too long, or whose health check said no.
        ping_failed: u64;
        /// Sessions that a newer one of the same peer replaced.
        superseded: u64;
        /// Inbound sessions that waited for the outcome of a dial of ours.
        parked: u64;
        /// Dials of ours that met an inbound session of the same peer.
        simultaneous_opens: u64;
        /// Sessions that we refused, by reason.
        rejected_by_us: Rejections;
        /// Dials that the peer refused, by reason.
        rejected_by_peer: Rejections;
        /// Inbound handshakes that ended in a session.
        handshakes_accepted: u64;
        /// Inbound handshakes that ended otherwise, by cause.
        handshake_failures: HandshakeFailures;
        /// Peers whose identity two processes use at the same time, as often as it showed.
        identity_conflicts: u64;
        /// Bytes read from sockets of sessions.
        bytes_in: u64;
        /// Bytes written to sockets of sessions.
        bytes_out: u64;
        /// Messages received whole.
        messages_in: u64;
        /// Messages handed to sockets.
        messages_out: u64;
        /// Messages dropped because their deadline passed in the queue.
        messages_expired: u64;
        /// Messages received and never read, because the inbox was dropped.
        messages_discarded: u64;
        /// The median of how far the clocks of the last peers are ahead of ours, in seconds; none
        /// before the first handshake.
        clock_offset_seconds: Option<i64>;
        /// The application's callbacks, by outcome.
        hooks: HookStats;
        /// How often each row of the first table of the simultaneous open decided.
        inbound_rows: InboundRows;
        /// How often each row of the second table of the simultaneous open decided.
        late_accept_rows: LateAcceptRows;
        /// Messages that a session had left unsent, and that the peer's next session took over.
        #[cfg_attr(feature = "serde", serde(default))]
        messages_carried: u64;
        /// Messages that a session had left unsent, and that no other session took over in time.
        #[cfg_attr(feature = "serde", serde(default))]
        messages_unsent: u64;
    }
}

stats! {
    /// What an inbound session that passed its checks met in our slot for its peer.
    InboundRows, live as InboundRowCounters {
        /// Nothing: accepted.
        absent: u64;
        /// A dial that was not committed: the dial was aborted, the session accepted.
        uncommitted: u64;
        /// A committed dial, and the peer's key is larger: accepted, the dial superseded.
        committed_larger: u64;
        /// A committed dial, and the peer's key is smaller: parked.
        committed_smaller: u64;
        /// A session that it supersedes: accepted, that session retired.
        superseding: u64;
        /// A session that it does not supersede: rejected as a duplicate.
        duplicate: u64;
    }
}

stats! {
    /// What a late accept of a superseded dial met in our slot for its peer.
    LateAcceptRows, live as LateAcceptRowCounters {
        /// Nothing: adopted.
        absent: u64;
        /// Nothing, but a disconnect or drain had marked the dial: drained.
        marked: u64;
        /// A dial that was not committed: the dial was aborted, the session adopted.
        uncommitted: u64;
        /// A committed dial: adopted, that dial superseded in turn.
        committed: u64;
        /// A session that it supersedes: adopted, that session retired.
        superseding: u64;
        /// A session that it does not supersede: drained.
        duplicate: u64;
    }
}

impl Counters {
    /// All numbers as they are now, and the offset of our clock as the handshakes tell it.
    pub(crate) fn stats(&self, clock_offset_seconds: Option<i64>) -> Stats {
        Stats { clock_offset_seconds, ..Stats::sample(self) }
    }

    /// A session is taken out of its slot for this reason.
    pub(crate) fn session_retired(&self, why: CloseReason) {
        match why {
            CloseReason::Idle => self.expired_idle.one(),
            CloseReason::Age => self.expired_age.one(),
            CloseReason::Evicted => self.evicted.one(),
            CloseReason::Superseded => self.superseded.one(),
            CloseReason::PingTimeout | CloseReason::InDoubt | CloseReason::Unhealthy => {
                self.ping_failed.one();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "../../verify/base/metrics/stats.rs"]
mod tests;
