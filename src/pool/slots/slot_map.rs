//! What the pool knows of all peers: a slot per peer, and the index of sessions beside it.
//!
//! Owns the entries of all peers, and the moment from which no entry is added any more. Its calls take
//! closures that run under one shard's lock and return owned values. A closure must decide and return;
//! it must not wait, call into the map, run code of the application, or drop what could.
//!
//! The index is changed under the slot's lock whenever the slot's session is, and may be behind for as
//! long as that change takes: a session that a reader finds there may just have been taken.

use std::sync::atomic::Ordering;

use super::handle::{HandleId, HasHandle};
#[cfg(noise_pool_loom)]
use super::modelled::{Map, ReadIndex};
#[cfg(not(noise_pool_loom))]
use super::read_index::ReadIndex;
use super::seed::Seed;
#[cfg(not(noise_pool_loom))]
use super::sharded::Map;
use crate::base::id::PeerId;
use crate::base::sync::AtomicBool;
use crate::proto::slot::Slot;

/// Whether the map still takes entries, as seen under the shard's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Open {
    /// Dials may begin and sessions may be installed.
    Yes,
    /// [`SlotMap::shut`] was called: what is installed now would outlive the pool.
    No,
}

/// What the pool knows of all peers. At rest it has one entry per live session, and no others.
pub(crate) struct SlotMap<D, S: HasHandle> {
    slots: Map<Slot<D, S>>,
    /// Behind `slots`, and only changed under their locks.
    index: ReadIndex<S::Handle>,
    shut: AtomicBool,
}

impl<D: Clone, S: HasHandle> SlotMap<D, S> {
    /// An empty slot map.
    pub(crate) fn new(seed: Seed) -> Self {
        Self { slots: Map::new(seed), index: ReadIndex::new(seed), shut: AtomicBool::new(false) }
    }

    /// Applies events to the peer's slot under its lock. A slot that is vacant afterwards has no
    /// entry.
    pub(crate) fn with<R>(
        &self,
        peer: &PeerId,
        apply: impl FnOnce(&mut Slot<D, S>, Open) -> R,
    ) -> R {
        self.slots.update(peer, |slot| {
            // Read under the lock: a call that comes after `shut` has swept this shard sees it.
            let open = if self.shut.load(Ordering::Relaxed) { Open::No } else { Open::Yes };
            let before = slot.session().map(S::identity);
            let result = apply(slot, open);
            self.publish(peer, before, slot);
            (result, !slot.is_vacant())
        })
    }

    /// As [`with`](Self::with), with the session's handle taken out of the index meanwhile. Readers of
    /// the index wait: during the call nobody gets hold of the session.
    pub(crate) fn with_unlisted<R>(
        &self,
        peer: &PeerId,
        apply: impl FnOnce(&mut Slot<D, S>) -> R,
    ) -> R {
        self.slots.update(peer, |slot| {
            let result = self.index.with_unlisted(peer, || {
                let result = apply(slot);
                (result, slot.session().map(S::handle))
            });
            (result, !slot.is_vacant())
        })
    }

    /// Looks at the peer's slot, shared with other readers. `None`: there is no entry.
    #[inline]
    pub(crate) fn read<R>(&self, peer: &PeerId, look: impl FnOnce(&Slot<D, S>) -> R) -> Option<R> {
        self.slots.read(peer, look)
    }

    /// Makes something of the handle of the peer's session, without the slot's lock.
    #[inline]
    pub(crate) fn session<R>(
        &self,
        peer: &PeerId,
        take: impl FnOnce(&S::Handle) -> Option<R>,
    ) -> Option<R> {
        self.index.get(peer, take)
    }

    /// Puts into the index what stands in the slot now. Called under the slot's lock.
    fn publish(&self, peer: &PeerId, before: Option<HandleId>, slot: &Slot<D, S>) {
        let session = slot.session();
        if session.map(S::identity) != before {
            // The handle that goes is never the last: the taker of the session has another.
            match session {
                Some(session) => self.index.set(session.handle()),
                None => self.index.remove(peer),
            }
        }
    }

    /// Copies something of every entry, one shard at a time. Not a consistent cut across shards.
    pub(crate) fn collect<R>(
        &self,
        mut pick: impl FnMut(&PeerId, &Slot<D, S>) -> Option<R>,
    ) -> Vec<R> {
        let mut picked = Vec::with_capacity(self.slots.len());
        self.slots.for_each(|peer, slot| picked.extend(pick(peer, slot)));
        picked
    }

    /// Takes no more entries, then applies an event to every slot that there is.
    ///
    /// Whatever is installed under a shard's lock is either seen by this sweep or sees
    /// [`Open::No`]: the flag is set before the first shard is locked.
    pub(crate) fn shut<R>(&self, mut apply: impl FnMut(&PeerId, &mut Slot<D, S>) -> R) -> Vec<R> {
        self.shut.store(true, Ordering::SeqCst);
        let mut results = Vec::new();
        self.slots.retain(|peer, slot| {
            let before = slot.session().map(S::identity);
            results.push(apply(peer, slot));
            self.publish(peer, before, slot);
            !slot.is_vacant()
        });
        results
    }

    /// The number of entries.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
#[path = "../../verify/pool/slots/slot_map.rs"]
mod tests;
