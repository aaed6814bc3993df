//! Unit tests of `proto/dial_policy.rs`, in virtual time.

use super::*;

const DIAL: Duration = Duration::from_secs(15);
const VERDICT: Duration = Duration::from_secs(3);
const BUSY: Lost = Lost::Busy { retry_after: Some(Duration::from_secs(9)) };

type Policy = DialPolicy<&'static str>;

fn policy(now: Instant) -> Policy {
    DialPolicy::new(Timeouts { dial: DIAL, verdict: VERDICT }, now)
}

fn fails(error: &'static str, outcome: Option<Outcome>) -> Step<&'static str> {
    Step::Fail(Failed { error, outcome })
}

#[test]
fn an_unanswered_dial_fails_with_its_own_error() {
    let now = Instant::now();
    assert_eq!(policy(now).answer_due(), now + DIAL);
    for (why, outcome) in [
        (Unanswered::NotTried, None),
        (Unanswered::Unreachable, Some(Outcome::Unreachable)),
        (Unanswered::Refused, Some(Outcome::Refused)),
    ] {
        assert_eq!(policy(now).unanswered(why, "error"), Failed { error: "error", outcome });
    }
}

#[test]
fn what_a_refusal_means_is_in_its_reason_and_an_unknown_one_is_a_policy() {
    let wait = Some(Duration::from_secs(9));
    for (reason, lost) in [
        (RejectReason::Simultaneous, Lost::OtherConnection),
        (RejectReason::Duplicate, Lost::OtherConnection),
        (RejectReason::Full, BUSY),
        (RejectReason::Draining, BUSY),
        (RejectReason::Refused, Lost::Refused),
        (RejectReason::Other(200), Lost::Refused),
    ] {
        assert_eq!(Lost::rejected(reason, wait), lost, "{reason:?}");
    }
}

#[test]
fn a_broken_connection_leaves_a_verdicts_time_for_a_spare() {
    let now = Instant::now();
    let mut dial = policy(now);
    let later = now + Duration::from_secs(1);
    let next = dial.lost(Lost::Broken, "first", Reopened::Yes, later);
    assert_eq!(next, Next { pause: None, step: Step::AwaitSpare });
    assert_eq!(dial.answer_due(), later + VERDICT);

    let later = later + Duration::from_secs(2);
    let next = dial.lost(Lost::Broken, "second", Reopened::WithParked, later);
    assert_eq!(next, Next { pause: Some(OTHER_CONNECTION_PAUSE), step: Step::AwaitSpare });
    assert_eq!(dial.answer_due(), later + OTHER_CONNECTION_PAUSE + VERDICT);
}

#[test]
fn the_last_broken_connection_is_told_and_not_what_came_after() {
    let now = Instant::now();
    let mut dial = policy(now);
    dial.lost(Lost::Broken, "first", Reopened::Yes, now);
    dial.lost(Lost::Broken, "second", Reopened::Yes, now);
    let failed = dial.unanswered(Unanswered::Refused, "later");
    assert_eq!(failed, Failed { error: "second", outcome: Some(Outcome::Unreachable) });
}

#[test]
fn a_dial_without_its_slot_ends_at_once() {
    let now = Instant::now();
    for (why, outcome) in [
        (Lost::Broken, Some(Outcome::Unreachable)),
        (Lost::Refused, Some(Outcome::Refused)),
        (BUSY, Some(Outcome::Busy { retry_after: Some(Duration::from_secs(9)) })),
        (Lost::OtherConnection, None),
    ] {
        let next = policy(now).lost(why, "error", Reopened::No, now);
        assert_eq!(next, Next { pause: None, step: fails("error", outcome) });
    }
}

#[test]
fn a_refusal_ends_the_dial_after_what_is_parked() {
    let now = Instant::now();
    for (why, outcome) in [
        (Lost::Refused, Some(Outcome::Refused)),
        (BUSY, Some(Outcome::Busy { retry_after: Some(Duration::from_secs(9)) })),
        (Lost::Busy { retry_after: None }, Some(Outcome::Busy { retry_after: None })),
    ] {
        let next = policy(now).lost(why, "error", Reopened::Yes, now);
        assert_eq!(next, Next { pause: None, step: fails("error", outcome) });
        let next = policy(now).lost(why, "error", Reopened::WithParked, now);
        let pause = Some(OTHER_CONNECTION_PAUSE);
        assert_eq!(next, Next { pause, step: fails("error", outcome) });
    }
}

#[test]
fn a_dial_that_is_refused_for_another_connection_begins_anew_three_times() {
    let mut now = Instant::now();
    let mut dial = policy(now);
    for slot in [Reopened::Yes, Reopened::WithParked, Reopened::Yes] {
        // What is parked is judged first, then the peer's own choice has its time.
        let pause = match slot {
            Reopened::WithParked => 2 * OTHER_CONNECTION_PAUSE,
            _ => OTHER_CONNECTION_PAUSE,
        };
        let next = dial.lost(Lost::OtherConnection, "other", slot, now);
        assert_eq!(next, Next { pause: Some(pause), step: Step::Redial });
        now += pause;
        assert_eq!(dial.answer_due(), now + DIAL);
    }
    let next = dial.lost(Lost::OtherConnection, "other", Reopened::Yes, now);
    assert_eq!(next, Next { pause: None, step: fails("other", None) });
}

#[test]
fn a_new_race_forgets_what_broke_before() {
    let now = Instant::now();
    let mut dial = policy(now);
    dial.lost(Lost::Broken, "broken", Reopened::Yes, now);
    dial.lost(Lost::OtherConnection, "other", Reopened::Yes, now);
    let failed = dial.unanswered(Unanswered::Unreachable, "later");
    assert_eq!(failed, Failed { error: "later", outcome: Some(Outcome::Unreachable) });
}

#[test]
fn without_an_address_the_refusal_is_told() {
    let now = Instant::now();
    let mut dial = policy(now);
    dial.lost(Lost::OtherConnection, "other", Reopened::Yes, now);
    dial.resolves_anew();
    let failed = dial.unanswered(Unanswered::NotTried, "no address");
    assert_eq!(failed, Failed { error: "other", outcome: None });

    let mut dial = policy(now);
    dial.lost(Lost::OtherConnection, "other", Reopened::Yes, now);
    dial.resolves_anew();
    dial.lost(Lost::Broken, "broken", Reopened::Yes, now);
    let failed = dial.unanswered(Unanswered::NotTried, "no address");
    assert_eq!(failed, Failed { error: "broken", outcome: Some(Outcome::Unreachable) });
}

#[test]
fn a_persistent_peer_is_dialled_again_until_nothing_can_help() {
    let now = Instant::now();
    let (pause, max_pause) = (Duration::from_secs(1), Duration::from_secs(300));
    let policy = PersistentPolicy { pause, max_pause };
    assert_eq!(policy.connected(now), now + pause);
    let until = now + Duration::from_secs(7);
    assert_eq!(policy.failed(Unreached::BackingOff(until), now), Some(until));
    assert_eq!(policy.failed(Unreached::Passing, now), Some(now + pause));
    assert_eq!(policy.failed(Unreached::Lasting, now), Some(now + max_pause));
    assert_eq!(policy.failed(Unreached::Final, now), None);
}
