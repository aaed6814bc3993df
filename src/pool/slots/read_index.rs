//! The sessions of all peers, for readers that want nothing else of a slot.
//!
//! Owns a table whose locks have a part for each reading thread, so that two threads that want the same
//! peer do not write one word. (That word is the most contended one of a hit: two threads on one peer
//! take some 100 ns a hit without it and up to 460 ns with it.) Of a session it has one word, which
//! leads to all that a hit needs, the peer's key too: with very many peers, a hit costs the memory that
//! it touches.

use std::array;
use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::PoisonError;

use crossbeam_utils::sync::{ShardedLock, ShardedLockWriteGuard};

use super::handle::PeerHandle;
use super::seed::{Seed, Seeded};
use crate::base::id::PeerId;

/// How many tables share the handles: a change keeps readers off one of them.
const TABLES: usize = 32;

/// A handle, in the place of its peer.
struct Entry<H>(H);

impl<H: PeerHandle> Borrow<PeerId> for Entry<H> {
    #[inline]
    fn borrow(&self) -> &PeerId {
        self.0.peer()
    }
}

impl<H: PeerHandle> Hash for Entry<H> {
    fn hash<S: Hasher>(&self, state: &mut S) {
        self.0.peer().hash(state);
    }
}

impl<H: PeerHandle> PartialEq for Entry<H> {
    fn eq(&self, other: &Self) -> bool {
        self.0.peer() == other.0.peer()
    }
}

impl<H: PeerHandle> Eq for Entry<H> {}

type Table<H> = HashSet<Entry<H>, Seeded>;

/// Tables that lie flat in memory, each behind a lock of which every reading thread has a part of
/// its own; a change of a table takes all parts.
pub(super) struct ReadIndex<H>([ShardedLock<Table<H>>; TABLES]);

impl<H: PeerHandle> ReadIndex<H> {
    pub(super) fn new(seed: Seed) -> Self {
        let hasher = Seeded::from(seed);
        let table = || HashSet::with_hasher(hasher.clone());
        Self(array::from_fn(|_| ShardedLock::new(table())))
    }

    #[inline]
    pub(super) fn get<R>(&self, key: &PeerId, take: impl FnOnce(&H) -> Option<R>) -> Option<R> {
        let table = self.table(key).read().unwrap_or_else(PoisonError::into_inner);
        table.get(key).and_then(|entry| take(&entry.0))
    }

    pub(super) fn set(&self, handle: H) {
        self.change(handle.peer()).replace(Entry(handle));
    }

    pub(super) fn remove(&self, key: &PeerId) {
        self.change(key).remove(key);
    }

    /// Takes the handle away, and puts in the one that `apply` gives. Readers wait meanwhile.
    pub(super) fn with_unlisted<R>(
        &self,
        key: &PeerId,
        apply: impl FnOnce() -> (R, Option<H>),
    ) -> R {
        let mut table = self.change(key);
        table.remove(key);
        let (result, handle) = apply();
        table.extend(handle.map(Entry));
        result
    }

    fn change(&self, key: &PeerId) -> ShardedLockWriteGuard<'_, Table<H>> {
        self.table(key).write().unwrap_or_else(PoisonError::into_inner)
    }

    /// By a byte of the key, which its owner may have chosen: to fill one table alone gains nothing,
    /// for what finds a key in it is seeded.
    #[inline]
    fn table(&self, key: &PeerId) -> &ShardedLock<Table<H>> {
        &self.0[usize::from(key.as_bytes()[0]) % TABLES]
    }
}
