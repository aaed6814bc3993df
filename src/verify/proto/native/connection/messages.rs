//! Messages arrive whole and in order, within their limits.

use super::*;

#[test]
fn every_length_around_a_frame_arrives_whole() {
    for suite in SUITES {
        let mut pair = Pair::accepted(suite, |_| {});
        let max = record::MAX_BODY;
        let lengths = [0, 1, max - 1, max, max + 1, 2 * max, 1 << 20, 0];
        let messages: Vec<Bytes> = lengths.map(message).into();
        pair.side(Initiator).queue.extend(messages.clone());
        pair.settle().unwrap();
        assert_eq!(pair.side(Responder).messages(), messages);
        assert_eq!(pair.side(Responder).core.received(), 8);
        assert_eq!(pair.side(Initiator).core.sent, 8);
    }
}

#[test]
fn a_message_that_fills_a_frame_is_data_and_one_byte_more_is_fragments() {
    let mut hostile = Hostile::accepted(|_| {});
    let frames = hostile.seal(&[message(record::MAX_BODY)]);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].len(), frame::MAX_PLAINTEXT);
    assert_eq!(frames[0][0], DATA);

    let frames = hostile.seal(&[message(record::MAX_BODY + 1)]);
    assert_eq!(frames.len(), 2);
    assert!(frames.iter().all(|plaintext| plaintext[0] == record::FRAGMENT));
    assert_eq!(frames[0].len(), frame::MAX_PLAINTEXT);
    assert_eq!(frames[1].len(), record::FRAGMENT_HEADER + 5);
}

#[test]
fn many_messages_share_a_frame() {
    let mut hostile = Hostile::accepted(|_| {});
    let each = 1_028 + block::HEADER;
    let per_frame = frame::MAX_PLAINTEXT / each;
    let frames = hostile.seal(&vec![message(1_028); per_frame + 1]);
    let lengths: Vec<usize> = frames.iter().map(Vec::len).collect();
    assert_eq!(lengths, [per_frame * each, each]);
}

#[test]
fn a_frame_of_messages_alone_is_taken_as_one_and_any_other_event_by_event() {
    let mut hostile = Hostile::accepted(|_| {});
    let lengths = [3, 0, 1_028, 0];
    let mut plaintext = Vec::new();
    for length in lengths {
        Record::Data(&message(length)).encode(&mut plaintext);
    }
    hostile.send_plain(&plaintext).unwrap();
    let mut parcel = hostile.core.poll_messages().unwrap();
    assert_eq!((parcel.messages(), parcel.bytes()), (4, 1_031));
    for (at, length) in lengths.into_iter().enumerate() {
        assert_eq!(parcel.first_bytes(), length);
        assert_eq!(parcel.take(), (message(length), at == 3));
    }
    assert_eq!(hostile.core.received(), 4);
    assert_eq!((hostile.core.poll_messages(), hostile.core.poll_event()), (None, None));

    Record::KeepAlive.encode(&mut plaintext);
    hostile.send_plain(&plaintext).unwrap();
    assert_eq!(hostile.core.poll_messages(), None);
    for length in lengths {
        assert_eq!(hostile.core.poll_event(), Some(Event::Message(message(length))));
    }
    assert_eq!(hostile.core.poll_event(), Some(Event::KeepAlive));

    // Half polled, it is not taken as a whole any more.
    hostile.send_plain(&plaintext[..plaintext.len() - block::HEADER]).unwrap();
    assert!(hostile.core.poll_event().is_some());
    assert_eq!(hostile.core.poll_messages(), None);
    assert_eq!(std::iter::from_fn(|| hostile.core.poll_event()).count(), 3);
    assert_eq!(hostile.core.received(), 12);
}

#[test]
fn a_call_stops_at_its_bound_and_the_next_goes_on() {
    let mut pair = accepted();
    pair.side(Initiator).queue.push_back(message(200_000));
    let first = pair.write(Initiator, 1).unwrap();
    assert_eq!((first.frames, first.messages_finished), (1, 0));
    assert_eq!(first.bytes, frame::MAX_FRAME);
    assert!(pair.side(Initiator).core.wants_seal());
    assert_eq!(pair.write(Initiator, 0).unwrap(), Sealed::default());
    let second = pair.write(Initiator, frame::MAX_FRAME + 1).unwrap();
    assert_eq!((second.frames, second.messages_finished), (2, 0));
    let third = pair.write(Initiator, usize::MAX).unwrap();
    assert_eq!((third.frames, third.messages_finished), (1, 1));
    assert!(!pair.side(Initiator).core.wants_seal());
    pair.settle().unwrap();
    assert_eq!(pair.side(Responder).messages(), [message(200_000)]);
}

#[test]
fn on_a_slow_link_frames_are_short_and_what_is_longer_goes_in_parts() {
    const AIM: usize = 2_000;
    let mut pair = accepted();
    pair.side(Initiator).core.aim_at(AIM);
    let messages = [message(100), message(10_000), message(AIM), message(1_000), message(900)];
    pair.side(Initiator).queue.extend(messages.clone());
    let mut frames = 0;
    loop {
        let sealed = pair.write(Initiator, 1).unwrap();
        if sealed.frames == 0 {
            break;
        }
        assert!(sealed.bytes <= frame::PREFIX + AIM + 16, "{} bytes", sealed.bytes);
        frames += 1;
    }
    assert!((8..=10).contains(&frames), "{frames} frames");
    pair.settle().unwrap();
    assert_eq!(pair.side(Responder).messages(), messages);
}

#[test]
fn a_message_for_which_no_room_is_left_stays_in_its_source() {
    for left in 0..block::HEADER {
        let mut pair = accepted();
        let fills = message(record::MAX_BODY - left);
        pair.side(Initiator).queue.extend([fills, message(0)]);
        pair.write(Initiator, 1).unwrap();
        assert_eq!(pair.side(Initiator).queue.len(), 1);
        assert!(!pair.side(Initiator).core.wants_seal());
    }
}

#[test]
fn control_goes_between_the_fragments_of_a_large_message() {
    let mut pair = accepted();
    pair.side(Initiator).queue.extend([message(200_000), message(3)]);
    pair.write(Initiator, 1).unwrap();
    pair.side(Initiator).core.keep_alive();
    let now = pair.now;
    pair.side(Initiator).core.ping(5, now);
    pair.write(Initiator, 1).unwrap();
    pair.read(Responder, usize::MAX).unwrap();
    assert_eq!(kinds(pair.side(Responder)), ["keep-alive"]);
    pair.settle().unwrap();
    assert_eq!(kinds(pair.side(Initiator)), ["pong"]);
    assert_eq!(pair.side(Responder).messages(), [message(200_000), message(3)]);
}

#[test]
fn a_small_message_waits_for_the_large_one_before_it() {
    let mut hostile = Hostile::accepted(|_| {});
    let frames = hostile.seal(&[message(70_000), message(3)]);
    assert_eq!(frames.len(), 2);
    let (_, length) = Record::decode(&frames[1]).unwrap();
    assert_eq!(frames[1][length], DATA);
}

#[test]
fn a_message_that_the_peer_does_not_take_is_an_error_and_is_not_written() {
    let mut pair = Pair::accepted(Suite::default(), |params| params.peer_max_message = 10);
    pair.side(Initiator).queue.push_back(message(11));
    let error = Err(ProtocolError::MessageTooLarge(11));
    assert_eq!(pair.write(Initiator, usize::MAX), error);
    assert_eq!(pair.write(Initiator, usize::MAX), error);
    assert!(pair.side(Responder).wire.is_empty());
}

#[test]
fn messages_over_our_limit_are_refused() {
    refuses(&[Record::Data(&[0; 1_001])], ProtocolError::MessageTooLarge(1_001));
    refuses(&[fragment(1_000, b"x")], ProtocolError::MessageTooLarge(1_001));
    refuses(&[fragment(u32::MAX, b"x")], ProtocolError::MessageTooLarge(u32::MAX));
    let mut hostile = Hostile::accepted(|params| params.max_message = 1_000);
    hostile.send(&[Record::Data(&[0; 1_000])]).unwrap();
    hostile.send(&[fragment(1, &[0; 999])]).unwrap();
    hostile.send(&[fragment(0, b"x")]).unwrap();
    assert_eq!(hostile.events().len(), 2);
}

#[test]
fn a_fragment_continues_its_message_exactly() {
    let order = ProtocolError::FragmentOrder;
    refuses(&[fragment(10, b"ab"), fragment(7, b"cd")], order);
    refuses(&[fragment(10, b"ab"), fragment(9, b"cd")], order);
    refuses(&[fragment(10, b"ab"), fragment(10, b"cd")], order);
    refuses(&[fragment(10, b"ab"), fragment(0, b"cd")], order);
    refuses(&[fragment(1, b"ab"), fragment(u32::MAX, b"c")], order);
    refuses(&[fragment(10, b"ab"), Record::Data(b"whole")], order);
    refuses(&[fragment(10, b"ab"), Record::Drain], order);
}

#[test]
fn a_frame_that_breaks_the_protocol_delivers_nothing() {
    let mut hostile = Hostile::accepted(|_| {});
    hostile.send(&[Record::Data(b"before")]).unwrap();
    hostile.send(&[Record::Data(b"within"), Record::Pong(1)]).unwrap_err();
    let before = Event::Message(Bytes::from_static(b"before"));
    assert_eq!(hostile.events(), [before]);
    assert_eq!(hostile.core.received(), 1);
}

#[test]
fn an_announced_size_costs_nothing_until_it_arrives() {
    let mut hostile = Hostile::accepted(|params| params.max_message = 1 << 24);
    let mut remaining = (1 << 24) - 1;
    hostile.send(&[fragment(remaining, b"x")]).unwrap();
    assert_eq!(hostile.events(), []);
    assert!(hostile.core.held() <= 2);
    for arrived in 2..=100 {
        remaining -= 1;
        hostile.send(&[fragment(remaining, b"x")]).unwrap();
        assert_eq!(hostile.events(), []);
        assert!(hostile.core.held() <= 2 * arrived);
    }
}

#[test]
fn a_small_message_does_not_keep_a_large_frame() {
    let padding = vec![0; 60_000];
    let padding = Record::Skippable { kind: 0xff, body: &padding };
    let mut hostile = Hostile::accepted(|_| {});
    hostile.send(&[Record::Data(b"small"), padding]).unwrap();
    hostile.send(&[padding, Record::Data(b"small")]).unwrap();
    for event in hostile.events() {
        let Event::Message(message) = event else {
            panic!("only messages came");
        };
        assert_eq!(message, "small");
        // Only a message that shares its memory with nothing can be taken back whole.
        let owned = message.try_into_mut().unwrap();
        assert_eq!(owned.capacity(), 5);
    }
    assert_eq!(hostile.core.held(), 0);
}

#[test]
fn messages_keep_no_memory_that_is_more_than_twice_theirs() {
    let padding = vec![0; 20_000];
    let padding = Record::Skippable { kind: 0xff, body: &padding };
    for (size, copied) in [(30_000, true), (33_000, false)] {
        // More than half of the frame, in memory that is larger than that.
        let body = message(size);
        let mut plaintext = Vec::new();
        [Record::Data(&body), padding].iter().for_each(|record| record.encode(&mut plaintext));
        let mut hostile = Hostile::accepted(|_| {});
        let mut sealed = Vec::new();
        frame::seal(&mut hostile.peer, &plaintext, &mut sealed).unwrap();
        let memory = |length| {
            let mut memory = Vec::with_capacity(1 << 16);
            memory.resize(length, 0);
            memory
        };
        hostile.core.open_in(&sealed[frame::PREFIX..], hostile.now, memory).unwrap();
        let Some(Event::Message(message)) = hostile.core.poll_event() else {
            panic!("a message came");
        };
        assert_eq!(message, body);
        assert_eq!(hostile.core.poll_event(), None);
        assert_eq!(message.try_into_mut().unwrap().capacity() == size, copied);
    }
}

#[test]
fn an_idle_session_holds_no_buffers() {
    let mut pair = accepted();
    for role in [Initiator, Responder] {
        pair.side(role).queue.extend([message(200_000), message(0), message(7)]);
    }
    pair.settle().unwrap();
    for role in [Initiator, Responder] {
        assert_eq!(pair.side(role).core.held(), 0);
        assert!(!pair.side(role).core.wants_seal());
    }
}
