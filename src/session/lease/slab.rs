//! Blank lease cores.
//!
//! Owns memory for the cores of sessions to come, and takes it for many at a time, so that they lie
//! side by side. Made one by one, each would lie among its session's buffers, on a page of its own;
//! with very many sessions, fetching that page was most of what a checkout cost. A blank has one owner,
//! and is of no session: what a core holds is no concern of this file.

use std::iter::repeat_with;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::sync::{Arc, lock_std};

/// Most that are made at one time: 400 KB. The more, the fewer go into the holes that an allocator has
/// between other things, and fills first.
const MAX: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct Slab<C> {
    /// Not one of loom's locks: which of the blanks is taken makes no difference.
    blanks: Mutex<Vec<Arc<C>>>,
    /// How many cores are in use.
    used: AtomicUsize,
    /// A blank that stays one.
    vacant: Arc<C>,
}

impl<C: Default> Default for Slab<C> {
    fn default() -> Self {
        Self { blanks: Mutex::default(), used: AtomicUsize::new(0), vacant: Arc::new(C::default()) }
    }
}

impl<C> Slab<C> {
    /// A core has gone that was one of them.
    pub(crate) fn gone(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }

    /// A share of no session's core, to stand where one was.
    pub(crate) fn vacant(&self) -> Arc<C> {
        Arc::clone(&self.vacant)
    }
}

impl<C: Default> Slab<C> {
    /// The first share of `core`, written over a blank.
    pub(crate) fn fill(&self, core: C) -> Arc<C> {
        let mut share = self.take();
        match Arc::get_mut(&mut share) {
            Some(blank) => *blank = core,
            None => share = Arc::new(core),
        }
        share
    }

    /// A blank. When there is none left, as many are made as cores are in use: a pool takes no more
    /// memory for later than it needs now.
    fn take(&self) -> Arc<C> {
        let blank = || Arc::new(C::default());
        let used = self.used.fetch_add(1, Ordering::Relaxed);
        let mut blanks = lock_std(&self.blanks);
        if blanks.is_empty() {
            blanks.extend(repeat_with(blank).take(used.min(MAX)));
        }
        blanks.pop().unwrap_or_else(blank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(slab: &Slab<u64>) -> usize {
        slab.blanks.lock().unwrap().len()
    }

    #[test]
    fn as_many_are_made_as_are_in_use_and_each_has_one_owner() {
        let slab = Slab::<u64>::default();
        let mut taken = Vec::new();
        for in_use in 1..=1_000 {
            let mut blank = slab.take();
            assert!(Arc::get_mut(&mut blank).is_some());
            taken.push(blank);
            assert!(kept(&slab) < in_use, "{} kept, {in_use} in use", kept(&slab));
        }
        assert_eq!(kept(&slab), 24, "1, 1, 2, 4, up to 512 are made");
    }

    #[test]
    fn what_is_made_is_bounded_and_follows_what_is_in_use() {
        let slab = Slab::<u64>::default();
        slab.used.store(100 * MAX, Ordering::Relaxed);
        drop(slab.take());
        assert_eq!(kept(&slab), MAX - 1);
        slab.blanks.lock().unwrap().clear();
        (0..100 * MAX).for_each(|_| slab.gone());
        drop(slab.take());
        assert_eq!(kept(&slab), 0);
    }
}
