//! The map of slots: the only file that knows which concurrent maps hold them.
//!
//! Owns the entries of all peers, and the moment from which no entry is added any more. Its calls
//! take closures that run under one shard's lock and return owned values: no guard leaves this file.
//! A closure must decide and return; it must not wait, call into the registry, run code of the
//! application, or drop what could.
//!
//! Beside the slots it keeps the sessions for those who only want one. The locks of that part have a
//! part for each reading thread, so that two threads that want the same peer do not fight for one.
//! (They would: it is the most contended word of a hit. Two threads on one peer take some 100 ns a hit
//! without and up to 460 ns with it.) And of a session it has one word, which leads to all that a hit
//! needs, the peer's key too: with very many peers, what a hit costs is the memory that it touches.
//! This part is changed under the slot's lock whenever the slot's session is, and may be behind for as
//! long as that change takes: who finds a session in it must expect that it has just been taken.

use std::sync::atomic::Ordering;

use crate::base::id::PeerId;
use crate::base::sync::AtomicBool;
use crate::proto::slot::Slot;

use map::{Map, Readers};

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

/// What stands in a slot for a session, as far as those see it who do not take its lock.
pub(crate) trait Readable {
    /// What they find.
    type Handle: Handle;

    fn handle(&self) -> Self::Handle;

    /// Tells what the handle leads to from everything else that is alive.
    fn mark(&self) -> usize;
}

/// A handle knows whose it is.
pub(crate) trait Handle {
    fn peer(&self) -> &PeerId;
}

/// What the pool knows of all peers. At rest it has one entry per live session, and no others.
pub(crate) struct Registry<D, S: Readable> {
    slots: Map<Slot<D, S>>,
    /// Behind `slots`, and only changed under their locks.
    readers: Readers<S::Handle>,
    shut: AtomicBool,
}

impl<D: Clone, S: Readable> Registry<D, S> {
    /// An empty registry.
    pub(crate) fn new(seed: Seed) -> Self {
        Self { slots: Map::new(seed), readers: Readers::new(seed), shut: AtomicBool::new(false) }
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
            let before = slot.session().map(S::mark);
            let result = apply(slot, open);
            self.publish(peer, before, slot);
            (result, !slot.is_vacant())
        })
    }

    /// As [`with`](Self::with), while those wait, too, who look for the session without the lock, and
    /// their handle of it is gone: only who had the session before has it meanwhile.
    pub(crate) fn with_hidden<R>(
        &self,
        peer: &PeerId,
        apply: impl FnOnce(&mut Slot<D, S>) -> R,
    ) -> R {
        self.slots.update(peer, |slot| {
            let result = self.readers.hide(peer, || {
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
        self.readers.get(peer, take)
    }

    /// Tells those who do not take its lock what stands in the slot now. Called under its lock.
    fn publish(&self, peer: &PeerId, before: Option<usize>, slot: &Slot<D, S>) {
        let session = slot.session();
        if session.map(S::mark) != before {
            // The handle that goes is never the last: who took the session has it.
            match session {
                Some(session) => self.readers.set(session.handle()),
                None => self.readers.remove(peer),
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
            let before = slot.session().map(S::mark);
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

#[cfg(not(noise_pool_loom))]
mod map {
    //! The concurrent maps of production: `DashMap`, and one whose readers do not meet.

    use std::array;
    use std::borrow::Borrow;
    use std::collections::HashSet;
    use std::hash::{BuildHasher, Hash, Hasher};
    use std::sync::{OnceLock, PoisonError};

    use crossbeam_utils::sync::{ShardedLock, ShardedLockWriteGuard};
    use dashmap::DashMap;
    use dashmap::mapref::entry::Entry as Place;
    use foldhash::SharedSeed;
    use foldhash::fast::{FixedState, FoldHasher, SeedableRandomState};

    use super::{Handle, Seed};
    use crate::base::id::PeerId;

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

    impl From<Seed> for Seeded {
        fn from(seed: Seed) -> Self {
            /// The half of the seed that all maps of the process share.
            static SHARED: OnceLock<SharedSeed> = OnceLock::new();
            match seed {
                Seed::Secret { process, map } => {
                    let shared = SHARED.get_or_init(|| SharedSeed::from_u64(process));
                    Self::Random(SeedableRandomState::with_seed(map, shared))
                }
                Seed::Fixed(seed) => Self::Fixed(FixedState::with_seed(seed)),
            }
        }
    }

    /// How many tables share the readers' handles: who changes one keeps readers off that one.
    const TABLES: usize = 32;

    /// A handle, in the place of its peer.
    struct Entry<H>(H);

    impl<H: Handle> Borrow<PeerId> for Entry<H> {
        #[inline]
        fn borrow(&self) -> &PeerId {
            self.0.peer()
        }
    }

    impl<H: Handle> Hash for Entry<H> {
        fn hash<S: Hasher>(&self, state: &mut S) {
            self.0.peer().hash(state);
        }
    }

    impl<H: Handle> PartialEq for Entry<H> {
        fn eq(&self, other: &Self) -> bool {
            self.0.peer() == other.0.peer()
        }
    }

    impl<H: Handle> Eq for Entry<H> {}

    type Table<H> = HashSet<Entry<H>, Seeded>;

    /// Tables that lie flat in memory, each behind a lock of which every reading thread has a part of
    /// its own; who changes a table takes all parts.
    pub(super) struct Readers<H>([ShardedLock<Table<H>>; TABLES]);

    impl<H: Handle> Readers<H> {
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
        pub(super) fn hide<R>(&self, key: &PeerId, apply: impl FnOnce() -> (R, Option<H>)) -> R {
            let mut table = self.change(key);
            table.remove(key);
            let (result, handle) = apply();
            table.extend(handle.map(Entry));
            result
        }

        fn change(&self, key: &PeerId) -> ShardedLockWriteGuard<'_, Table<H>> {
            self.table(key).write().unwrap_or_else(PoisonError::into_inner)
        }

        /// By a byte of the key, which its owner may have chosen: whoever fills one table alone gains
        /// nothing, for what finds a key in it is seeded.
        #[inline]
        fn table(&self, key: &PeerId) -> &ShardedLock<Table<H>> {
            &self.0[usize::from(key.as_bytes()[0]) % TABLES]
        }
    }

    pub(super) struct Map<V>(DashMap<PeerId, V, Seeded>);

    impl<V: Default> Map<V> {
        pub(super) fn new(seed: Seed) -> Self {
            Self(DashMap::with_hasher(seed.into()))
        }

        /// Applies `apply` to the value, the default one if there is none, and keeps it if the
        /// second part of the answer says so.
        pub(super) fn update<R>(&self, key: &PeerId, apply: impl FnOnce(&mut V) -> (R, bool)) -> R {
            match self.0.entry(*key) {
                Place::Occupied(mut entry) => {
                    let (result, keep) = apply(entry.get_mut());
                    if !keep {
                        entry.remove();
                    }
                    result
                }
                Place::Vacant(entry) => {
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
    //! The maps under loom, which cannot see into those of production: each a lock around a plain
    //! map, whose order is the same in every run. They are two here too, so that what lies between a
    //! change of the one and of the other is walked.

    use std::collections::BTreeMap;

    use super::{Handle, Seed};
    use crate::base::id::PeerId;
    use crate::base::sync::{Mutex, lock};

    pub(super) struct Readers<H>(Mutex<BTreeMap<PeerId, H>>);

    impl<H: Handle> Readers<H> {
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

        pub(super) fn hide<R>(&self, key: &PeerId, apply: impl FnOnce() -> (R, Option<H>)) -> R {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{AttemptId, SessionId};
    use crate::proto::slot::Claim;

    fn peer(n: u8) -> PeerId {
        let mut bytes = [7; 32];
        bytes[0] = n;
        PeerId::from_public_key(bytes).unwrap()
    }

    /// A session and its handle: whose it is, and what tells it from others.
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Session(PeerId, &'static str);

    impl Readable for Session {
        type Handle = Self;

        fn handle(&self) -> Self {
            *self
        }

        fn mark(&self) -> usize {
            self.1.as_ptr().addr()
        }
    }

    impl Handle for Session {
        fn peer(&self) -> &PeerId {
            &self.0
        }
    }

    fn session(name: &'static str) -> Session {
        Session(peer(1), name)
    }

    fn registry() -> Registry<&'static str, Session> {
        Registry::new(Seed::Fixed(1))
    }

    #[test]
    fn readers_see_what_stands_in_the_slot() {
        let registry = registry();
        let seen = || registry.session(&peer(1), |handle| Some(*handle));
        let claim = |stamp| Claim::stamped(1, stamp, stamp);
        let (attempt, first, second) = (AttemptId::next(), SessionId::next(), SessionId::next());
        registry.with(&peer(1), |slot, _| assert!(slot.dial(attempt, "dial")));
        assert_eq!(seen(), None);
        registry.with(&peer(1), |slot, _| slot.install_inbound(first, claim(1), session("first")));
        assert_eq!(seen(), Some(session("first")));
        registry
            .with(&peer(1), |slot, _| slot.install_inbound(second, claim(2), session("second")));
        assert_eq!(seen(), Some(session("second")));
        registry.with(&peer(1), |slot, _| assert_eq!(slot.remove(first), None));
        assert_eq!(seen(), Some(session("second")), "a stale handle takes nothing");
        registry.with(&peer(1), |slot, _| *slot.session_mut().unwrap() = session("renewed"));
        assert_eq!(seen(), Some(session("renewed")));
        registry
            .with(&peer(1), |slot, _| assert_eq!(slot.remove(second), Some(session("renewed"))));
        assert_eq!(seen(), None);
    }

    #[test]
    fn a_session_that_was_hidden_is_found_again_if_it_still_stands() {
        let registry = registry();
        let claim = Claim::stamped(1, 1, 1);
        let seen = || registry.session(&peer(1), |handle| Some(*handle));
        let id = SessionId::next();
        registry.with(&peer(1), |slot, _| slot.install_inbound(id, claim, session("session")));
        registry.with_hidden(&peer(1), |slot| assert!(slot.session().is_some()));
        assert_eq!(seen(), Some(session("session")));
        registry.with_hidden(&peer(1), |slot| assert!(slot.remove(id).is_some()));
        assert_eq!(seen(), None);
        assert_eq!(registry.len(), 0);
        registry.with_hidden(&peer(1), |slot| assert!(slot.session().is_none()));
        assert_eq!((seen(), registry.len()), (None, 0));
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
        let claim = Claim::stamped(1, 1, 1);
        registry.with(&peer(1), |slot, open| {
            assert_eq!(open, Open::Yes);
            slot.install_inbound(SessionId::next(), claim, session("session"));
        });
        let swept = registry.shut(|_, slot| slot.disconnect().session);
        assert_eq!(swept, [Some(session("session"))]);
        assert_eq!(registry.session(&peer(1), |handle| Some(*handle)), None);
        assert_eq!(registry.len(), 0);
        registry.with(&peer(1), |_, open| assert_eq!(open, Open::No));
    }

    #[test]
    fn peers_that_share_all_but_one_byte_are_apart() {
        let registry = registry();
        let claim = Claim::stamped(1, 1, 1);
        for n in 0..=100 {
            registry.with(&peer(n), |slot, _| {
                slot.install_inbound(SessionId::next(), claim, Session(peer(n), "session"));
            });
        }
        assert_eq!(registry.len(), 101);
        let found = Some(Session(peer(50), "session"));
        assert_eq!(registry.read(&peer(50), |slot| slot.session().copied()), Some(found));
        assert_eq!(registry.session(&peer(50), |handle| Some(*handle)), found);
    }
}
