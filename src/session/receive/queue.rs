//! Received messages, in order, from the driver to the receiver.
//!
//! Owns what they cost where they wait. What came in one frame moves as one where all of it has room.
//! It must never reorder them.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::base::config::{MESSAGE_OVERHEAD, message_cost};
use crate::proto::wire::batch::MessageBatch;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ReceiveQueue(VecDeque<MessageBatch>);

/// Messages, and what they cost, bookkeeping included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) messages: usize,
    pub(crate) cost: usize,
}

impl Size {
    pub(crate) fn of_message(message: &Bytes) -> Self {
        Self { messages: 1, cost: message_cost(message.len()) }
    }

    fn of(batch: &MessageBatch) -> Self {
        let messages = batch.messages();
        Self { messages, cost: batch.bytes() + messages * MESSAGE_OVERHEAD }
    }

    fn of_first(batch: &MessageBatch) -> Self {
        Self { messages: 1, cost: message_cost(batch.first_bytes()) }
    }

    /// Whether all of it has room beside `held` bytes where there is room for `max`. One message has
    /// room where nothing is, however large it is.
    pub(crate) fn fits(self, held: usize, max: usize) -> bool {
        held + self.cost <= max || (held == 0 && self.messages == 1)
    }

    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.cost += other.cost;
    }
}

impl ReceiveQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Batches, not messages.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn size(&self) -> Size {
        let mut size = Size::default();
        self.0.iter().for_each(|batch| size.add(Size::of(batch)));
        size
    }

    pub(crate) fn push(&mut self, batch: MessageBatch) {
        self.0.push_back(batch);
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Takes the first message.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let (message, last) = self.0.front_mut()?.take();
        if last {
            self.0.pop_front();
        }
        Some(message)
    }

    /// Gives the first `max` messages to `each`, or all if there are less.
    #[inline]
    pub(crate) fn take(&mut self, max: usize, mut each: impl FnMut(Bytes)) -> Size {
        let mut taken = Size::default();
        while taken.messages < max
            && let Some(batch) = self.0.front_mut()
        {
            let (message, last) = batch.take();
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
    pub(crate) fn move_to(
        &mut self,
        to: &mut Self,
        mut fits: impl FnMut(Size, Size) -> bool,
    ) -> Size {
        let mut moved = Size::default();
        while let Some(batch) = self.0.front() {
            let (all, first) = (Size::of(batch), Size::of_first(batch));
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

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Empty, it keeps memory for `max` batches at most.
    #[inline]
    pub(crate) fn shrink(&mut self, max: usize) {
        if self.0.is_empty() && self.0.capacity() > max {
            self.0 = VecDeque::new();
        }
    }
}

#[cfg(test)]
#[path = "../../verify/session/receive/queue.rs"]
mod tests;
