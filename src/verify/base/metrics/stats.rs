//! Unit tests of `base/metrics/stats.rs`.

use super::super::counter::STRIPES;
use super::super::failures::{DialFailure, HandshakeFailure};
use super::*;
use crate::base::error::{Refusal, RejectReason};

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
