//! Frames that are damaged, cut, or hold what they must not.

use super::*;

#[test]
fn lengths_that_no_frame_has_are_refused() {
    for length in (0..17).chain([65_536, 70_000]) {
        let mut hostile = Hostile::accepted(|_| {});
        let error = hostile.core.open(&vec![0; length], hostile.now);
        let said = u16::try_from(length).unwrap_or(u16::MAX);
        assert_eq!(error, Err(ProtocolError::FrameLength(said)));
    }
}

#[test]
fn a_changed_bit_anywhere_is_noticed() {
    let mut sealed = Vec::new();
    let (mut peer, _) = pair::transports(Suite::default());
    frame::seal(&mut peer, b"\x01\x00\x02hi", &mut sealed).unwrap();
    let body = &sealed[frame::PREFIX..];
    for bit in 0..body.len() * 8 {
        let mut changed = body.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        let mut hostile = Hostile::accepted(|_| {});
        let opened = hostile.core.open(&changed, hostile.now);
        assert_eq!(opened, Err(ProtocolError::Decrypt));
        // The true frame comes too late.
        let opened = hostile.core.open(body, hostile.now);
        assert_eq!(opened, Err(ProtocolError::Decrypt));
        assert_eq!(hostile.core.poll_event(), None);
    }
}

#[test]
fn a_frame_that_is_cut_repeated_or_left_out_is_noticed() {
    let seal = |count: u8| {
        let (mut peer, _) = pair::transports(Suite::default());
        let frames: Vec<Vec<u8>> = (0..count)
            .map(|i| {
                let mut out = Vec::new();
                frame::seal(&mut peer, &[DATA, 0, 1, i], &mut out).unwrap();
                out.split_off(frame::PREFIX)
            })
            .collect();
        frames
    };
    let frames = seal(2);
    for cut in frame::MIN_CIPHERTEXT..frames[0].len() {
        let mut hostile = Hostile::accepted(|_| {});
        let opened = hostile.core.open(&frames[0][..cut], hostile.now);
        assert_eq!(opened, Err(ProtocolError::Decrypt));
    }
    let mut repeated = Hostile::accepted(|_| {});
    repeated.core.open(&frames[0], repeated.now).unwrap();
    let opened = repeated.core.open(&frames[0], repeated.now);
    assert_eq!(opened, Err(ProtocolError::Decrypt));
    let mut left_out = Hostile::accepted(|_| {});
    let opened = left_out.core.open(&frames[1], left_out.now);
    assert_eq!(opened, Err(ProtocolError::Decrypt));
}

#[test]
fn records_end_where_their_frame_ends() {
    for plaintext in [&[DATA][..], &[DATA, 0], &[DATA, 0, 2, 9], &[5, 0, 0, 5, 0]] {
        let mut hostile = Hostile::accepted(|_| {});
        let sent = hostile.send_plain(plaintext);
        assert_eq!(sent, Err(ProtocolError::RecordLength));
    }
}

#[test]
fn unknown_records_are_skipped_or_fatal() {
    let mut hostile = Hostile::accepted(|_| {});
    hostile.send_plain(&[0x80, 0, 1, 9, DATA, 0, 1, 7]).unwrap();
    let event = Event::Message(Bytes::from_static(&[7]));
    assert_eq!(hostile.events(), [event]);
    let fatal = hostile.send_plain(&[0x0a, 0, 0]);
    assert_eq!(fatal, Err(ProtocolError::UnknownRecord(0x0a)));
}

#[test]
fn several_frames_may_be_opened_before_their_events_are_polled() {
    let mut hostile = Hostile::accepted(|_| {});
    hostile.send(&[Record::Data(b"a"), fragment(1, b"b")]).unwrap();
    hostile.send(&[fragment(0, b"c"), Record::KeepAlive]).unwrap();
    let bytes = |bytes: &'static [u8]| Event::Message(Bytes::from_static(bytes));
    assert_eq!(hostile.events(), [bytes(b"a"), bytes(b"bc"), Event::KeepAlive]);
}
