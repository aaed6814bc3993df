//! Messages that a session had accepted, and that have certainly not been delivered.
//!
//! Owns them, in order, and what they have paid, from the end of the one session to the queue of the
//! next. Dropped, they are lost and their room in the budget is free. It runs code of the application
//! then, so it must not be dropped under a lock.

use std::sync::Arc;

use super::budget::SendBudget;
use super::buffer::{Entry, QueuedMessages};
use super::quota::Reserved;

/// See the module.
#[derive(Debug)]
pub(crate) struct Unsent {
    budget: Arc<SendBudget>,
    queued: QueuedMessages,
    messages: u64,
    reserved: Reserved,
}

impl Unsent {
    /// These messages, which have paid from this budget.
    pub(crate) fn new(budget: &Arc<SendBudget>, queued: QueuedMessages) -> Self {
        let (mut messages, mut reserved) = (0, Reserved::default());
        for entry in queued.iter() {
            messages += entry.messages();
            reserved.add(entry.reserved());
        }
        Self { budget: Arc::clone(budget), queued, messages, reserved }
    }

    /// How many there are.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    pub(crate) fn reserved(&self) -> Reserved {
        self.reserved
    }

    /// Adds these behind.
    pub(crate) fn append(&mut self, mut later: Self) {
        self.messages += std::mem::take(&mut later.messages);
        self.reserved.add(std::mem::take(&mut later.reserved));
        self.queued.append(std::mem::take(&mut later.queued));
    }

    /// Takes out those that are longer than `max_message`, if there are any.
    pub(crate) fn split_longer(&mut self, max_message: usize) -> Option<Self> {
        // Packed messages are small. Where a peer takes not even such, none of them is looked at.
        let fits = |entry: &Entry| match entry {
            Entry::Message(message) => message.body.len() <= max_message,
            Entry::Packed(packed) => packed.longest() <= max_message,
        };
        if self.queued.iter().all(fits) {
            return None;
        }
        let longer = Self::new(&self.budget, self.queued.split_off(fits));
        self.messages -= longer.messages;
        self.reserved.subtract(longer.reserved);
        Some(longer)
    }

    /// The messages, for a queue that takes over what they have paid.
    pub(super) fn into_queue(mut self) -> QueuedMessages {
        self.reserved = Reserved::default();
        std::mem::take(&mut self.queued)
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        let Reserved { budget, .. } = std::mem::take(&mut self.reserved);
        if budget > 0 {
            self.budget.note_use();
            self.budget.permits.add_permits(budget);
        }
    }
}
