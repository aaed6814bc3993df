//! Unit tests of `pool/inbound/pending.rs`.

use super::*;

fn enter(handshakes: &Arc<PendingHandshakes>) -> HandshakePermit {
    handshakes.enter().permit.unwrap()
}

#[test]
fn the_first_of_the_more_numerous_kind_is_shed_and_the_limit_holds() {
    let handshakes = PendingHandshakes::new(4);
    let permits: Vec<_> = (0..4).map(|_| enter(&handshakes)).collect();
    permits[0].verified();
    // One half, three silent.
    let fifth = handshakes.enter();
    assert!(fifth.shed);
    let shed = |permit: &HandshakePermit| permit.stop.is_aborted();
    assert_eq!(permits.iter().map(shed).collect::<Vec<_>>(), [false, true, false, false]);
    // Three half, one silent.
    permits[2].verified();
    permits[3].verified();
    assert!(handshakes.enter().shed);
    assert_eq!(permits.iter().map(shed).collect::<Vec<_>>(), [true, true, false, false]);
    assert_eq!(handshakes.held(), (3, 4), "the sixth has gone, the shed are not counted twice");
    drop(permits);
    assert_eq!(handshakes.held(), (1, 4));
    drop(fifth);
    assert_eq!(handshakes.held(), (0, 4));
}

#[test]
fn nobody_is_shed_after_message_3() {
    let handshakes = PendingHandshakes::new(2);
    let whole: Vec<_> = (0..2)
        .map(|_| {
            let permit = enter(&handshakes);
            permit.verified();
            permit.authenticated().unwrap()
        })
        .collect();
    let newcomer = handshakes.enter();
    assert!(newcomer.permit.is_none() && newcomer.shed);
    assert_eq!(handshakes.held(), (2, 2));
    drop(whole);
    assert_eq!(handshakes.held(), (0, 2));
}

#[test]
fn who_comes_when_it_is_closed_is_told_so_and_who_is_whole_goes_on_until_cut() {
    let handshakes = PendingHandshakes::new(4);
    let (silent, half, whole) = (enter(&handshakes), enter(&handshakes), enter(&handshakes));
    half.verified();
    let whole = whole.authenticated().unwrap();
    handshakes.close();
    let late = enter(&handshakes);
    let aborted = |permit: &HandshakePermit| permit.stop.is_aborted();
    assert_eq!([&silent, &half, &whole, &late].map(aborted), [true, true, false, true]);
    handshakes.kill();
    assert!(aborted(&whole));
}

/// While it fails or completes on one thread it may be shed on another: it is one or the other.
#[test]
fn one_that_was_shed_neither_fails_nor_completes() {
    let handshakes = PendingHandshakes::new(1);
    let first = enter(&handshakes);
    first.verified();
    let second = enter(&handshakes);
    assert!(first.authenticated().is_none());
    let third = enter(&handshakes);
    assert!(!second.failed());
    assert!(third.failed());
    assert_eq!(handshakes.held(), (0, 1));
}
