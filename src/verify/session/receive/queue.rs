//! Sizes, order and memory of received messages that wait.

use super::*;
use crate::proto::native::record::Record;

fn one(byte: u8, len: usize) -> MessageBatch {
    MessageBatch::Message(vec![byte; len].into())
}

fn frame(bytes: std::ops::Range<u8>, len: usize) -> MessageBatch {
    let messages = bytes.len() as u32;
    let mut blocks = Vec::new();
    bytes.for_each(|byte| Record::Data(&vec![byte; len]).encode(&mut blocks));
    MessageBatch::Frame { blocks: blocks.into(), messages }
}

#[test]
fn what_is_taken_is_counted_and_what_is_left_stays_in_order() {
    for max in 0..=12 {
        let mut batches = ReceiveQueue::default();
        batches.push(one(0, 100));
        batches.push(frame(1..5, 30));
        batches.push(frame(5..9, 70));
        batches.push(one(9, 500));
        let all = batches.size();
        assert_eq!(all, Size { messages: 10, cost: 1_000 + 10 * MESSAGE_OVERHEAD });
        let (mut firsts, mut expected) = (Vec::new(), Size::default());
        let taken = batches.take(max, |message| {
            expected.add(Size::of_message(&message));
            firsts.push(message[0]);
        });
        assert_eq!((taken, taken.messages), (expected, max.min(10)));
        let mut sum = taken;
        sum.add(batches.size());
        assert_eq!(sum, all);
        firsts.extend(std::iter::from_fn(|| batches.pop()).map(|message| message[0]));
        assert_eq!(firsts, (0..10).collect::<Vec<u8>>());
        assert!(batches.is_empty());
    }
}

#[test]
fn memory_that_a_surge_needed_is_given_up_when_it_is_over() {
    for (surge, kept) in [(16, true), (17, false)] {
        let mut batches = ReceiveQueue::default();
        (0..surge).for_each(|_| batches.push(one(0, 1)));
        batches.shrink(16);
        assert_eq!(batches.len(), surge);
        batches.take(surge, drop);
        batches.shrink(16);
        assert_eq!(batches.0.capacity() >= surge, kept);
        assert_eq!(batches.0.capacity() > 0, kept);
    }
}
