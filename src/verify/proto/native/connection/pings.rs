//! Pings are answered, timed, and bounded.

use super::*;

#[test]
fn a_pong_gives_the_round_trip_time() {
    let mut pair = accepted();
    let mut rtts = [80, 160].into_iter();
    for millis in rtts.by_ref() {
        let now = pair.now;
        pair.side(Initiator).core.ping(millis, now);
        assert_eq!(pair.side(Initiator).core.open_ping(), Some(now));
        pair.write(Initiator, usize::MAX).unwrap();
        pair.pass(Duration::from_millis(millis));
        pair.settle().unwrap();
        let rtt = Duration::from_millis(millis);
        assert_eq!(pair.side(Initiator).events.pop(), Some(Event::Pong { rtt }));
        assert_eq!(pair.side(Initiator).core.open_ping(), None);
    }
    // RFC 6298: 7/8 of 80 and 1/8 of 160.
    let srtt = Some(Duration::from_millis(90));
    assert_eq!(pair.side(Initiator).core.srtt(), srtt);
    assert_eq!(pair.side(Responder).core.srtt(), None);
}

#[test]
fn one_ping_is_open_at_a_time() {
    let mut pair = accepted();
    let first = pair.now;
    pair.side(Initiator).core.ping(1, first);
    pair.pass(Duration::from_secs(1));
    let later = pair.now;
    pair.side(Initiator).core.ping(2, later);
    assert_eq!(pair.side(Initiator).core.open_ping(), Some(first));
    pair.settle().unwrap();
    assert_eq!(kinds(pair.side(Initiator)), ["pong"]);
}

#[test]
fn a_pong_answers_a_ping_of_ours() {
    refuses(&[Record::Pong(1)], ProtocolError::UnknownPong);
    let mut hostile = Hostile::accepted(|_| {});
    hostile.core.ping(5, hostile.now);
    hostile.seal(&[]);
    hostile.send(&[Record::Pong(5)]).unwrap();
    let again = hostile.send(&[Record::Pong(5)]);
    assert_eq!(again, Err(ProtocolError::UnknownPong));
    let mut hostile = Hostile::accepted(|_| {});
    hostile.core.ping(5, hostile.now);
    hostile.seal(&[]);
    let other = hostile.send(&[Record::Pong(6)]);
    assert_eq!(other, Err(ProtocolError::UnknownPong));
}

#[test]
fn more_pings_a_second_than_allowed_are_a_flood() {
    let mut hostile = Hostile::accepted(|_| {});
    for nonce in 0..10 {
        hostile.send(&[Record::Ping(nonce)]).unwrap();
    }
    let mut pongs = vec![];
    for nonce in 0..10 {
        Record::Pong(nonce).encode(&mut pongs);
    }
    assert_eq!(hostile.seal(&[]), [pongs], "all are answered, in one frame");
    for nonce in 0..50 {
        hostile.now += Duration::from_millis(100);
        hostile.send(&[Record::Ping(nonce)]).unwrap();
    }
    hostile.now += Duration::from_millis(99);
    let flood = hostile.send(&[Record::Ping(0)]);
    assert_eq!(flood, Err(ProtocolError::PingFlood));
}

#[test]
fn a_limit_of_zero_allows_none() {
    let mut hostile = Hostile::accepted(|params| params.pings_per_second = 0);
    let flood = hostile.send(&[Record::Ping(0)]);
    assert_eq!(flood, Err(ProtocolError::PingFlood));
}

#[test]
fn answers_do_not_pile_up_when_the_peer_does_not_read() {
    let mut hostile = Hostile::accepted(|_| {});
    for nonce in 0..1_000 {
        hostile.now += Duration::from_millis(100);
        hostile.send(&[Record::Ping(nonce)]).unwrap();
    }
    let mut newest = vec![];
    for nonce in 990..1_000 {
        Record::Pong(nonce).encode(&mut newest);
    }
    assert_eq!(hostile.seal(&[]), [newest]);
}
