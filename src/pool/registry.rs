//! The map of slots: the only file that knows which concurrent map holds them.
//!
//! Owns the entries of all peers, and the moment from which no entry is added any more. Its calls
//! take closures that run under one shard's lock and return owned values: no guard leaves this file.
//! A closure must decide and return; it must not wait, call into the registry, run code of the
//! application, or drop what could.

use std::sync::atomic::Ordering;

use crate::id::PeerId;
use crate::proto::slot::Slot;
use crate::sync::AtomicBool;

use map::Map;

/// Whether the registry still takes entries, as seen under the shard's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Open {
    /// Dials may begin and sessions may be installed.
    Yes,
    /// [`Registry::shut`] was called: what is installed now would outlive the pool.
    No,
}

/// How the hasher is seeded.
#[derive(Clone, Copy)]
#[cfg_attr(noise_pool_loom, expect(dead_code, reason = "a sorted map has no hasher"))]
pub(crate) enum Seed {
    /// At random: the keys are chosen by strangers, who must not be able to make them collide.
    Secret {
        /// For the whole process; the first map's counts.
        process: u64,
        /// For this map.
        map: u64,
    },
    /// The same in every run, for simulations.
    Fixed(u64),
}

/// What the pool knows of all peers. At rest it has one entry per live session, and no others.
pub(crate) struct Registry<D, S> {
    slots: Map<Slot<D, S>>,
    shut: AtomicBool,
}

impl<D: Clone, S> Registry<D, S> {
    /// An empty registry.
    pub(crate) fn new(seed: Seed) -> Self {
        Self { slots: Map::new(seed), shut: AtomicBool::new(false) }
    }

    /// Applies events to the peer's slot under its lock. A slot that is vacant afterwards has no
    /// entry.
    pub(crate) fn with<R>(
        &self,
        peer: &PeerId,
        apply: impl FnOnce(&mut Slot<D, S>, Open) -> R,
    ) -> R {
        self.slots.update(peer, |slot| {
            // Read under the lock: whoever comes after `shut` has swept this shard sees it.
            let open = if self.shut.load(Ordering::Relaxed) { Open::No } else { Open::Yes };
            let result = apply(slot, open);
            (result, !slot.is_vacant())
        })
    }

    /// Looks at the peer's slot, shared with other readers. `None`: there is no entry.
    #[inline]
    pub(crate) fn read<R>(&self, peer: &PeerId, look: impl FnOnce(&Slot<D, S>) -> R) -> Option<R> {
        self.slots.read(peer, look)
    }

    /// As [`Registry::read`], for a look that may find nothing. What it finds is set from inside: the
    /// map would pass an option of an option through memory.
    #[inline]
    pub(crate) fn find<R>(
        &self,
        peer: &PeerId,
        look: impl FnOnce(&Slot<D, S>) -> Option<R>,
    ) -> Option<R> {
        let mut found = None;
        self.slots.read(peer, |slot| found = look(slot));
        found
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
            results.push(apply(peer, slot));
            !slot.is_vacant()
        });
        results
    }

    /// The number of entries.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(not(noise_pool_loom))]
mod map {
    //! The concurrent map of production: `DashMap`.

    use std::hash::BuildHasher;

    use std::sync::OnceLock;

    use dashmap::DashMap;
    use dashmap::mapref::entry::Entry;
    use foldhash::SharedSeed;
    use foldhash::fast::{FixedState, FoldHasher, SeedableRandomState};

    use super::Seed;
    use crate::id::PeerId;

    /// A seeded hasher over all bytes of the key.
    #[derive(Clone)]
    pub(super) enum Seeded {
        Random(SeedableRandomState),
        Fixed(FixedState),
    }

    impl BuildHasher for Seeded {
        type Hasher = FoldHasher<'static>;

        #[inline]
        fn build_hasher(&self) -> Self::Hasher {
            match self {
                Self::Random(state) => state.build_hasher(),
                Self::Fixed(state) => state.build_hasher(),
            }
        }
    }

    pub(super) struct Map<V>(DashMap<PeerId, V, Seeded>);

    impl<V: Default> Map<V> {
        pub(super) fn new(seed: Seed) -> Self {
            /// The half of the seed that all maps of the process share.
            static SHARED: OnceLock<SharedSeed> = OnceLock::new();
            let hasher = match seed {
                Seed::Secret { process, map } => {
                    let shared = SHARED.get_or_init(|| SharedSeed::from_u64(process));
                    Seeded::Random(SeedableRandomState::with_seed(map, shared))
                }
                Seed::Fixed(seed) => Seeded::Fixed(FixedState::with_seed(seed)),
            };
            Self(DashMap::with_hasher(hasher))
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
}

#[cfg(noise_pool_loom)]
mod map {
    //! The map under loom, which cannot see into `DashMap`: one lock around a plain map,
    //! whose order is the same in every run.

    use std::collections::BTreeMap;

    use super::Seed;
    use crate::id::PeerId;
    use crate::sync::{Mutex, lock};

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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{AttemptId, SessionId};
    use crate::proto::slot::Claim;

    fn peer(n: u8) -> PeerId {
        let mut bytes = [7; 32];
        bytes[0] = n;
        PeerId::from_public_key(bytes).unwrap()
    }

    fn registry() -> Registry<&'static str, &'static str> {
        Registry::new(Seed::Fixed(1))
    }

    #[test]
    fn a_vacant_slot_has_no_entry() {
        let registry = registry();
        let attempt = AttemptId::next();
        registry.with(&peer(1), |slot, _| assert!(slot.dial(attempt, "dial")));
        assert_eq!(registry.len(), 1);
        registry.with(&peer(1), |slot, _| slot.dial_ended(attempt));
        assert_eq!(registry.len(), 0);
        registry.with(&peer(1), |slot, _| slot.disconnect());
        assert_eq!(registry.len(), 0, "an event on a peer that is not there leaves nothing");
    }

    #[test]
    fn after_shutting_every_closure_knows_it() {
        let registry = registry();
        let claim = Claim { instance: 1, stamp: 1, heard: 1 };
        registry.with(&peer(1), |slot, open| {
            assert_eq!(open, Open::Yes);
            slot.install_inbound(SessionId::next(), claim, "session");
        });
        let swept = registry.shut(|_, slot| slot.disconnect().session);
        assert_eq!(swept, [Some("session")]);
        assert_eq!(registry.len(), 0);
        registry.with(&peer(1), |_, open| assert_eq!(open, Open::No));
    }

    #[test]
    fn peers_that_share_all_but_one_byte_are_apart() {
        let registry = registry();
        let claim = Claim { instance: 1, stamp: 1, heard: 1 };
        for n in 0..=100 {
            registry.with(&peer(n), |slot, _| {
                slot.install_inbound(SessionId::next(), claim, "session");
            });
        }
        assert_eq!(registry.len(), 101);
        assert_eq!(registry.read(&peer(50), |slot| slot.session().copied()), Some(Some("session")));
    }
}
