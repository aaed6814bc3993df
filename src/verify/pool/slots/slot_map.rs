//! Unit tests of `pool/slots/slot_map.rs`.

use super::super::PeerHandle;
use super::*;
use crate::base::id::{AttemptId, SessionId};
use crate::proto::slot::Claim;

fn peer(n: u8) -> PeerId {
    let mut bytes = [7; 32];
    bytes[0] = n;
    PeerId::from_bytes(bytes)
}

/// A session and its handle: whose it is, and what tells it from others.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Session(PeerId, &'static str);

impl HasHandle for Session {
    type Handle = Self;

    fn handle(&self) -> Self {
        *self
    }

    fn identity(&self) -> HandleId {
        // No two names here are equally long.
        let session = SessionId::from_raw(self.1.len() as u64);
        HandleId { session, has_permits: false }
    }
}

impl PeerHandle for Session {
    fn peer(&self) -> &PeerId {
        &self.0
    }
}

fn session(name: &'static str) -> Session {
    Session(peer(1), name)
}

fn slots() -> SlotMap<&'static str, Session> {
    SlotMap::new(Seed::Fixed(1))
}

#[test]
fn readers_see_what_stands_in_the_slot() {
    let slots = slots();
    let seen = || slots.session(&peer(1), |handle| Some(*handle));
    let claim = |stamp| Claim::stamped(1, stamp, stamp);
    let (attempt, first, second) = (AttemptId::next(), SessionId::next(), SessionId::next());
    slots.with(&peer(1), |slot, _| assert!(slot.dial(attempt, "dial")));
    assert_eq!(seen(), None);
    slots.with(&peer(1), |slot, _| slot.install_inbound(first, claim(1), session("first")));
    assert_eq!(seen(), Some(session("first")));
    slots.with(&peer(1), |slot, _| slot.install_inbound(second, claim(2), session("second")));
    assert_eq!(seen(), Some(session("second")));
    slots.with(&peer(1), |slot, _| assert_eq!(slot.remove(first), None));
    assert_eq!(seen(), Some(session("second")), "a stale handle takes nothing");
    slots.with(&peer(1), |slot, _| *slot.session_mut().unwrap() = session("renewed"));
    assert_eq!(seen(), Some(session("renewed")));
    slots.with(&peer(1), |slot, _| assert_eq!(slot.remove(second), Some(session("renewed"))));
    assert_eq!(seen(), None);
}

#[test]
fn a_session_that_was_unlisted_is_found_again_if_it_still_stands() {
    let slots = slots();
    let claim = Claim::stamped(1, 1, 1);
    let seen = || slots.session(&peer(1), |handle| Some(*handle));
    let id = SessionId::next();
    slots.with(&peer(1), |slot, _| slot.install_inbound(id, claim, session("session")));
    slots.with_unlisted(&peer(1), |slot| assert!(slot.session().is_some()));
    assert_eq!(seen(), Some(session("session")));
    slots.with_unlisted(&peer(1), |slot| assert!(slot.remove(id).is_some()));
    assert_eq!(seen(), None);
    assert_eq!(slots.len(), 0);
    slots.with_unlisted(&peer(1), |slot| assert!(slot.session().is_none()));
    assert_eq!((seen(), slots.len()), (None, 0));
}

#[test]
fn a_vacant_slot_has_no_entry() {
    let slots = slots();
    let attempt = AttemptId::next();
    slots.with(&peer(1), |slot, _| assert!(slot.dial(attempt, "dial")));
    assert_eq!(slots.len(), 1);
    slots.with(&peer(1), |slot, _| slot.dial_ended(attempt));
    assert_eq!(slots.len(), 0);
    slots.with(&peer(1), |slot, _| slot.disconnect());
    assert_eq!(slots.len(), 0, "an event on a peer that is not there leaves nothing");
}

#[test]
fn after_shutting_every_closure_knows_it() {
    let slots = slots();
    let claim = Claim::stamped(1, 1, 1);
    slots.with(&peer(1), |slot, open| {
        assert_eq!(open, Open::Yes);
        slot.install_inbound(SessionId::next(), claim, session("session"));
    });
    let swept = slots.shut(|_, slot| slot.disconnect().session);
    assert_eq!(swept, [Some(session("session"))]);
    assert_eq!(slots.session(&peer(1), |handle| Some(*handle)), None);
    assert_eq!(slots.len(), 0);
    slots.with(&peer(1), |_, open| assert_eq!(open, Open::No));
}

#[test]
fn peers_that_share_all_but_one_byte_are_apart() {
    let slots = slots();
    let claim = Claim::stamped(1, 1, 1);
    for n in 0..=100 {
        slots.with(&peer(n), |slot, _| {
            slot.install_inbound(SessionId::next(), claim, Session(peer(n), "session"));
        });
    }
    assert_eq!(slots.len(), 101);
    let found = Some(Session(peer(50), "session"));
    assert_eq!(slots.read(&peer(50), |slot| slot.session().copied()), Some(found));
    assert_eq!(slots.session(&peer(50), |handle| Some(*handle)), found);
}
