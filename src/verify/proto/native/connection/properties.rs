//! What must hold for any messages, any cuts and any bytes.

use super::*;
use crate::fuzzing;

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 0..3_000_usize,
        1 => 0..=200 * 1024_usize,
        1 => record::MAX_BODY - 8..record::MAX_BODY + 8,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn messages_arrive_once_and_in_order_however_the_stream_is_cut(
        lengths in proptest::collection::vec(length(), 0..40),
        cuts in proptest::collection::vec(1..100_000_usize, 1..20),
        max in 1..300_000_usize,
        rekey_after_bytes in prop_oneof![Just(1_u64), 1..200_000_u64, Just(u64::MAX)],
        aes: bool,
        keep_alive_every in 1..5_usize,
    ) {
        let suite = SUITES[usize::from(aes)];
        let change = |params: &mut ConnectionParams| params.rekey_after_bytes = rekey_after_bytes;
        let mut pair = Pair::accepted(suite, change);
        let messages: Vec<Bytes> = lengths.into_iter().map(message).collect();
        pair.side(Initiator).queue.extend(messages.clone());
        let mut finished = 0;
        for (turn, cut) in cuts.into_iter().cycle().enumerate() {
            if turn % keep_alive_every == 0 {
                pair.side(Initiator).core.keep_alive();
            }
            let sealed = pair.write(Initiator, max).unwrap();
            finished += sealed.messages_finished;
            pair.read(Responder, cut).unwrap();
            if finished == messages.len() as u64 {
                break;
            }
        }
        for role in [Initiator, Responder] {
            pair.side(role).core.drain();
            pair.side(role).core.goodbye(GoodbyeReason::Idle);
        }
        pair.settle().unwrap();
        prop_assert_eq!(pair.side(Responder).messages(), messages);
        prop_assert_eq!(pair.side(Initiator).goodbye().unwrap().1, finished);
        prop_assert!(pair.side(Initiator).ended_well() && pair.side(Responder).ended_well());
    }

    #[test]
    fn any_operations_on_both_ends_lose_nothing(
        data in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        fuzzing::session_pair(&data);
    }
}

/// Bytes in which well-formed records are likely.
fn records() -> impl Strategy<Value = Vec<u8>> {
    let record = (0..16_u8, proptest::collection::vec(0..3_u8, 0..12)).prop_map(|(kind, body)| {
        let kind = if kind > 12 { kind | 0x80 } else { kind };
        let mut record = vec![kind, 0, body.len() as u8];
        record.extend(body);
        record
    });
    proptest::collection::vec(record, 0..12).prop_map(|records| records.concat())
}

proptest! {
    #[test]
    fn records_that_decode_encode_to_the_same_bytes(
        data in prop_oneof![records(), proptest::collection::vec(any::<u8>(), 0..200)],
    ) {
        fuzzing::record_decode(&data);
    }

    #[test]
    fn frames_are_cut_without_loss(
        data in proptest::collection::vec(prop_oneof![Just(0_u8), 0..40_u8], 0..300),
    ) {
        fuzzing::frame_decode(&data);
    }

    #[test]
    fn a_hostile_peer_cannot_make_a_session_panic_or_hold_more_than_it_sent(
        settings: u8,
        frames in proptest::collection::vec(records(), 0..10),
    ) {
        let mut data = vec![settings];
        if settings & 1 == 0 {
            let mut verdict = Vec::new();
            Record::Verdict(&pair::accept().encode().unwrap()).encode(&mut verdict);
            data.extend((verdict.len() as u16).to_be_bytes());
            data.extend(verdict);
        }
        for frame in frames {
            data.extend((frame.len() as u16).to_be_bytes());
            data.extend(frame);
        }
        fuzzing::transport_receive(&data);
    }
}
