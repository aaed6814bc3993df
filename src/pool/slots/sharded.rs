//! The map of slots: `DashMap`, whose shards have a lock each.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::seed::{Seed, Seeded};
use crate::base::id::PeerId;

/// A map by peer. No guard of a shard leaves it.
pub(super) struct Map<V>(DashMap<PeerId, V, Seeded>);

impl<V: Default> Map<V> {
    pub(super) fn new(seed: Seed) -> Self {
        Self(DashMap::with_hasher(seed.into()))
    }

    /// Applies `apply` to the value, the default one if there is none, and keeps it if the
    /// second part of the answer says so.
    pub(super) fn update<R>(&self, key: &PeerId, apply: impl FnOnce(&mut V) -> (R, bool)) -> R {
        match self.0.entry(*key) {
            Entry::Occupied(mut entry) => {
                let (result, keep) = apply(entry.get_mut());
                if !keep {
                    entry.remove();
                }
                result
            }
            Entry::Vacant(entry) => {
                let mut value = V::default();
                let (result, keep) = apply(&mut value);
                if keep {
                    entry.insert(value);
                }
                result
            }
        }
    }

    #[inline]
    pub(super) fn read<R>(&self, key: &PeerId, look: impl FnOnce(&V) -> R) -> Option<R> {
        self.0.view(key, |_, value| look(value))
    }

    pub(super) fn for_each(&self, mut visit: impl FnMut(&PeerId, &V)) {
        for entry in &self.0 {
            visit(entry.key(), entry.value());
        }
    }

    pub(super) fn retain(&self, mut keep: impl FnMut(&PeerId, &mut V) -> bool) {
        self.0.retain(|key, value| keep(key, value));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
