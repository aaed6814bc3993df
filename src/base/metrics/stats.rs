//! What the pool counts.
//!
//! Owns the public [`Stats`] and the live `Counters` behind them. Counters only grow; what is held at a
//! moment is told by permits, never by two counters that could drift apart.

use std::time::Duration;

use tokio::time::Instant;

use super::counter::{Sampled, Striped};
use crate::base::error::{CloseReason, Refusal, RejectReason};
use crate::base::event::{DialFailure, HandshakeFailure};

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

/// A public struct of numbers, and the live counters that it is sampled from.
macro_rules! stats {
    (
        $(#[$meta:meta])*
        $Stats:ident, live as $Counters:ident {
            $( $(#[$field_meta:meta])* $field:ident: $ty:ty $(, live as $Live:ty)?; )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        pub struct $Stats {
            $( $(#[$field_meta])* pub $field: $ty, )+
        }

        #[doc = concat!("Live counters of [`", stringify!($Stats), "`].")]
        #[derive(Default)]
        pub(crate) struct $Counters {
            $( pub(crate) $field: stats!(@live $ty $(, $Live)?), )+
        }

        impl Sampled for $Stats {
            type Live = $Counters;

            fn sample(live: &$Counters) -> Self {
                Self {
                    $( $field: stats!(@sample $ty, live.$field $(, $Live)?), )+
                }
            }
        }
    };
    (@live $ty:ty) => { <$ty as Sampled>::Live };
    (@live $ty:ty, $Live:ty) => { $Live };
    (@sample $ty:ty, $live:expr) => { <$ty as Sampled>::sample(&$live) };
    (@sample $ty:ty, $live:expr, $Live:ty) => { $live.get() };
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
        /// Sessions that did not answer a ping, or whose health check said no.
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
        /// Messages received that nobody took, because the inbox was dropped.
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
    }
}

stats! {
    /// Dials that did not end in a session, by cause.
    DialFailures, live as DialFailureCounters {
        /// No address was given and none is known.
        no_address: u64;
        /// The look-up of addresses failed.
        resolve: u64;
        /// No address could be connected.
        connect: u64;
        /// Connected, but no message 2: wrong key, network id, suite or clock.
        no_answer: u64;
        /// The handshake failed otherwise.
        handshake: u64;
        /// `dial_timeout` passed.
        timed_out: u64;
        /// `verdict_timeout` passed.
        verdict_timed_out: u64;
        /// The peer refused.
        rejected: u64;
        /// Our own checks refused the peer.
        refused: u64;
        /// Nobody waited any more.
        cancelled: u64;
        /// The application disconnected the peer.
        disconnected: u64;
        /// An inbound session took the dial's place.
        superseded: u64;
        /// One of our own limits was met.
        limit: u64;
        /// The peer turned out to be ourselves.
        own_identity: u64;
        /// The pool ended.
        pool_closed: u64;
        /// The connector or the dial's task panicked.
        panicked: u64;
    }
}

stats! {
    /// Sessions refused, by reason.
    Rejections, live as RejectionCounters {
        /// No room.
        full: u64;
        /// Shutting down.
        draining: u64;
        /// Policy.
        refused: u64;
        /// The other of two simultaneous dials won.
        simultaneous: u64;
        /// A newer session exists.
        duplicate: u64;
        /// A reason that this version does not know.
        other: u64;
    }
}

stats! {
    /// Inbound handshakes that did not end in a session, by cause.
    HandshakeFailures, live as HandshakeFailureCounters {
        /// The stream failed or ended.
        io: u64;
        /// A message did not verify.
        unverified: u64;
        /// A message or its payload is malformed.
        malformed: u64;
        /// Message 1 is dated too far from our clock.
        skewed: u64;
        /// Message 1 was seen before.
        replayed: u64;
        /// The peer's key is not canonical, or our own.
        bad_key: u64;
        /// It took too long.
        timed_out: u64;
        /// Shed for a newcomer while all places were taken.
        shed: u64;
        /// Turned away by the limit of its source, before any work.
        source_limited: u64;
        /// Turned away by the application's check of addresses, before any work.
        not_admitted: u64;
    }
}

stats! {
    /// Outcomes of the application's callbacks that are not "yes".
    HookStats, live as HookCounters {
        /// It said no.
        refused: u64;
        /// It took longer than `hook_timeout`.
        timed_out: u64;
        /// It panicked.
        panicked: u64;
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
            CloseReason::PingTimeout | CloseReason::Unhealthy => self.ping_failed.one(),
            _ => {}
        }
    }
}

impl DialFailureCounters {
    /// A dial failed.
    pub(crate) fn count(&self, failure: DialFailure) {
        let counter = match failure {
            DialFailure::NoAddress => &self.no_address,
            DialFailure::Resolve => &self.resolve,
            DialFailure::Connect => &self.connect,
            DialFailure::NoAnswer => &self.no_answer,
            DialFailure::Handshake => &self.handshake,
            DialFailure::TimedOut => &self.timed_out,
            DialFailure::VerdictTimedOut => &self.verdict_timed_out,
            DialFailure::Rejected => &self.rejected,
            DialFailure::Refused => &self.refused,
            DialFailure::Cancelled => &self.cancelled,
            DialFailure::Disconnected => &self.disconnected,
            DialFailure::Superseded => &self.superseded,
            DialFailure::Limit => &self.limit,
            DialFailure::OwnIdentity => &self.own_identity,
            DialFailure::PoolClosed => &self.pool_closed,
            DialFailure::Panicked => &self.panicked,
        };
        counter.one();
    }
}

impl RejectionCounters {
    /// A session was refused.
    pub(crate) fn count(&self, reason: RejectReason) {
        let counter = match reason {
            RejectReason::Full => &self.full,
            RejectReason::Draining => &self.draining,
            RejectReason::Refused => &self.refused,
            RejectReason::Simultaneous => &self.simultaneous,
            RejectReason::Duplicate => &self.duplicate,
            RejectReason::Other(_) => &self.other,
        };
        counter.one();
    }
}

impl HandshakeFailureCounters {
    /// An inbound handshake failed.
    pub(crate) fn count(&self, failure: HandshakeFailure) {
        let counter = match failure {
            HandshakeFailure::Io => &self.io,
            HandshakeFailure::Unverified => &self.unverified,
            HandshakeFailure::Malformed => &self.malformed,
            HandshakeFailure::Skewed => &self.skewed,
            HandshakeFailure::Replayed => &self.replayed,
            HandshakeFailure::BadKey => &self.bad_key,
            HandshakeFailure::TimedOut => &self.timed_out,
            HandshakeFailure::Shed => &self.shed,
        };
        counter.one();
    }
}

impl HookCounters {
    /// A callback did not say yes.
    pub(crate) fn count(&self, refusal: Refusal) {
        let counter = match refusal {
            Refusal::Refused => &self.refused,
            Refusal::TimedOut => &self.timed_out,
            Refusal::Panicked => &self.panicked,
        };
        counter.one();
    }
}

#[cfg(test)]
#[path = "../../verify/base/metrics/stats.rs"]
mod tests;
