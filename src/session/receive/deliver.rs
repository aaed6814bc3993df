//! Where a received message goes: to the inbox, or to the holder of the exclusive lease.
//!
//! Owns that choice, which is made under the holder's lock, so that no message passes another. It must
//! never drop one.

use crate::session::signal::CAPACITY;
use crate::session::state::Session;

use super::queue::ReceiveQueue;
use super::window::{Priority, max_draining};

impl Session {
    /// For the driver: delivers messages from the front of `pending`, as many as find room.
    pub(crate) fn deliver(&self, pending: &mut ReceiveQueue, priority: Priority) {
        let wakes = {
            let mut holder = self.receiver.lock();
            if holder.is_active() {
                let max = match priority {
                    Priority::Usual => self.context.settings.max_undelivered,
                    Priority::Draining => max_draining(&self.context.settings),
                    Priority::Ending => usize::MAX,
                };
                let mut wakes = self.context.inbox.leave(&self.window);
                wakes.reader = holder.take_from(pending, max);
                wakes
            } else {
                // Under the holder's lock: once the diversion has begun, what came before it is in
                // the inbox, and not on its way there.
                self.context.inbox.offer(&self.window, pending, priority)
            }
        };
        drop(wakes);
    }

    /// The exclusive lease has returned: what its holder did not read goes to the inbox, before
    /// anything that comes later.
    pub(crate) fn end_diversion(&self) {
        let wakes = {
            let mut holder = self.receiver.lock();
            let (unread, reader) = holder.stop();
            // Under the holder's lock: the driver's next messages must not pass these.
            let mut wakes = self.context.inbox.put_back(&self.window, unread);
            wakes.replaced = reader;
            wakes
        };
        drop(wakes);
        self.signal.set(CAPACITY);
    }
}
