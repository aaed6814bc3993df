//! Where our stamps come from.
//!
//! Owns the one number that says which of our own connections is newer. It must never repeat a
//! stamp or step back, whatever the clock does and however many dials draw at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Strictly increasing stamps: microseconds since the pool began, from a random start.
///
/// A plain counter would tell strangers how many dials we make.
#[derive(Debug)]
pub(crate) struct StampSource {
    start: u64,
    last: AtomicU64,
}

impl StampSource {
    /// `start` is random. Its top bit is dropped, which leaves 292,000 years before stamps could wrap.
    pub(crate) fn new(start: u64) -> Self {
        let start = start & (u64::MAX >> 1);
        Self { start, last: AtomicU64::new(start) }
    }

    /// A stamp above all that were drawn before; `elapsed` is the time since the pool began.
    pub(crate) fn next(&self, elapsed: Duration) -> u64 {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let by_clock = self.start.saturating_add(micros);
        let above = |last: u64| by_clock.max(last.saturating_add(1));
        // One atomic has one order of changes, which is all that `strictly increasing` needs:
        // no other memory is published by a stamp.
        match self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(above(last)))
        {
            Ok(last) | Err(last) => above(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_clock_from_its_start() {
        let stamps = StampSource::new(1_000);
        assert_eq!(stamps.next(Duration::from_micros(5)), 1_005);
        assert_eq!(stamps.next(Duration::from_secs(1)), 1_001_000);
    }

    #[test]
    fn increases_while_the_clock_stands_or_steps_back() {
        let stamps = StampSource::new(7);
        let first = stamps.next(Duration::from_micros(100));
        assert_eq!(stamps.next(Duration::from_micros(100)), first + 1);
        assert_eq!(stamps.next(Duration::ZERO), first + 2);
    }

    #[test]
    fn the_largest_start_leaves_room() {
        let stamps = StampSource::new(u64::MAX);
        let first = stamps.next(Duration::ZERO);
        assert!(stamps.next(Duration::from_secs(3_600 * 24 * 365 * 100)) > first);
    }

    #[test]
    fn no_two_threads_draw_the_same_and_each_sees_them_increase() {
        let stamps = StampSource::new(u64::MAX / 3);
        let mut all: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let drawn: Vec<u64> =
                            (0..2_000).map(|i| stamps.next(Duration::from_micros(i / 3))).collect();
                        assert!(drawn.windows(2).all(|pair| pair[0] < pair[1]));
                        drawn
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let drawn = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), drawn);
    }
}
