//! The maps under loom: each a lock around a plain map, whose order is the same in every run. They are
//! two here too, so that what lies between a change of the one and of the other is walked.

use std::collections::BTreeMap;

use super::handle::PeerHandle;
use super::seed::Seed;
use crate::base::id::PeerId;
use crate::base::sync::{Mutex, lock};

pub(super) struct ReadIndex<H>(Mutex<BTreeMap<PeerId, H>>);

impl<H: PeerHandle> ReadIndex<H> {
    pub(super) fn new(_seed: Seed) -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    pub(super) fn get<R>(&self, key: &PeerId, take: impl FnOnce(&H) -> Option<R>) -> Option<R> {
        lock(&self.0).get(key).and_then(take)
    }

    pub(super) fn set(&self, handle: H) {
        lock(&self.0).insert(*handle.peer(), handle);
    }

    pub(super) fn remove(&self, key: &PeerId) {
        lock(&self.0).remove(key);
    }

    pub(super) fn with_unlisted<R>(
        &self,
        key: &PeerId,
        apply: impl FnOnce() -> (R, Option<H>),
    ) -> R {
        let mut map = lock(&self.0);
        map.remove(key);
        let (result, handle) = apply();
        map.extend(handle.map(|handle| (*key, handle)));
        result
    }
}

pub(super) struct Map<V>(Mutex<BTreeMap<PeerId, V>>);

impl<V: Default> Map<V> {
    pub(super) fn new(_seed: Seed) -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    pub(super) fn update<R>(&self, key: &PeerId, apply: impl FnOnce(&mut V) -> (R, bool)) -> R {
        let mut map = lock(&self.0);
        let mut value = map.remove(key).unwrap_or_default();
        let (result, keep) = apply(&mut value);
        if keep {
            map.insert(*key, value);
        }
        result
    }

    pub(super) fn read<R>(&self, key: &PeerId, look: impl FnOnce(&V) -> R) -> Option<R> {
        lock(&self.0).get(key).map(look)
    }

    pub(super) fn for_each(&self, mut visit: impl FnMut(&PeerId, &V)) {
        lock(&self.0).iter().for_each(|(key, value)| visit(key, value));
    }

    pub(super) fn retain(&self, mut keep: impl FnMut(&PeerId, &mut V) -> bool) {
        lock(&self.0).retain(|key, value| keep(key, value));
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}
