//! The order, the cost and the memory of messages that wait to be sent.

use super::*;
use crate::proto::native::connection::ABILITIES;
use crate::proto::native::frame::MAX_PLAINTEXT;
use crate::proto::native::record::Record;
use crate::session::buffers::LARGEST_KEPT;

fn body(byte: u8, len: usize) -> Bytes {
    vec![byte; len].into()
}

/// Empties the buffer: the first byte of each message, and what all cost.
fn emptied(buffer: &mut SendBuffer, buffers: &BufferPool) -> (Vec<u8>, Reserved) {
    let (mut firsts, mut reserved) = (Vec::new(), Reserved::default());
    while let Some(entry) = buffer.queued.pop() {
        match entry {
            Entry::Packed(packed) => {
                let mut rest = packed.bytes();
                let mut messages = 0;
                while !rest.is_empty() {
                    let (record, length) = Record::decode(rest).unwrap();
                    let Record::Data(body) = record else { panic!("{record:?}") };
                    firsts.push(body[0]);
                    messages += 1;
                    rest = &rest[length..];
                }
                assert_eq!(packed.messages(), messages);
                reserved.add(packed.reserved());
                packed.give_back(buffers);
            }
            Entry::Message(message) => {
                firsts.push(message.body[0]);
                reserved.add(message.reserved());
            }
        }
    }
    (firsts, reserved)
}

#[test]
fn messages_of_every_kind_keep_their_order_and_who_paid_for_them() {
    let buffers = BufferPool::new(2);
    let mut buffer = SendBuffer::new(&ABILITIES);
    let later = Some(Instant::now());
    let (mut own, mut budget) = (0, 0);
    for number in 0..200_u8 {
        let kind = usize::from(number) % 7;
        let mut body = body(number, [1, 64, SMALL, SMALL + 1, 8, 9, 70_000][kind]);
        let cost = message_cost(body.len());
        let (quota, paid) = match number % 5 {
            0 => (Quota::Budget, &mut budget),
            _ => (Quota::Session, &mut own),
        };
        *paid += cost;
        let deadline = if kind == 5 { later } else { None };
        buffer.push(&mut body, deadline, quota, own + budget, &buffers);
        assert_eq!(body.is_empty(), matches!(kind, 3 | 5 | 6), "copied, or taken");
    }
    let (firsts, reserved) = emptied(&mut buffer, &buffers);
    assert_eq!(firsts, (0..200).collect::<Vec<u8>>());
    let mut expected = Reserved::of(Quota::Session, own);
    expected.add(Reserved::of(Quota::Budget, budget));
    assert_eq!(reserved, expected);
    assert!(buffer.queued.is_empty());
}

#[test]
fn packed_messages_take_at_most_the_memory_that_was_paid_for_and_fit_in_a_frame() {
    let buffers = BufferPool::new(2);
    // With 230 bytes each, a buffer of the buffers's is taken when little more than that is paid for.
    for len in [0, 1, 64, 230, SMALL] {
        buffers.give_write(Vec::with_capacity(LARGEST_KEPT));
        assert_eq!(buffers.spare(), (0, 1), "one that has grown lies ready");
        let mut buffer = SendBuffer::new(&ABILITIES);
        let mut paid = 0;
        // Even the shortest fill more than one frame.
        for _ in 0..25_000 {
            paid += message_cost(len);
            buffer.push(&mut body(7, len), None, Quota::Budget, paid, &buffers);
            let memory: usize = buffer.queued.entries.iter().map(memory).sum();
            assert!(memory <= 2 * paid + HEADER, "{memory} bytes of memory, {paid} paid");
        }
        assert!(buffer.queued.entries.iter().all(|entry| match entry {
            Entry::Packed(packed) => packed.bytes().len() + 16 <= MAX_PLAINTEXT,
            Entry::Message(_) => false,
        }));
    }
}

#[test]
fn an_empty_buffer_keeps_memory_for_a_few_and_gives_up_what_a_burst_needed() {
    let buffers = BufferPool::new(2);
    let mut buffer = SendBuffer::new(&ABILITIES);
    for (burst, kept) in [(LARGE_IDLE, true), (LARGE_IDLE + 1, false)] {
        for _ in 0..burst {
            buffer.push(&mut body(7, SMALL + 1), None, Quota::Session, 0, &buffers);
        }
        buffer.queued.shrink();
        assert!(buffer.queued.entries.capacity() >= burst, "they are still waiting");
        assert_eq!(emptied(&mut buffer, &buffers).0.len(), burst);
        buffer.queued.shrink();
        assert_eq!(buffer.queued.entries.capacity() >= burst, kept);
        assert_eq!(buffer.queued.entries.capacity() > 0, kept);
    }
}

fn memory(entry: &Entry) -> usize {
    match entry {
        Entry::Packed(packed) => packed.bytes.capacity(),
        Entry::Message(_) => 0,
    }
}
