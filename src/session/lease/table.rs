//! The lease cores of one session, present and past: nearly always one.
//!
//! Owns the list of them, what all of them are marked with, and which of their shares are no leases.
//! A look at a core takes a share of it meanwhile; that is not a lease, so it is done under the
//! list's lock, under which the pool's own shares come and go too, and it is decided whether a share is
//! the only one. A share that goes under the lock may turn out to be the last, and a core that goes
//! wakes tasks: it must never go under the lock.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Semaphore;

use crate::base::sync::{Mutex, lock};
use crate::session::life::Marks;

use super::core::{LeaseCore, LeaseHandle, Leased, WeakLeaseHandle};

/// See the module.
#[derive(Debug)]
pub(crate) struct LeaseTable<S: Leased> {
    /// How many cores there are.
    live: AtomicU32,
    list: Mutex<List<S>>,
}

#[derive(Debug)]
struct List<S: Leased> {
    /// Without memory of its own.
    newest: Option<Listed<S>>,
    older: Vec<Listed<S>>,
    /// How many shares of all cores are [`UncountedRef`].
    uncounted: usize,
}

#[derive(Debug)]
struct Listed<S: Leased> {
    core: WeakLeaseHandle<S>,
    permits: Option<Arc<Semaphore>>,
}

impl<S: Leased> List<S> {
    fn iter(&self) -> impl Iterator<Item = &Listed<S>> {
        self.newest.iter().chain(&self.older)
    }

    /// Looks at all cores that are left. Those of which this had the last share come back.
    #[must_use = "they go when the lock is open"]
    fn each(&self, mut look: impl FnMut(&LeaseCore<S>)) -> Vec<LeaseCore<S>> {
        let looked_at = |share: LeaseHandle<S>| {
            look(&share);
            LeaseHandle::into_inner(share)
        };
        self.iter().filter_map(|listed| listed.core.upgrade()).filter_map(looked_at).collect()
    }

    fn handles(&self) -> usize {
        self.iter().map(|listed| listed.core.strong_count()).sum()
    }
}

impl<S: Leased> Default for LeaseTable<S> {
    fn default() -> Self {
        let list = List { newest: None, older: Vec::new(), uncounted: 0 };
        Self { live: AtomicU32::new(0), list: Mutex::new(list) }
    }
}

impl<S: Leased> LeaseTable<S> {
    /// How many cores there are.
    pub(crate) fn live(&self) -> u32 {
        self.live.load(Ordering::Acquire)
    }

    /// Puts a core in the place of the newest: earlier ones give out no further leases. It is marked
    /// with what `marks` says then.
    pub(crate) fn add(
        &self,
        core: &LeaseHandle<S>,
        permits: Option<Arc<Semaphore>>,
        marks: impl FnOnce() -> Marks,
    ) {
        self.live.fetch_add(1, Ordering::Relaxed);
        let mut list = lock(&self.list);
        let left = list.each(LeaseCore::replace);
        // Under the lock: the session is marked before its cores are, so that this one is not missed.
        core.mark(marks());
        let listed = Listed { core: LeaseHandle::downgrade(core), permits };
        let older = list.newest.replace(listed);
        list.older.extend(older);
        list.older.retain(|listed| listed.core.strong_count() > 0);
        drop(list);
        drop(left);
    }

    /// A core has gone.
    pub(crate) fn gone(&self) {
        self.live.fetch_sub(1, Ordering::AcqRel);
    }

    /// Marks all cores.
    pub(crate) fn mark(&self, marks: Marks) {
        self.each(|core| core.mark(marks));
    }

    /// Takes marks back.
    pub(crate) fn unmark(&self, marks: Marks) {
        self.each(|core| core.unmark(marks));
    }

    /// No caller is to wait for a lease any more.
    pub(crate) fn close_permits(&self) {
        let all: Vec<_> = lock(&self.list).iter().filter_map(|e| e.permits.clone()).collect();
        // It wakes the waiters.
        all.iter().for_each(|permits| permits.close());
    }

    /// The permits of the newest.
    pub(crate) fn permits(&self) -> Option<Arc<Semaphore>> {
        lock(&self.list).newest.as_ref().and_then(|listed| listed.permits.clone())
    }

    /// When a lease was last checked out or returned, by the coarse clock, as far as the cores know
    /// that there are.
    pub(crate) fn last_use(&self) -> Option<u64> {
        let mut last = None;
        self.each(|core| last = last.max(Some(core.last_use())));
        last
    }

    fn each(&self, look: impl FnMut(&LeaseCore<S>)) {
        let left = lock(&self.list).each(look);
        drop(left);
    }

    /// How many shares there are of all cores, but for those that are [`UncountedRef`].
    pub(crate) fn leases(&self) -> usize {
        let list = lock(&self.list);
        // One that was closed is uncounted and not listed any more.
        list.handles().saturating_sub(list.uncounted)
    }
}

/// A share that the pool keeps in order to hand out others: it is no lease.
#[derive(Debug)]
pub(crate) struct UncountedRef<S: Leased + AsRef<LeaseTable<S>>>(
    /// Always, but for the moment in which it goes.
    Option<LeaseHandle<S>>,
);

impl<S: Leased + AsRef<LeaseTable<S>>> UncountedRef<S> {
    /// One more share of the core.
    pub(crate) fn of(core: &LeaseHandle<S>) -> Self {
        let mut list = lock(&table(core).list);
        list.uncounted += 1;
        Self(Some(LeaseHandle::clone(core)))
    }

    /// Makes of the only share of all the session's cores one to which no weak handle leads: no lease
    /// can be taken by one any more. Whether it is the only one is decided by the word that a lease is
    /// taken by.
    ///
    /// # Errors
    ///
    /// It is not the only one.
    pub(crate) fn close_unused(mut self) -> Result<Self, Self> {
        let session = Arc::clone(self.session());
        let list = lock(&(*session).as_ref().list);
        if list.handles() > 1 {
            return Err(self);
        }
        match self.0.take().map(LeaseHandle::try_unwrap) {
            Some(Ok(core)) => Ok(Self(Some(LeaseHandle::new(core)))),
            Some(Err(share)) => Err(Self(Some(share))),
            None => Err(self),
        }
    }
}

fn table<S: Leased + AsRef<LeaseTable<S>>>(core: &LeaseCore<S>) -> &LeaseTable<S> {
    (**core.session()).as_ref()
}

impl<S: Leased + AsRef<LeaseTable<S>>> Deref for UncountedRef<S> {
    type Target = LeaseHandle<S>;

    #[inline]
    #[expect(clippy::expect_used, reason = "it cannot be looked at in the moment in which it goes")]
    fn deref(&self) -> &LeaseHandle<S> {
        self.0.as_ref().expect("a share that is kept is there")
    }
}

impl<S: Leased + AsRef<LeaseTable<S>>> Drop for UncountedRef<S> {
    fn drop(&mut self) {
        let Some(share) = self.0.take() else { return };
        let session = Arc::clone(share.session());
        let mut list = lock(&(*session).as_ref().list);
        list.uncounted -= 1;
        let core = LeaseHandle::into_inner(share);
        drop(list);
        drop(core);
    }
}
