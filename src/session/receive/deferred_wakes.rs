//! Tasks to wake and wakers to drop once the locks are free.
//!
//! Owns the wake-ups that a change of the inbox or of a holder's messages calls for. The reader's waker
//! is the application's, and may do anything: it is neither woken nor dropped under a lock. A
//! value is declared before the guard of the lock, so that it is dropped after it.

use std::sync::Arc;
use std::task::Waker;

use super::window::ReceiveWindow;

/// See the module.
#[derive(Default)]
#[must_use = "it wakes when it is dropped: after the locks"]
pub(crate) struct DeferredWakes {
    /// There is something to read.
    pub(super) reader: Option<Waker>,
    /// Waits no longer.
    pub(super) replaced: Option<Waker>,
    /// There may be room.
    pub(super) drivers: Vec<Arc<ReceiveWindow>>,
    /// Handles of sessions that have nothing in the inbox any more; the first needs no allocation.
    gone: Option<Arc<ReceiveWindow>>,
    more_gone: Vec<Arc<ReceiveWindow>>,
}

impl DeferredWakes {
    pub(super) fn push_gone(&mut self, window: Arc<ReceiveWindow>) {
        match self.gone {
            None => self.gone = Some(window),
            Some(_) => self.more_gone.push(window),
        }
    }
}

impl Drop for DeferredWakes {
    fn drop(&mut self) {
        for window in &self.drivers {
            window.wake();
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}
