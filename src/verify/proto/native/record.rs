//! Unit tests of `proto/native/record.rs`.

use super::*;
use proptest::prelude::*;

fn encoded(record: Record<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    record.encode(&mut out);
    out
}

#[test]
fn each_record_has_its_bytes() {
    let goodbye = Record::Goodbye { reason: GoodbyeReason::Age, received: 258 };
    let fragment = Record::Fragment { remaining: 3, part: b"ab" };
    let table: [(Record<'_>, &[u8]); 10] = [
        (Record::Data(b""), &[1, 0, 0]),
        (Record::Data(b"hi"), &[1, 0, 2, b'h', b'i']),
        (fragment, &[2, 0, 6, 0, 0, 0, 3, b'a', b'b']),
        (Record::Ping(1), &[3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]),
        (Record::Pong(2), &[4, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2]),
        (Record::KeepAlive, &[5, 0, 0]),
        (Record::Rekey, &[6, 0, 0]),
        (Record::Drain, &[7, 0, 0]),
        (goodbye, &[8, 0, 9, 2, 0, 0, 0, 0, 0, 0, 1, 2]),
        (Record::Skippable { kind: 0xfe, body: b"x" }, &[0xfe, 0, 1, b'x']),
    ];
    for (record, bytes) in table {
        assert_eq!(encoded(record), bytes);
        assert_eq!(record.encoded_len(), bytes.len());
        assert_eq!(record.kind(), bytes[0]);
        assert_eq!(Record::decode(bytes), Ok((record, bytes.len())));
        for cut in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..cut]), Err(ProtocolError::RecordLength));
        }
    }
}

#[test]
fn a_record_of_a_fixed_form_has_no_other_length() {
    let wrong = [
        (FRAGMENT, 0),
        (FRAGMENT, 4),
        (PING, 7),
        (PONG, 9),
        (KEEP_ALIVE, 1),
        (REKEY, 1),
        (DRAIN, 1),
        (GOODBYE, 0),
        (GOODBYE, 8),
        (GOODBYE, 10),
    ];
    for (kind, length) in wrong {
        let mut bytes = vec![kind, 0, length];
        bytes.resize(HEADER + usize::from(length), 0);
        assert_eq!(Record::decode(&bytes), Err(ProtocolError::RecordForm(kind)));
    }
}

#[test]
fn unknown_types_are_skippable_or_fatal_by_their_top_bit() {
    for kind in (0..=u8::MAX).filter(|kind| !(DATA..=VERDICT).contains(kind)) {
        let bytes = [kind, 0, 1, 9];
        let decoded = Record::decode(&bytes);
        if kind < 0x80 {
            assert_eq!(decoded, Err(ProtocolError::UnknownRecord(kind)));
        } else {
            assert_eq!(decoded, Ok((Record::Skippable { kind, body: &[9] }, 4)));
        }
    }
}

#[test]
fn a_verdict_has_its_bytes() {
    let accept = Verdict::Accept {
        stamp: 5,
        observed: "[::1]:80".to_owned(),
        payload: Bytes::from_static(b"info"),
    };
    let bytes = b"\x00\0\0\0\0\0\0\0\x05\x08[::1]:80info";
    assert_eq!(accept.encode().unwrap(), bytes);
    assert_eq!(Verdict::decode(bytes), Ok(accept));

    let reject = Verdict::Reject {
        reason: RejectReason::Simultaneous,
        retry_after: Some(Duration::from_millis(515)),
    };
    let bytes = [1, 4, 0, 0, 2, 3];
    assert_eq!(reject.encode().unwrap(), bytes);
    assert_eq!(Verdict::decode(&bytes), Ok(reject));
}

#[test]
fn a_malformed_verdict_is_refused() {
    let form = Err(ProtocolError::RecordForm(VERDICT));
    let accept = b"\x00\0\0\0\0\0\0\0\x05\x02ab";
    for cut in 0..accept.len() {
        assert_eq!(Verdict::decode(&accept[..cut]), form);
    }
    for cut in 0..6 {
        assert_eq!(Verdict::decode(&[1, 1, 0, 0, 0, 0][..cut]), form);
    }
    assert_eq!(Verdict::decode(&[1, 1, 0, 0, 0, 0, 0]), form);
    assert_eq!(Verdict::decode(&[2, 1, 0, 0, 0, 0]), form);
    assert_eq!(Verdict::decode(b"\x00\0\0\0\0\0\0\0\x05\x02\xff\xff"), form);
}

#[test]
fn a_verdict_over_its_limits_is_neither_sent_nor_taken() {
    let accept = |observed: usize, payload: usize| Verdict::Accept {
        stamp: 0,
        observed: "a".repeat(observed),
        payload: vec![0; payload].into(),
    };
    let max = accept(255, MAX_APPLICATION_PAYLOAD);
    let mut body = max.encode().unwrap();
    assert_eq!(Verdict::decode(&body), Ok(max));
    body.push(0);
    let too_large = ProtocolError::MessageTooLarge(16 * 1024 + 1);
    assert_eq!(Verdict::decode(&body), Err(too_large));
    assert_eq!(accept(0, MAX_APPLICATION_PAYLOAD + 1).encode(), Err(too_large));
    assert_eq!(accept(256, 0).encode(), Err(ProtocolError::RecordForm(VERDICT)));
}

#[test]
fn a_retry_time_is_rounded_up_and_bounded() {
    let sent = |retry_after| {
        let reject = Verdict::Reject { reason: RejectReason::Full, retry_after };
        match Verdict::decode(&reject.encode().unwrap()).unwrap() {
            Verdict::Reject { retry_after, .. } => retry_after,
            Verdict::Accept { .. } => panic!("a rejection decodes as one"),
        }
    };
    assert_eq!(sent(None), None);
    assert_eq!(sent(Some(Duration::ZERO)), None);
    assert_eq!(sent(Some(Duration::from_nanos(1))), Some(Duration::from_millis(1)));
    assert_eq!(sent(Some(Duration::MAX)), Some(Duration::from_millis(u32::MAX.into())));
}

proptest! {
    #[test]
    fn codes_survive_the_wire(code: u8) {
        prop_assert_eq!(goodbye_code(goodbye_reason(code)), code);
        prop_assert_eq!(reject_code(reject_reason(code)), code);
    }
}
