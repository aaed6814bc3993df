//! Where a session's messages go while a caller holds it exclusively.
//!
//! Owns the messages that were diverted to the holder, within the session's own bound. It must never
//! lose or reorder one.

use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::base::sync::lock_std;

use super::queue::{ReceiveQueue, Size};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ExclusiveReceiver {
    state: Mutex<Exclusive>,
}

#[derive(Debug, Default)]
pub(super) struct Exclusive {
    /// A caller holds the session: messages come here.
    active: bool,
    messages: ReceiveQueue,
    bytes: usize,
    /// The driver has more, and is to be woken when there is room.
    full: bool,
    reader: Option<Waker>,
    ended: bool,
}

/// What a holder has received.
pub(crate) struct Received {
    /// None after the session has ended and all was read.
    pub(crate) message: Option<Bytes>,
    /// The driver has more, and there is room for it again.
    pub(crate) has_room: bool,
}

impl ExclusiveReceiver {
    /// Messages come here from now on.
    pub(crate) fn begin(&self) {
        self.lock().active = true;
    }

    /// Takes the next message, where there is room for `max` bytes.
    pub(crate) fn poll_recv(&self, max: usize, cx: &mut Context<'_>) -> Poll<Received> {
        // Declared before the guard: a waker is the application's, and is not dropped under the lock.
        let _replaced;
        let mut state = self.lock();
        let Some(message) = state.messages.pop() else {
            if state.ended {
                return Poll::Ready(Received { message: None, has_room: false });
            }
            _replaced = state.reader.replace(cx.waker().clone());
            return Poll::Pending;
        };
        state.bytes -= Size::of_message(&message).cost;
        // Not at the first free byte: each wake-up is to be worth it.
        let has_room = state.full && state.bytes <= max / 2;
        state.full &= !has_room;
        Poll::Ready(Received { message: Some(message), has_room })
    }

    /// Whether the driver has more than the holder has room for.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().full
    }

    /// Bytes that the holder has not read.
    pub(crate) fn undelivered(&self) -> usize {
        self.lock().bytes
    }

    /// The session has ended: the holder reads what is there, and then `None`.
    pub(crate) fn end(&self) {
        let reader = {
            let mut state = self.lock();
            state.ended = true;
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Exclusive> {
        lock_std(&self.state)
    }
}

impl Exclusive {
    pub(super) fn is_active(&self) -> bool {
        self.active
    }

    /// Takes messages from the front of `pending` that find room within `max` bytes; the reader to
    /// wake, if there was one for them.
    pub(super) fn take_from(&mut self, pending: &mut ReceiveQueue, max: usize) -> Option<Waker> {
        let bytes = self.bytes;
        let moved =
            pending.move_to(&mut self.messages, |moved, next| next.fits(bytes + moved.cost, max));
        self.bytes += moved.cost;
        self.full = !pending.is_empty();
        if moved.messages > 0 { self.reader.take() } else { None }
    }

    /// Messages do not come here any more; those that were not read, and the reader that waited.
    pub(super) fn stop(&mut self) -> (ReceiveQueue, Option<Waker>) {
        self.active = false;
        self.full = false;
        self.bytes = 0;
        (std::mem::take(&mut self.messages), self.reader.take())
    }
}
