//! One event at a time; the model of the slot walks them all.

use super::super::{AcceptCase, DrainCase, InboundCase};
use super::*;
use crate::base::error::RejectReason;

type Test = Slot<&'static str, &'static str>;

fn claim(instance: u64, stamp: u64, heard: u64) -> Claim {
    Claim::stamped(instance, stamp, heard)
}

fn committed() -> (Test, AttemptId) {
    let mut slot = Test::default();
    let attempt = AttemptId::next();
    assert!(slot.dial(attempt, "ours"));
    assert!(slot.commit(attempt));
    (slot, attempt)
}

fn ready(at: Claim) -> (Test, SessionId) {
    let mut slot = Test::default();
    let id = SessionId::next();
    slot.install_inbound(id, at, "held");
    (slot, id)
}

#[test]
fn within_an_instance_the_stamp_decides() {
    assert!(claim(1, 8, 1).supersedes(&claim(1, 7, 9)));
    assert!(!claim(1, 7, 9).supersedes(&claim(1, 7, 1)));
}

#[test]
fn across_instances_the_order_of_arrival_decides() {
    assert!(claim(2, 1, 9).supersedes(&claim(1, 7, 1)));
    assert!(!claim(2, 8, 1).supersedes(&claim(1, 7, 9)));
}

#[test]
fn without_stamps_on_both_sides_the_order_of_arrival_decides() {
    assert!(Claim::unstamped(2).supersedes(&Claim::unstamped(1)));
    assert!(!Claim::unstamped(1).supersedes(&Claim::unstamped(2)));
    assert!(claim(1, 1, 2).supersedes(&Claim::unstamped(1)));
    assert!(Claim::unstamped(2).supersedes(&claim(1, 9, 1)));
}

#[test]
fn a_presumed_accept_is_older_than_all_that_was_heard() {
    let presumed = Claim::presumed();
    assert!(Claim::unstamped(1).supersedes(&presumed));
    assert!(!presumed.supersedes(&Claim::unstamped(1)));
    assert!(!presumed.supersedes(&presumed));
}

#[test]
fn an_open_dial_ends_with_its_last_waiter() {
    let mut slot = Test::default();
    let attempt = AttemptId::next();
    assert!(slot.dial(attempt, "ours"));
    assert_eq!(slot.join(), Some("ours"));
    assert_eq!(slot.leave(attempt), None);
    assert_eq!(slot.leave(attempt), Some("ours"));
    assert!(slot.is_vacant());
    assert!(!slot.commit(attempt), "an aborted dial must not commit");
}

#[test]
fn a_committed_dial_survives_its_last_waiter() {
    let (mut slot, attempt) = committed();
    assert_eq!(slot.leave(attempt), None);
    assert!(matches!(slot.view(), View::Dialing { phase: Phase::Committed, waiters: 0, .. }));
}

#[test]
fn leaving_a_dial_that_is_gone_does_not_touch_its_successor() {
    let mut slot = Test::default();
    let (old, new) = (AttemptId::next(), AttemptId::next());
    assert!(slot.dial(old, "old"));
    assert_eq!(slot.dial_ended(old), Ended::Current("old"));
    assert!(slot.dial(new, "new"));
    assert_eq!(slot.leave(old), None);
    assert_eq!(slot.dial_ended(old), Ended::Forgotten);
    assert!(matches!(slot.view(), View::Dialing { waiters: 1, .. }));
}

#[test]
fn inbound_meets_every_row() {
    let at = claim(1, 5, 5);
    let vacant = Test::default();
    assert_eq!(
        vacant.judge(&at, KeyOrder::PeerSmaller, Hearing::First),
        InboundDecision::Accept(InboundCase::Vacant)
    );
    let mut open = Test::default();
    open.dial(AttemptId::next(), "ours");
    assert_eq!(
        open.judge(&at, KeyOrder::PeerSmaller, Hearing::First),
        InboundDecision::Accept(InboundCase::AbortsDial)
    );
    let (slot, _) = committed();
    assert_eq!(
        slot.judge(&at, KeyOrder::PeerLarger, Hearing::First),
        InboundDecision::Accept(InboundCase::SupersedesDial)
    );
    assert_eq!(slot.judge(&at, KeyOrder::PeerSmaller, Hearing::First), InboundDecision::Park);
    let (slot, _) = ready(at);
    assert_eq!(
        slot.judge(&claim(1, 6, 6), KeyOrder::PeerSmaller, Hearing::First),
        InboundDecision::Accept(InboundCase::RetiresSession)
    );
    assert_eq!(
        slot.judge(&claim(1, 4, 6), KeyOrder::PeerSmaller, Hearing::First),
        InboundDecision::Reject(RejectReason::Duplicate)
    );
    assert_eq!(
        slot.judge(&claim(1, 4, 6), KeyOrder::PeerSmaller, Hearing::AfterParking),
        InboundDecision::Reject(RejectReason::Simultaneous)
    );
}

#[test]
fn a_presumed_session_parks_the_smaller_key_until_it_is_confirmed() {
    let (mut slot, attempt) = committed();
    let id = SessionId::next();
    slot.install_outbound(attempt, id, Claim::presumed(), "presumed");
    let inbound = Claim::unstamped(1);
    assert_eq!(
        slot.judge(&inbound, KeyOrder::PeerLarger, Hearing::First),
        InboundDecision::Accept(InboundCase::RetiresSession)
    );
    assert_eq!(slot.judge(&inbound, KeyOrder::PeerSmaller, Hearing::First), InboundDecision::Park);

    slot.confirm(SessionId::next(), Claim::unstamped(2));
    let judge = |slot: &Test| slot.judge(&inbound, KeyOrder::PeerSmaller, Hearing::AfterParking);
    assert_eq!(judge(&slot), InboundDecision::Park, "another session was confirmed");
    slot.confirm(id, Claim::unstamped(2));
    assert_eq!(judge(&slot), InboundDecision::Reject(RejectReason::Simultaneous));
    slot.confirm(id, Claim::unstamped(0));
    assert_eq!(judge(&slot), InboundDecision::Reject(RejectReason::Simultaneous), "only once");

    assert_eq!(slot.remove(id), Some("presumed"));
    assert_eq!(judge(&slot), InboundDecision::Accept(InboundCase::Vacant));
}

#[test]
fn a_late_accept_meets_every_row() {
    let (inbound, late) = (claim(1, 5, 5), claim(1, 6, 6));
    let superseded = || {
        let (mut slot, attempt) = committed();
        let id = SessionId::next();
        let displaced = slot.install_inbound(id, inbound, "theirs");
        assert_eq!(displaced.dial, Some(("ours", Phase::Committed)));
        (slot, attempt, id)
    };

    let (slot, attempt, _) = superseded();
    assert_eq!(
        slot.accepted(attempt, &late),
        AcceptDecision::Adopt(AcceptCase::LateRetiresSession)
    );
    assert_eq!(slot.accepted(attempt, &claim(1, 4, 6)), AcceptDecision::Drain(DrainCase::Stale));

    let (mut slot, attempt, id) = superseded();
    assert_eq!(slot.remove(id), Some("theirs"));
    assert!(!slot.is_vacant(), "the verdict is still awaited");
    assert_eq!(slot.accepted(attempt, &late), AcceptDecision::Adopt(AcceptCase::LateVacant));

    let second = AttemptId::next();
    slot.dial(second, "second");
    assert_eq!(slot.accepted(attempt, &late), AcceptDecision::Adopt(AcceptCase::LateAbortsDial));
    slot.commit(second);
    assert_eq!(
        slot.accepted(attempt, &late),
        AcceptDecision::Adopt(AcceptCase::LateSupersedesDial)
    );
    let displaced = slot.install_outbound(attempt, SessionId::next(), late, "adopted");
    assert_eq!(displaced.dial, Some(("second", Phase::Committed)));
    assert_eq!(slot.superseded().len(), 1, "the second dial awaits its verdict in turn");
}

#[test]
fn disconnect_reaches_superseded_dials() {
    let (mut slot, attempt) = committed();
    slot.install_inbound(SessionId::next(), claim(1, 5, 5), "theirs");
    assert_eq!(slot.disconnect().session, Some("theirs"));
    assert_eq!(
        slot.accepted(attempt, &claim(1, 6, 6)),
        AcceptDecision::Drain(DrainCase::Cancelled)
    );
    assert_eq!(slot.dial_ended(attempt), Ended::Forgotten);
    assert!(slot.is_vacant());
}

#[test]
fn a_disconnected_committed_dial_leaves_the_slot_free_and_is_drained() {
    let (mut slot, attempt) = committed();
    assert_eq!(slot.disconnect().dial, Some(("ours", Phase::Committed)));
    assert!(slot.dial(AttemptId::next(), "next"));
    assert_eq!(
        slot.accepted(attempt, &claim(1, 6, 6)),
        AcceptDecision::Drain(DrainCase::Cancelled)
    );
}

#[test]
fn an_ordinary_accept_hands_back_the_dial_itself() {
    let (mut slot, attempt) = committed();
    let at = claim(1, 5, 5);
    assert_eq!(slot.accepted(attempt, &at), AcceptDecision::Adopt(AcceptCase::Current));
    let displaced = slot.install_outbound(attempt, SessionId::next(), at, "session");
    assert_eq!(displaced.dial, Some(("ours", Phase::Committed)));
    assert_eq!(slot.superseded().len(), 0);
    assert_eq!(slot.session(), Some(&"session"));
}

#[test]
fn a_stale_handle_removes_nothing() {
    let (mut slot, old) = ready(claim(1, 5, 5));
    let new = SessionId::next();
    let displaced = slot.install_inbound(new, claim(1, 6, 6), "next");
    assert_eq!(displaced.session, Some("held"));
    assert_eq!(slot.remove(old), None);
    assert_eq!(slot.session(), Some(&"next"));
}

#[test]
fn alternating_instances_are_noticed() {
    let (mut slot, _) = ready(claim(1, 5, 1));
    assert!(!slot.install_inbound(SessionId::next(), claim(2, 1, 2), "b").conflict);
    assert!(!slot.install_inbound(SessionId::next(), claim(2, 2, 3), "b").conflict);
    assert!(slot.install_inbound(SessionId::next(), claim(1, 6, 4), "a").conflict);
}

#[test]
fn without_instances_nothing_alternates() {
    let (mut slot, _) = ready(Claim::unstamped(1));
    for heard in 2..5 {
        let displaced = slot.install_inbound(SessionId::next(), Claim::unstamped(heard), "next");
        assert!(!displaced.conflict);
    }
}

#[test]
fn a_refused_simultaneous_dial_reopens_only_for_waiters() {
    let (mut slot, attempt) = committed();
    assert!(slot.reopen(attempt));
    assert_eq!(slot.leave(attempt), Some("ours"));
    let (mut slot, attempt) = committed();
    slot.leave(attempt);
    assert!(!slot.reopen(attempt));
}

#[test]
fn a_session_that_is_not_let_go_stays() {
    let (mut slot, id) = ready(claim(1, 7, 1));
    assert_eq!(slot.remove_if(id, Err), None);
    assert_eq!(slot.session(), Some(&"held"));
    let asked = |_| panic!("another session is not asked for");
    assert_eq!(slot.remove_if(SessionId::next(), asked), None);
    assert_eq!(
        slot.judge(&claim(1, 7, 2), KeyOrder::PeerLarger, Hearing::First),
        InboundDecision::Reject(RejectReason::Duplicate)
    );
    assert_eq!(slot.remove_if(id, Ok), Some("held"));
    assert!(slot.is_vacant());
}
