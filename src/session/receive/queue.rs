//! Received messages, in order, from the driver to whoever takes them.
//!
//! Owns what they cost where they wait. What came in one frame moves as one where all of it has room.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::base::config::MESSAGE_OVERHEAD;
use crate::proto::native::parcel::MessageBatch;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ReceiveQueue(VecDeque<MessageBatch>);

/// Messages, and what they cost, bookkeeping included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) messages: usize,
    pub(super) cost: usize,
}

impl Size {
    pub(super) fn of_message(message: &Bytes) -> Self {
        Self { messages: 1, cost: message.len() + MESSAGE_OVERHEAD }
    }

    fn of(parcel: &MessageBatch) -> Self {
        let messages = parcel.messages();
        Self { messages, cost: parcel.bytes() + messages * MESSAGE_OVERHEAD }
    }

    fn of_first(parcel: &MessageBatch) -> Self {
        Self { messages: 1, cost: parcel.first_bytes() + MESSAGE_OVERHEAD }
    }

    /// Whether all of it has room beside `held` bytes where there is room for `max`. One message has
    /// room where nothing is, however large it is.
    pub(super) fn fits(self, held: usize, max: usize) -> bool {
        held + self.cost <= max || (held == 0 && self.messages == 1)
    }

    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.cost += other.cost;
    }
}

impl ReceiveQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// ReceiveQueue, not messages.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn load(&self) -> Size {
        let mut load = Size::default();
        self.0.iter().for_each(|parcel| load.add(Size::of(parcel)));
        load
    }

    pub(super) fn push(&mut self, parcel: MessageBatch) {
        self.0.push_back(parcel);
    }

    pub(super) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Takes the first message.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let (message, last) = self.0.front_mut()?.take();
        if last {
            self.0.pop_front();
        }
        Some(message)
    }

    /// Gives the first `max` messages to `each`, or all if there are less.
    #[inline]
    pub(super) fn take(&mut self, max: usize, mut each: impl FnMut(Bytes)) -> Size {
        let mut taken = Size::default();
        while taken.messages < max
            && let Some(parcel) = self.0.front_mut()
        {
            let (message, last) = parcel.take();
            if last {
                self.0.pop_front();
            }
            taken.add(Size::of_message(&message));
            each(message);
        }
        taken
    }

    /// Moves messages to the end of `to` for as long as `fits` says so of what has been moved and what
    /// is next: all of a frame, or if that does not fit its first message.
    pub(super) fn move_to(
        &mut self,
        to: &mut Self,
        mut fits: impl FnMut(Size, Size) -> bool,
    ) -> Size {
        let mut moved = Size::default();
        while let Some(parcel) = self.0.front() {
            let (all, first) = (Size::of(parcel), Size::of_first(parcel));
            if fits(moved, all) {
                moved.add(all);
                to.0.extend(self.0.pop_front());
            } else if fits(moved, first) {
                moved.add(first);
                to.0.extend(self.pop().map(MessageBatch::Message));
            } else {
                break;
            }
        }
        moved
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Empty, it keeps memory for `max` parcels at most.
    #[inline]
    pub(super) fn slim(&mut self, max: usize) {
        if self.0.is_empty() && self.0.capacity() > max {
            self.0 = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::native::record::Record;

    fn one(byte: u8, len: usize) -> MessageBatch {
        MessageBatch::Message(vec![byte; len].into())
    }

    fn frame(bytes: std::ops::Range<u8>, len: usize) -> MessageBatch {
        let messages = bytes.len() as u32;
        let mut records = Vec::new();
        bytes.for_each(|byte| Record::Data(&vec![byte; len]).encode(&mut records));
        MessageBatch::Frame { records: records.into(), messages }
    }

    #[test]
    fn what_is_taken_is_counted_and_what_is_left_stays_in_order() {
        for max in 0..=12 {
            let mut parcels = ReceiveQueue::default();
            parcels.push(one(0, 100));
            parcels.push(frame(1..5, 30));
            parcels.push(frame(5..9, 70));
            parcels.push(one(9, 500));
            let all = parcels.load();
            assert_eq!(all, Size { messages: 10, cost: 1_000 + 10 * MESSAGE_OVERHEAD });
            let (mut firsts, mut expected) = (Vec::new(), Size::default());
            let taken = parcels.take(max, |message| {
                expected.add(Size::of_message(&message));
                firsts.push(message[0]);
            });
            assert_eq!((taken, taken.messages), (expected, max.min(10)));
            let mut sum = taken;
            sum.add(parcels.load());
            assert_eq!(sum, all);
            firsts.extend(std::iter::from_fn(|| parcels.pop()).map(|message| message[0]));
            assert_eq!(firsts, (0..10).collect::<Vec<u8>>());
            assert!(parcels.is_empty());
        }
    }

    #[test]
    fn memory_that_a_surge_needed_is_given_up_when_it_is_over() {
        for (surge, kept) in [(16, true), (17, false)] {
            let mut parcels = ReceiveQueue::default();
            (0..surge).for_each(|_| parcels.push(one(0, 1)));
            parcels.slim(16);
            assert_eq!(parcels.len(), surge);
            parcels.take(surge, drop);
            parcels.slim(16);
            assert_eq!(parcels.0.capacity() >= surge, kept);
            assert_eq!(parcels.0.capacity() > 0, kept);
        }
    }
}
