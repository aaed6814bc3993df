//! What the pool counts.
//!
//! Owns the public [`Stats`] and the live `Counters` behind them. Counters only grow; what is held at a
//! moment is told by permits (`permit`), never by two counters that could drift apart. Nothing here
//! may block or order memory: a counter is a number for people, not a condition to act on.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{CloseReason, Refusal, RejectReason};
use crate::event::{DialFailure, HandshakeFailure};

/// A value of [`Stats`] that is sampled from live counters.
pub(crate) trait Sampled {
    type Live: Default;

    fn sample(live: &Self::Live) -> Self;
}

/// One counter.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Counts one.
    pub(crate) fn one(&self) {
        self.add(1);
    }

    /// Counts `n`.
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Sampled for u64 {
    type Live = Count;

    fn sample(live: &Count) -> u64 {
        live.get()
    }
}

/// Sum of lengths of time.
#[derive(Default)]
pub(crate) struct TimeSum(AtomicU64);

impl TimeSum {
    /// Adds a length of time.
    pub(crate) fn add(&self, time: Duration) {
        // 64 bits of nanoseconds hold 584 years.
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Sampled for Duration {
    type Live = TimeSum;

    fn sample(live: &TimeSum) -> Duration {
        Duration::from_nanos(live.0.load(Ordering::Relaxed))
    }
}

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

/// A value that is known elsewhere, and put in when the others are sampled.
impl Sampled for Option<i64> {
    type Live = ();

    fn sample((): &()) -> Option<i64> {
        None
    }
}

/// Cells of a [`Striped`] counter: more than the processors that a router's runtime usually has, in
/// 2 KiB. All but the last have an owner.
const STRIPES: usize = 16;
/// The cell of the threads that found none of their own.
const COMMON: usize = STRIPES - 1;

/// A counter that many threads count at once, without a cache line that all of them write.
///
/// Each thread keeps to one cell. Two cells are 128 bytes apart, because processors fetch cache lines
/// in pairs.
#[derive(Default)]
pub(crate) struct Striped([Cell128; STRIPES]);

#[derive(Default)]
#[repr(align(128))]
struct Cell128(AtomicU64);

impl Striped {
    /// Counts one.
    #[inline]
    pub(crate) fn one(&self) {
        let mine = my_cell();
        let cell = &self.0[mine].0;
        if mine == COMMON {
            cell.fetch_add(1, Ordering::Relaxed);
        } else {
            // Nobody else writes it, and a locked instruction would be a good part of a hit.
            cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// The number so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.iter().map(|cell| cell.0.load(Ordering::Relaxed)).sum()
    }
}

/// This thread's cell in all [`Striped`] counters.
#[inline]
fn my_cell() -> usize {
    thread_local! {
        static MINE: Owned = const { Owned(Cell::new(UNSET)) };
    }
    // A thread that is ending may have given its cell back.
    MINE.try_with(|mine| if mine.0.get() == UNSET { mine.take() } else { mine.0.get() })
        .unwrap_or(COMMON)
}

const UNSET: usize = usize::MAX;

/// The cell that a thread owns, until the thread ends.
struct Owned(Cell<usize>);

/// Cells without an owner. Whoever takes one sees what its last owner has written: the lock has
/// passed from one to the other.
static FREE: Mutex<[bool; COMMON]> = Mutex::new([true; COMMON]);

impl Owned {
    #[cold]
    fn take(&self) -> usize {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = free.iter().position(|free| *free).unwrap_or(COMMON);
        if let Some(free) = free.get_mut(cell) {
            *free = false;
        }
        self.0.set(cell);
        cell
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(free) = free.get_mut(self.0.get()) {
            *free = true;
        }
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
        #[cfg_attr(feature = "serde", serde(rename = "wait_time_ns", with = "crate::snapshot::nanos"))]
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
mod tests {
    use super::*;

    #[test]
    fn stats_are_what_was_counted() {
        let counters = Counters::default();
        assert_eq!(counters.stats(None), Stats::default());
        counters.hits.one();
        counters.dials.add(3);
        counters.wait_time.add(Duration::from_millis(5));
        counters.dial_failures.count(DialFailure::NoAnswer);
        counters.rejected_by_peer.count(RejectReason::Other(200));
        counters.handshake_failures.count(HandshakeFailure::Shed);
        counters.hooks.count(Refusal::Panicked);
        counters.inbound_rows.committed_smaller.one();
        for reason in [CloseReason::Idle, CloseReason::Unhealthy, CloseReason::Stalled] {
            counters.session_retired(reason);
        }
        let mut expected = Stats {
            hits: 1,
            dials: 3,
            wait_time: Duration::from_millis(5),
            expired_idle: 1,
            ping_failed: 1,
            ..Stats::default()
        };
        expected.dial_failures.no_answer = 1;
        expected.rejected_by_peer.other = 1;
        expected.handshake_failures.shed = 1;
        expected.hooks.panicked = 1;
        expected.inbound_rows.committed_smaller = 1;
        assert_eq!(counters.stats(None), expected);
    }

    #[test]
    fn hits_of_many_threads_all_count() {
        const THREADS: u64 = 2 * STRIPES as u64;
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..1_000).for_each(|_| counters.hits.one()));
            }
        });
        assert_eq!(counters.stats(None).hits, THREADS * 1_000);
    }

    #[test]
    fn the_hits_of_threads_that_follow_each_other_all_count() {
        let counters = Counters::default();
        // More than there are cells: they pass from thread to thread.
        for _ in 0..4 * STRIPES {
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| (0..100).for_each(|_| counters.hits.one()));
                }
            });
        }
        assert_eq!(counters.stats(None).hits, 4 * STRIPES as u64 * 200);
    }

    #[test]
    fn no_two_cells_share_a_pair_of_cache_lines() {
        assert_eq!(size_of::<Striped>(), STRIPES * 128);
        assert_eq!(align_of::<Striped>(), 128);
    }
}
