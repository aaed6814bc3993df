//! Unit tests of `pool/limits/idle_index.rs`.

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
    let mut index = IdleIndex::default();
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
