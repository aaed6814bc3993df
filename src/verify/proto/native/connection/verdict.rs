//! The verdict comes first, once, from the responder.

use super::*;

#[test]
fn an_acceptance_opens_both_directions() {
    for suite in SUITES {
        let mut pair = Pair::new(suite, |_| {});
        pair.side(Responder).core.verdict(pair::accept());
        pair.settle().unwrap();
        let side = pair.side(Initiator);
        assert_eq!((&side.verdict, &side.events[..]), (&Some(pair::accept()), &[][..]));
        for role in [Initiator, Responder] {
            assert!(pair.side(role).core.is_open());
            pair.side(role).queue.push_back(message(9));
        }
        pair.settle().unwrap();
        for role in [Initiator, Responder] {
            assert_eq!(pair.side(role).messages(), [message(9)]);
        }
    }
}

#[test]
fn nothing_flows_before_it() {
    let mut pair = Pair::new(Suite::default(), |_| {});
    for role in [Initiator, Responder] {
        pair.side(role).queue.push_back(message(1));
        let now = pair.now;
        pair.side(role).core.ping(1, now);
        pair.side(role).core.keep_alive();
        pair.side(role).core.drain();
        pair.side(role).core.goodbye(GoodbyeReason::Idle);
        assert!(!pair.side(role).core.wants_seal());
        assert_eq!(pair.write(role, usize::MAX).unwrap(), Sealed::default());
        assert_eq!(pair.side(role).queue.len(), 1, "the source was not asked");
    }
}

#[test]
fn it_is_the_first_record_and_messages_may_follow_at_once() {
    let mut pair = Pair::new(Suite::default(), |_| {});
    pair.side(Responder).queue.push_back(message(5));
    pair.side(Responder).core.keep_alive();
    pair.side(Responder).core.verdict(pair::accept());
    assert!(pair.side(Responder).core.wants_seal());
    assert_eq!(pair.write(Responder, usize::MAX).unwrap().frames, 1);
    pair.read(Initiator, usize::MAX).unwrap();
    assert_eq!(kinds(pair.side(Initiator)), ["verdict", "keep-alive", "message"]);
}

#[test]
fn a_rejection_ends_the_session_cleanly() {
    let reject =
        Verdict::Reject { reason: RejectReason::Full, retry_after: Some(Duration::from_secs(3)) };
    let mut pair = Pair::new(Suite::default(), |_| {});
    pair.side(Responder).core.verdict(reject.clone());
    pair.side(Responder).queue.push_back(message(1));
    pair.side(Initiator).queue.push_back(message(1));
    pair.settle().unwrap();
    let side = pair.side(Initiator);
    assert_eq!((&side.verdict, &side.events[..]), (&Some(reject), &[][..]));
    for role in [Initiator, Responder] {
        assert_eq!(pair.side(role).queue.len(), 1, "no message was taken");
        assert!(pair.side(role).core.finished_writing());
        assert!(pair.side(role).ended_well());
    }
}

#[test]
fn only_the_first_counts_and_only_the_responder_gives_one() {
    let mut pair = Pair::new(Suite::default(), |_| {});
    pair.side(Initiator).core.verdict(pair::accept());
    assert_eq!(pair.write(Initiator, usize::MAX).unwrap().frames, 0);
    pair.side(Responder).core.verdict(pair::accept());
    pair.side(Responder)
        .core
        .verdict(Verdict::Reject { reason: RejectReason::Full, retry_after: None });
    pair.settle().unwrap();
    pair.side(Responder).core.verdict(pair::accept());
    pair.settle().unwrap();
    assert_eq!(kinds(pair.side(Initiator)), ["verdict"]);
    assert!(pair.side(Initiator).core.is_open());
}

#[test]
fn anything_else_first_is_out_of_place() {
    let others = [
        Record::Data(b"x"),
        fragment(1, b"x"),
        Record::Ping(1),
        Record::Pong(1),
        Record::KeepAlive,
        Record::Rekey,
        Record::Drain,
        BYE,
        Record::Skippable { kind: 0x80, body: b"" },
    ];
    for record in others {
        for role in [Initiator, Responder] {
            let mut hostile = Hostile::new(role, |_| {});
            let error = ProtocolError::OutOfPlace(record.kind());
            assert_eq!(hostile.send(&[record]), Err(error), "{role:?}");
            assert_eq!(hostile.core.poll_event(), None);
        }
    }
}

#[test]
fn a_second_one_is_out_of_place() {
    let body = pair::accept().encode().unwrap();
    let verdict = Record::Verdict(&body);
    let mut hostile = Hostile::new(Initiator, |_| {});
    hostile.send(&[verdict]).unwrap();
    let error = Err(ProtocolError::OutOfPlace(record::VERDICT));
    assert_eq!(hostile.send(&[verdict]), error);
    let mut hostile = Hostile::new(Initiator, |_| {});
    assert_eq!(hostile.send(&[verdict, verdict]), error);
    refuses(&[verdict], ProtocolError::OutOfPlace(record::VERDICT));
}

#[test]
fn nothing_follows_a_rejection() {
    let mut hostile = Hostile::new(Initiator, |_| {});
    let body = [1, 1, 0, 0, 0, 0];
    let records = [Record::Verdict(&body), Record::KeepAlive];
    let error = ProtocolError::OutOfPlace(record::KEEP_ALIVE);
    assert_eq!(hostile.send(&records), Err(error));
}
