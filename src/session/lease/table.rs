//! The lease cores of one session, present and past: nearly always one.
//!
//! Owns the list of them, what all of them are told, and which of their shares are no leases. Whoever
//! looks at a core has a share of it meanwhile; that is not a lease, so it is done under the list's
//! lock, under which the pool's own shares come and go too, and it is decided whether a share is the
//! only one. A share that goes under the lock may turn out to be the last, and a core that goes wakes
//! tasks: it must never go under the lock.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Semaphore;

use crate::base::sync::{Mutex, lock};

use super::lease::{LeaseCore, LeaseHandle, WeakLeaseHandle};

#[derive(Debug)]
struct Entry {
    core: WeakLeaseHandle,
    permits: Option<Arc<Semaphore>>,
}

/// The newest has no memory of its own.
#[derive(Debug, Default)]
struct List {
    newest: Option<Entry>,
    older: Vec<Entry>,
    /// How many shares of all cores are [`UncountedRef`].
    kept: usize,
}

impl List {
    fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.newest.iter().chain(&self.older)
    }

    /// Looks at all cores that are left. Those that nobody else has any more come back.
    #[must_use = "they go when the lock is open"]
    fn each(&self, mut look: impl FnMut(&LeaseCore)) -> Vec<LeaseCore> {
        let looked_at = |share: LeaseHandle| {
            look(&share);
            LeaseHandle::into_inner(share)
        };
        self.iter().filter_map(|entry| entry.core.upgrade()).filter_map(looked_at).collect()
    }

    fn handles(&self) -> usize {
        self.iter().map(|entry| entry.core.strong_count()).sum()
    }
}

#[derive(Debug, Default)]
pub(super) struct LeaseTable {
    /// How many there are.
    live: AtomicU32,
    list: Mutex<List>,
}

impl LeaseTable {
    /// How many cores there are.
    pub(super) fn live(&self) -> u32 {
        self.live.load(Ordering::Acquire)
    }

    /// Puts a core in the place of the newest: earlier ones give out no further leases. It is told
    /// what `marks` says then.
    pub(super) fn add(
        &self,
        core: &LeaseHandle,
        permits: Option<Arc<Semaphore>>,
        marks: impl FnOnce() -> u32,
    ) {
        self.live.fetch_add(1, Ordering::Relaxed);
        let mut list = lock(&self.list);
        let left = list.each(LeaseCore::replace);
        // Under the lock: whoever marks the session tells the cores afterwards, this one too.
        core.mark(marks());
        let entry = Entry { core: LeaseHandle::downgrade(core), permits };
        let older = list.newest.replace(entry);
        list.older.extend(older);
        list.older.retain(|entry| entry.core.strong_count() > 0);
        drop(list);
        drop(left);
    }

    /// A core has gone.
    pub(super) fn gone(&self) {
        self.live.fetch_sub(1, Ordering::AcqRel);
    }

    /// Tells all cores.
    pub(super) fn mark(&self, marks: u32) {
        self.each(|core| core.mark(marks));
    }

    /// Takes it back.
    pub(super) fn unmark(&self, marks: u32) {
        self.each(|core| core.unmark(marks));
    }

    /// Nobody is to wait for a lease any more.
    pub(super) fn close_permits(&self) {
        let all: Vec<_> = lock(&self.list).iter().filter_map(|e| e.permits.clone()).collect();
        // It wakes those who wait.
        all.iter().for_each(|permits| permits.close());
    }

    /// The permits of the newest.
    pub(super) fn permits(&self) -> Option<Arc<Semaphore>> {
        lock(&self.list).newest.as_ref().and_then(|entry| entry.permits.clone())
    }

    /// When a lease was last checked out or returned, by the coarse clock, as far as the cores know
    /// that there are.
    pub(super) fn last_use(&self) -> Option<u64> {
        let mut last = None;
        self.each(|core| last = last.max(Some(core.last_use())));
        last
    }

    fn each(&self, look: impl FnMut(&LeaseCore)) {
        let left = lock(&self.list).each(look);
        drop(left);
    }

    /// How many shares there are of all cores, but for those that are [`UncountedRef`].
    pub(super) fn leases(&self) -> usize {
        let list = lock(&self.list);
        // One that was closed is kept and not listed any more.
        list.handles().saturating_sub(list.kept)
    }
}

/// A share that the pool keeps in order to hand out others: it is no lease.
#[derive(Debug)]
pub(crate) struct UncountedRef(
    /// Always, but for the moment in which it goes.
    Option<LeaseHandle>,
);

impl UncountedRef {
    /// One more share of the core, to be kept.
    pub(crate) fn of(core: &LeaseHandle) -> Self {
        let mut list = lock(&core.session().cores.list);
        list.kept += 1;
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
        let list = lock(&session.cores.list);
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

impl Deref for UncountedRef {
    type Target = LeaseHandle;

    #[inline]
    #[expect(clippy::expect_used, reason = "nobody can look at it in the moment in which it goes")]
    fn deref(&self) -> &LeaseHandle {
        self.0.as_ref().expect("a share that is kept is there")
    }
}

impl Drop for UncountedRef {
    fn drop(&mut self) {
        let Some(share) = self.0.take() else { return };
        let session = Arc::clone(share.session());
        let mut list = lock(&session.cores.list);
        list.kept -= 1;
        let core = LeaseHandle::into_inner(share);
        drop(list);
        drop(core);
    }
}
