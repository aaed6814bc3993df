//! Which session was used longest ago.
//!
//! Owns an order of sessions by their last use that is kept up lazily: use itself touches nothing here
//! (it is the hot path), so an entry is only a lower bound, corrected when it is looked at. Expiry and
//! eviction therefore cost per session that expired or was used meanwhile, never per session held.
//! UncountedRef peers have no entry, and so are never chosen. Looking must not block: it happens under the
//! pool's lock.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::id::Origin;

/// What a look at a session finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use<T> {
    /// No lease is out; it was last used at this moment.
    Idle(T),
    /// Leases are out.
    Leased,
    /// It has ended or is being retired: no longer a candidate.
    Gone,
}

/// Who may be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evict {
    /// Any session: a dial of ours needs the room.
    Any,
    /// Inbound sessions only: a stranger must not push our own choices out.
    Inbound,
}

/// Sessions by last use; `T` is any clock that does not run backwards, `K` names a session, in the
/// order in which equal ones are taken.
pub(crate) struct IdleIndex<T, K> {
    outbound: BTreeSet<(T, K)>,
    inbound: BTreeSet<(T, K)>,
    /// Where each session stands, for removal.
    places: BTreeMap<K, (Origin, T)>,
}

impl<T: Ord + Copy, K: Ord + Clone> IdleIndex<T, K> {
    pub(crate) const fn new() -> Self {
        Self { outbound: BTreeSet::new(), inbound: BTreeSet::new(), places: BTreeMap::new() }
    }

    /// A session becomes a candidate. One that is known already is moved.
    pub(crate) fn insert(&mut self, session: K, origin: Origin, last_used: T) {
        self.remove(&session);
        self.places.insert(session.clone(), (origin, last_used));
        self.class(origin).insert((last_used, session));
    }

    /// A session is no candidate any more; whether it was one.
    pub(crate) fn remove(&mut self, session: &K) -> bool {
        let Some((origin, place)) = self.places.remove(session) else {
            return false;
        };
        self.class(origin).remove(&(place, session.clone()))
    }

    /// No session was last used before this moment: expiry need not look before it has grown old.
    /// `None` while there is nothing to expire, and then no timer need run.
    pub(crate) fn oldest(&self) -> Option<T> {
        [&self.outbound, &self.inbound]
            .into_iter()
            .filter_map(|class| class.first().map(|(place, _)| *place))
            .min()
    }

    /// Takes out a session that is idle and was last used at `cutoff` or before. Call it until it
    /// returns `None`.
    ///
    /// Sessions with leases count as used `now`, so that they are looked at once in the time that
    /// expiry takes.
    pub(crate) fn take_expired(
        &mut self,
        cutoff: T,
        now: T,
        look: impl FnMut(&K) -> Use<T>,
    ) -> Option<K> {
        self.take_oldest(Evict::Any, Some(cutoff), now, usize::MAX, look)
    }

    /// Takes out the session that has been idle longest, to evict it. A lease may be taken before the
    /// caller has it removed from its slot: then it is put back with `insert`.
    ///
    /// At most `looks` sessions are looked at: what a stranger can make us do must be bounded. Those
    /// found in use move back, so that the next call goes on where this one ended.
    pub(crate) fn take_longest_idle(
        &mut self,
        evict: Evict,
        now: T,
        looks: usize,
        look: impl FnMut(&K) -> Use<T>,
    ) -> Option<K> {
        self.take_oldest(evict, None, now, looks, look)
    }

    fn take_oldest(
        &mut self,
        evict: Evict,
        cutoff: Option<T>,
        now: T,
        looks: usize,
        mut look: impl FnMut(&K) -> Use<T>,
    ) -> Option<K> {
        // Leased sessions wait here until the end: put back at once, they could be met again.
        let mut leased = Vec::new();
        let mut found = None;
        for _ in 0..looks {
            let Some((place, session, origin)) = self.first(evict) else {
                break;
            };
            if cutoff.is_some_and(|cutoff| place > cutoff) {
                break;
            }
            self.remove(&session);
            match look(&session) {
                Use::Idle(last_used) if last_used <= place => {
                    found = Some(session);
                    break;
                }
                Use::Idle(last_used) => self.insert(session, origin, last_used),
                Use::Leased => leased.push((session, origin)),
                Use::Gone => {}
            }
        }
        for (session, origin) in leased {
            self.insert(session, origin, now);
        }
        found
    }

    /// The first of those that may be evicted.
    fn first(&self, evict: Evict) -> Option<(T, K, Origin)> {
        let inbound = self.inbound.first().map(|(place, id)| (*place, id.clone(), Origin::Inbound));
        let outbound =
            self.outbound.first().map(|(place, id)| (*place, id.clone(), Origin::Outbound));
        match evict {
            Evict::Inbound => inbound,
            Evict::Any => inbound.into_iter().chain(outbound).min(),
        }
    }

    fn class(&mut self, origin: Origin) -> &mut BTreeSet<(T, K)> {
        match origin {
            Origin::Outbound => &mut self.outbound,
            Origin::Inbound => &mut self.inbound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::SessionId;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Uses = BTreeMap<SessionId, Option<u32>>;

    /// Looks every session up in a table of last uses; none: a lease is out.
    fn looking(uses: &Uses) -> impl FnMut(&SessionId) -> Use<u32> + '_ {
        |session| match uses.get(session) {
            Some(Some(at)) => Use::Idle(*at),
            Some(None) => Use::Leased,
            None => Use::Gone,
        }
    }

    fn index(
        sessions: &[(Origin, u32, Option<u32>)],
    ) -> (IdleIndex<u32, SessionId>, Vec<SessionId>, Uses) {
        let mut index = IdleIndex::new();
        let mut ids = Vec::new();
        let mut uses = BTreeMap::new();
        for (origin, place, last_used) in sessions {
            let id = SessionId::next();
            index.insert(id, *origin, *place);
            ids.push(id);
            uses.insert(id, *last_used);
        }
        (index, ids, uses)
    }

    use Origin::{Inbound, Outbound};

    #[test]
    fn only_what_is_really_idle_expires() {
        let (mut index, ids, uses) = index(&[
            (Outbound, 1, Some(1)),
            (Outbound, 2, Some(50)),
            (Inbound, 3, None),
            (Inbound, 4, Some(4)),
            (Inbound, 90, Some(90)),
        ]);
        let mut expired = Vec::new();
        while let Some(session) = index.take_expired(10, 100, looking(&uses)) {
            expired.push(session);
        }
        assert_eq!(expired, [ids[0], ids[3]]);
        assert_eq!(index.oldest(), Some(50), "corrected, and the leased one counts as used now");
    }

    #[test]
    fn nothing_to_expire_means_no_timer() {
        let (mut index, ids, _) = index(&[(Outbound, 1, Some(1))]);
        assert!(index.remove(&ids[0]));
        assert!(!index.remove(&ids[0]));
        assert_eq!(index.oldest(), None);
    }

    #[test]
    fn a_session_that_is_gone_is_forgotten() {
        let (mut index, _, _) = index(&[(Outbound, 1, None)]);
        assert_eq!(index.take_expired(5, 9, |_| Use::Gone), None);
        assert_eq!(index.oldest(), None);
    }

    #[test]
    fn a_stranger_can_evict_only_inbound_sessions() {
        let sessions = [(Outbound, 1, Some(1)), (Inbound, 2, Some(30)), (Inbound, 3, Some(20))];
        let (mut index, ids, uses) = index(&sessions);
        let evicted = index.take_longest_idle(Evict::Inbound, 100, 99, looking(&uses));
        assert_eq!(evicted, Some(ids[2]));
        let evicted = index.take_longest_idle(Evict::Any, 100, 99, looking(&uses));
        assert_eq!(evicted, Some(ids[0]));
        let evicted = index.take_longest_idle(Evict::Any, 100, 99, looking(&uses));
        assert_eq!(evicted, Some(ids[1]));
        assert_eq!(index.take_longest_idle(Evict::Any, 100, 99, looking(&uses)), None);
    }

    #[test]
    fn leased_sessions_are_never_evicted_and_each_is_looked_at_once() {
        let (mut index, _, uses) =
            index(&[(Inbound, 1, None), (Inbound, 2, None), (Outbound, 3, None)]);
        let mut looks = 0;
        let mut look = looking(&uses);
        let evicted = index.take_longest_idle(Evict::Any, 3, usize::MAX, |session| {
            looks += 1;
            look(session)
        });
        assert_eq!((evicted, looks), (None, 3));
    }

    #[test]
    fn bounded_looks_make_progress_from_call_to_call() {
        let mut sessions = vec![(Inbound, 1, None); 10];
        sessions.push((Inbound, 2, Some(2)));
        let (mut index, ids, uses) = index(&sessions);
        assert_eq!(index.take_longest_idle(Evict::Inbound, 50, 8, looking(&uses)), None);
        let evicted = index.take_longest_idle(Evict::Inbound, 51, 8, looking(&uses));
        assert_eq!(evicted, ids.last().copied());
    }

    proptest! {
        /// Against the definition: eviction takes the least last use among those without leases.
        #[test]
        fn the_longest_idle_is_found(
            sessions in prop::collection::vec((any::<bool>(), 0_u32..50, prop::option::of(0_u32..50)), 0..40),
            any_class: bool,
        ) {
            let sessions: Vec<_> = sessions
                .into_iter()
                .map(|(inbound, place, more)| {
                    let origin = if inbound { Inbound } else { Outbound };
                    (origin, place, more.map(|more| place + more))
                })
                .collect();
            let evict = if any_class { Evict::Any } else { Evict::Inbound };
            let (mut index, ids, uses) = index(&sessions);
            let expected = sessions
                .iter()
                .filter(|(origin, ..)| any_class || *origin == Inbound)
                .filter_map(|(.., last_used)| *last_used)
                .min();
            let evicted = index.take_longest_idle(evict, 200, usize::MAX, looking(&uses));
            prop_assert_eq!(evicted.map(|id| uses[&id].unwrap()), expected);
            for id in ids {
                prop_assert_eq!(index.remove(&id), Some(id) != evicted);
            }
        }
    }
}
