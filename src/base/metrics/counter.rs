//! Counters: numbers for people.
//!
//! Owns the live counters behind the statistics. They only grow. Nothing here may block or order
//! memory: a counter is no condition to act on.

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::base::sync::lock_std;

/// A value of the statistics that is sampled from live counters.
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

/// A value that is known elsewhere, and put in when the others are sampled.
impl Sampled for Option<i64> {
    type Live = ();

    fn sample((): &()) -> Option<i64> {
        None
    }
}

/// Cells of a [`Striped`] counter: more than the processors that a router's runtime usually has, in
/// 2 KiB. All but the last have an owner.
pub(super) const STRIPES: usize = 16;
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
            // No other thread writes it, and a locked instruction would be a good part of a hit.
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

/// Cells without an owner. The next owner of a cell sees what the last one wrote: the lock has passed
/// from one to the other.
static FREE: Mutex<[bool; COMMON]> = Mutex::new([true; COMMON]);

impl Owned {
    #[cold]
    fn take(&self) -> usize {
        let mut free = lock_std(&FREE);
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
        let mut free = lock_std(&FREE);
        if let Some(free) = free.get_mut(self.0.get()) {
            *free = true;
        }
    }
}
