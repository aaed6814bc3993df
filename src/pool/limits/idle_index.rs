//! Which session was used longest ago.
//!
//! Owns an order of sessions by their last use that is kept up lazily: use itself touches nothing here
//! (it is the hot path), so an entry is only a lower bound, corrected when it is looked at. Expiry and
//! eviction therefore cost per session that expired or was used meanwhile, never per session held.
//! Kept peers have no entry, and so are never chosen. Looking must not block: it happens under the
//! index's lock.

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

impl<T: Ord, K: Ord> Default for IdleIndex<T, K> {
    fn default() -> Self {
        Self { outbound: BTreeSet::new(), inbound: BTreeSet::new(), places: BTreeMap::new() }
    }
}

impl<T: Ord + Copy, K: Ord + Clone> IdleIndex<T, K> {
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
#[path = "../../verify/pool/limits/idle_index.rs"]
mod tests;
