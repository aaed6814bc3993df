//! Each direction changes its key in time.

use super::*;

#[test]
fn each_direction_rekeys_by_its_own_bytes() {
    for suite in SUITES {
        let mut pair = Pair::accepted(suite, |params| params.rekey_after_bytes = 100_000);
        for _ in 0..50 {
            pair.side(Initiator).queue.extend(vec![message(1_028); 50]);
            pair.side(Responder).queue.push_back(message(10));
            pair.settle().unwrap();
        }
        let rekeys = pair.side(Initiator).core.rekeys();
        // 2.6 MB in frames of 52 kB: after the second the limit is passed, the third rekeys.
        assert_eq!(rekeys, 50 / 3);
        // Both count it; the responder has sent too little to rekey itself.
        assert_eq!(pair.side(Responder).core.rekeys(), rekeys);
        assert_eq!(pair.side(Responder).core.received(), 2_500);
        assert_eq!(pair.side(Initiator).core.received(), 50);
    }
}

#[test]
fn it_is_the_last_record_of_a_full_frame() {
    let mut hostile = Hostile::accepted(|params| params.rekey_after_bytes = 1);
    // Both need a whole frame, so the one that also carries the rekey cannot hold them.
    for length in [record::MAX_BODY, 3 * record::MAX_BODY] {
        let frames = hostile.seal(&[message(length)]);
        assert!(frames.len() >= 2);
        let rekeyed = frames.iter().filter(|frame| frame.ends_with(&[6, 0, 0])).count();
        assert!(rekeyed >= 1);
        assert!(frames.iter().all(|frame| frame.len() <= frame::MAX_PLAINTEXT));
    }
}

#[test]
fn it_comes_by_frames_too_long_before_nonces_run_out() {
    let mut hostile = Hostile::accepted(|params| params.rekey_after_bytes = u64::MAX);
    hostile.core.frames_since_rekey = REKEY_AFTER_FRAMES - 1;
    assert_eq!(hostile.seal(&[message(0)]), [[DATA, 0, 0]]);
    assert_eq!(hostile.seal(&[message(0)]), [[DATA, 0, 0, 6, 0, 0]]);
    assert_eq!(hostile.seal(&[message(0)]), [[DATA, 0, 0]]);
    assert_eq!(hostile.core.rekeys(), 1);
}

#[test]
fn nothing_follows_it_in_its_frame() {
    let mut hostile = Hostile::accepted(|_| {});
    let sent = hostile.send(&[Record::Rekey, Record::KeepAlive]);
    assert_eq!(sent, Err(ProtocolError::OutOfPlace(record::REKEY)));
}

#[test]
fn a_peer_that_announces_it_and_keeps_its_key_is_not_understood() {
    let mut hostile = Hostile::accepted(|_| {});
    hostile.send(&[Record::Rekey]).unwrap();
    let sent = hostile.send(&[Record::KeepAlive]);
    assert_eq!(sent, Err(ProtocolError::Decrypt));
}

#[test]
fn a_silent_session_does_not_rekey() {
    let mut pair = Pair::accepted(Suite::default(), |params| params.rekey_after_bytes = 1);
    assert!(!pair.side(Responder).core.wants_seal());
    assert_eq!(pair.write(Responder, usize::MAX).unwrap().frames, 0);
}
