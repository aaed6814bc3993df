//! The exclusive lease: all leases of a session at once, and its received messages.
//!
//! Owns the diversion of received messages to the holder. What the holder has not read when it lets
//! go goes to the inbox, before anything that comes later. It must never lose or reorder a message.

use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::base::error::CloseReason;

use super::Session;
use super::control::CAPACITY;
use super::inbox::{Priority, max_draining};
use super::lease::{Lease, LeaseHandle, LeaseWaiter};
use super::parcels::{ReceiveQueue, Size};

/// All leases of a session: nobody else sends until it is dropped, and the session's messages come
/// here instead of to the inbox.
///
/// What was not received when it is dropped goes to the inbox, in order. It sends as any [`Lease`].
pub struct ExclusiveLease {
    lease: Lease,
    /// The permits of all other leases. After `lease`: fields are dropped in order, and this one must
    /// not be counted any more when another is given out.
    _others: Option<OwnedSemaphorePermit>,
}

impl fmt::Debug for ExclusiveLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExclusiveLease").field("lease", &self.lease).finish()
    }
}

impl Deref for ExclusiveLease {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        &self.lease
    }
}

impl ExclusiveLease {
    /// Waits until all other leases of the session have returned: those of `core`, which has permits,
    /// by its permits; those of a core that it replaced, by that core's end. Cancel safe.
    ///
    /// # Errors
    ///
    /// Why the session was retired or has ended.
    pub(crate) async fn acquire(core: LeaseHandle) -> Result<Self, CloseReason> {
        debug_assert!(core.has_permits());
        let turn = LeaseWaiter::of(&core);
        // Not to hold the core while waiting: it would count as a lease.
        drop(core);
        let (lease, others) = turn.wait_for_all().await?;
        let session = Arc::clone(lease.session());
        loop {
            let changed = session.changed.notified();
            if let Some(why) = session.retired() {
                return Err(why);
            }
            if session.cores.live() == 1 {
                break;
            }
            changed.await;
        }
        session.holder.begin();
        Ok(Self { lease, _others: others })
    }

    /// The next message of this session; `None` after the session has ended and all was read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it returns, it has taken nothing.
    pub async fn recv(&mut self) -> Option<Bytes> {
        let session = self.lease.session();
        poll_fn(|cx| {
            let (message, room) = {
                let mut state = session.holder.lock();
                let Some(message) = state.messages.pop() else {
                    if state.ended {
                        return Poll::Ready(None);
                    }
                    state.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                };
                state.bytes -= Size::of_message(&message).cost;
                let max = session.shared.settings.max_undelivered;
                // Not at the first free byte: each wake-up is to be worth it.
                let room = state.full && state.bytes <= max / 2;
                state.full &= !room;
                (message, room)
            };
            if room {
                session.control.set(CAPACITY);
            }
            Poll::Ready(Some(message))
        })
        .await
    }
}

impl Drop for ExclusiveLease {
    fn drop(&mut self) {
        self.lease.session().end_diversion();
    }
}

/// Where a session's messages go while somebody holds it exclusively.
#[derive(Debug, Default)]
pub(super) struct ExclusiveReceiver {
    state: Mutex<Exclusive>,
}

#[derive(Debug, Default)]
struct Exclusive {
    active: bool,
    messages: ReceiveQueue,
    bytes: usize,
    /// The driver has more, and is to be told when there is room.
    full: bool,
    reader: Option<Waker>,
    ended: bool,
}

impl ExclusiveReceiver {
    /// Whether the driver has more than the holder has room for.
    pub(super) fn is_full(&self) -> bool {
        self.lock().full
    }

    fn begin(&self) {
        self.lock().active = true;
    }

    pub(super) fn undelivered(&self) -> usize {
        self.lock().bytes
    }

    /// The session has ended: the holder reads what is there, and then `None`.
    pub(super) fn end(&self) {
        let reader = {
            let mut state = self.lock();
            state.ended = true;
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Exclusive> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// For the driver: hands messages from the front of `pending` to whoever is to have them, as many
    /// as find room.
    pub(super) fn deliver(&self, pending: &mut ReceiveQueue, priority: Priority) {
        let reader = {
            let mut state = self.holder.lock();
            if !state.active {
                // Under the holder's lock: once the diversion has begun, what came before it is in
                // the inbox, and not on its way there.
                self.shared.inbox.offer(&self.window, pending, priority);
                return;
            }
            let max = match priority {
                Priority::Usual => self.shared.settings.max_undelivered,
                Priority::Draining => max_draining(&self.shared.settings),
                Priority::Ending => usize::MAX,
            };
            self.shared.inbox.leave(&self.window);
            let bytes = state.bytes;
            let moved = pending
                .move_to(&mut state.messages, |moved, next| next.fits(bytes + moved.cost, max));
            state.bytes += moved.cost;
            state.full = !pending.is_empty();
            if moved.messages > 0 { state.reader.take() } else { None }
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn end_diversion(&self) {
        {
            let mut state = self.holder.lock();
            state.active = false;
            state.full = false;
            state.bytes = 0;
            state.reader = None;
            let unread = std::mem::take(&mut state.messages);
            // Under the holder's lock: the driver's next messages must not pass these.
            self.shared.inbox.put_back(&self.window, unread);
        }
        self.control.set(CAPACITY);
    }
}
