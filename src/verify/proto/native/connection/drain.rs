//! A session ends without loss, and both sides know what arrived.

use super::*;

/// Both sides' counts, after a session in which the initiator had sent 2 and the responder 1.
fn drained(pair: &mut Pair) {
    pair.settle().unwrap();
    assert_eq!(pair.side(Initiator).goodbye().unwrap().1, 2);
    assert_eq!(pair.side(Responder).goodbye().unwrap().1, 1);
    for role in [Initiator, Responder] {
        let core = &pair.side(role).core;
        assert!(core.finished_writing() && core.finished_reading());
        assert!(!core.wants_seal());
        assert!(pair.side(role).ended_well());
        assert_eq!(pair.write(role, usize::MAX).unwrap().frames, 0);
    }
}

fn with_messages() -> Pair {
    let mut pair = accepted();
    pair.side(Initiator).queue.extend([message(100_000), message(1)]);
    pair.side(Responder).queue.push_back(message(5));
    pair
}

#[test]
fn one_side_begins_and_the_other_answers() {
    for beginner in [Initiator, Responder] {
        let mut pair = with_messages();
        pair.side(beginner).core.drain();
        pair.side(beginner).core.goodbye(GoodbyeReason::Age);
        assert!(pair.side(beginner).core.wants_seal());
        pair.settle().unwrap();
        let other = pair::other(beginner);
        assert_eq!(pair.side(other).events.last(), Some(&Event::Drain));
        assert!(pair.side(beginner).goodbye().is_none());
        pair.side(other).core.drain();
        pair.side(other).core.goodbye(GoodbyeReason::Answer);
        drained(&mut pair);
        assert_eq!(pair.side(other).goodbye().unwrap().0, GoodbyeReason::Age);
    }
}

#[test]
fn both_begin_at_once() {
    let mut pair = with_messages();
    for role in [Initiator, Responder] {
        pair.side(role).core.drain();
        pair.side(role).core.goodbye(GoodbyeReason::Shutdown);
        pair.write(role, usize::MAX).unwrap();
    }
    drained(&mut pair);
}

#[test]
fn what_was_accepted_goes_first_and_nothing_but_the_goodbye_after() {
    let mut hostile = Hostile::accepted(|params| params.rekey_after_bytes = 1);
    hostile.core.drain();
    hostile.core.goodbye(GoodbyeReason::Idle);
    hostile.core.keep_alive();
    let frames = hostile.seal(&[message(1)]);
    assert_eq!(frames, [[5, 0, 0, DATA, 0, 1, 0, 7, 0, 0]], "no rekey either");
    hostile.core.keep_alive();
    hostile.core.ping(1, hostile.now);
    hostile.send(&[Record::Ping(9)]).unwrap();
    assert!(!hostile.core.wants_seal());
    assert!(hostile.seal(&[message(1)]).is_empty());
    hostile.send(&[Record::Data(b"late"), Record::Drain]).unwrap();
    assert!(!hostile.core.wants_seal(), "the count is not final before it is polled");
    assert_eq!(hostile.events().len(), 2);
    assert!(hostile.core.wants_seal());
    let goodbye = [8, 0, 9, 1, 0, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(hostile.seal(&[]), [goodbye]);
    assert!(hostile.seal(&[message(1)]).is_empty());
}

#[test]
fn nothing_but_a_goodbye_follows_the_peers_drain() {
    let after = [
        Record::Data(b""),
        fragment(1, b"x"),
        Record::Ping(1),
        Record::Pong(1),
        Record::KeepAlive,
        Record::Rekey,
        Record::Drain,
        Record::Skippable { kind: 0x80, body: b"" },
        // We have not drained, so its count cannot be final.
        BYE,
    ];
    for record in after {
        let error = ProtocolError::OutOfPlace(record.kind());
        refuses(&[Record::Drain, record], error);
    }
    refuses(&[BYE], ProtocolError::OutOfPlace(record::GOODBYE));
}

#[test]
fn nothing_follows_a_goodbye() {
    for record in [Record::Data(b""), Record::KeepAlive, BYE] {
        let mut hostile = Hostile::accepted(|_| {});
        hostile.core.drain();
        hostile.seal(&[]);
        hostile.send(&[Record::Drain, BYE]).unwrap();
        assert_eq!(hostile.core.end_of_stream(0), Ok(()));
        let error = ProtocolError::OutOfPlace(record.kind());
        assert_eq!(hostile.send(&[record]), Err(error));
    }
}

#[test]
fn a_peer_cannot_have_received_more_than_was_sent() {
    let mut hostile = Hostile::accepted(|_| {});
    hostile.core.drain();
    hostile.seal(&[message(1), message(2)]);
    let boast = Record::Goodbye { reason: GoodbyeReason::Answer, received: u64::MAX };
    hostile.send(&[Record::Drain, boast]).unwrap();
    let goodbye = Event::Goodbye { reason: GoodbyeReason::Answer, received: 2 };
    assert_eq!(hostile.events(), [Event::Drain, goodbye]);
}

#[test]
fn a_peer_that_drains_owes_no_pong() {
    let mut pair = accepted();
    let now = pair.now;
    pair.side(Initiator).core.ping(1, now);
    pair.side(Responder).core.drain();
    pair.write(Responder, usize::MAX).unwrap();
    pair.settle().unwrap();
    assert_eq!(pair.side(Initiator).core.open_ping(), None);
    pair.side(Initiator).core.ping(2, now);
    assert_eq!(pair.side(Initiator).core.open_ping(), None);
    assert!(!pair.side(Initiator).core.wants_seal());
}

#[test]
fn a_ping_that_the_peers_drain_has_overtaken_is_not_written() {
    let mut hostile = Hostile::accepted(|_| {});
    hostile.core.ping(1, hostile.now);
    hostile.send(&[Record::Drain]).unwrap();
    assert_eq!(hostile.core.open_ping(), None);
    assert!(hostile.seal(&[]).is_empty());
}

#[test]
fn the_end_of_the_stream_anywhere_else_is_truncation() {
    let truncated = Err(CloseReason::Truncated);
    let mut hostile = Hostile::accepted(|_| {});
    assert_eq!(hostile.core.end_of_stream(0), truncated);
    hostile.core.drain();
    hostile.seal(&[]);
    hostile.send(&[Record::Drain]).unwrap();
    assert_eq!(hostile.core.end_of_stream(0), truncated);
    hostile.send(&[BYE]).unwrap();
    assert_eq!(hostile.core.end_of_stream(1), truncated);
    assert_eq!(hostile.core.end_of_stream(0), Ok(()));
}
