//! Blank lease cores.
//!
//! Owns memory for the cores of sessions to come, and takes it for many at a time, so that they lie
//! side by side. Made one by one, each would lie among its session's buffers, on a page of its own;
//! with very many sessions, fetching that page was most of what a checkout cost. A blank is of no
//! session, and nobody else has it.

use std::iter::repeat_with;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::lease::{LeaseCore, LeaseHandle};

/// Most that are made at one time: 400 KB. The more, the fewer go into the holes that an allocator has
/// between other things, and fills first.
const MAX: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct LeaseSlab {
    /// Not one of loom's locks: which of the blanks somebody gets makes no difference.
    kept: Mutex<Vec<LeaseHandle>>,
    /// How many cores are in use.
    used: AtomicUsize,
    /// Of no session for ever.
    vacant: LeaseHandle,
}

impl LeaseSlab {
    /// A share of no session, to stand where one was.
    pub(super) fn vacant(&self) -> LeaseHandle {
        LeaseHandle::clone(&self.vacant)
    }

    /// The first share of `core`, written over a blank.
    pub(super) fn fill(&self, core: LeaseCore) -> LeaseHandle {
        let mut share = self.take();
        match LeaseHandle::get_mut(&mut share) {
            Some(blank) => *blank = core,
            None => share = LeaseHandle::new(core),
        }
        share
    }

    /// A blank. When there is none left, as many are made as cores are in use: a pool takes no more
    /// memory for later than it needs now.
    fn take(&self) -> LeaseHandle {
        let blank = || LeaseHandle::new(LeaseCore::default());
        let used = self.used.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_empty() {
            kept.extend(repeat_with(blank).take(used.min(MAX)));
        }
        kept.pop().unwrap_or_else(blank)
    }

    /// A core has gone that was one of them.
    pub(super) fn gone(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(slab: &LeaseSlab) -> usize {
        slab.kept.lock().unwrap().len()
    }

    #[test]
    fn as_many_are_made_as_are_in_use_and_nobody_else_has_one() {
        let slab = LeaseSlab::default();
        let mut taken = Vec::new();
        for in_use in 1..=1_000 {
            let mut blank = slab.take();
            assert!(LeaseHandle::get_mut(&mut blank).is_some());
            taken.push(blank);
            assert!(kept(&slab) < in_use, "{} kept, {in_use} in use", kept(&slab));
        }
        assert_eq!(kept(&slab), 24, "1, 1, 2, 4, up to 512 are made");
    }

    #[test]
    fn what_is_made_is_bounded_and_follows_what_is_in_use() {
        let slab = LeaseSlab::default();
        slab.used.store(100 * MAX, Ordering::Relaxed);
        drop(slab.take());
        assert_eq!(kept(&slab), MAX - 1);
        slab.kept.lock().unwrap().clear();
        (0..100 * MAX).for_each(|_| slab.gone());
        drop(slab.take());
        assert_eq!(kept(&slab), 0);
    }
}
