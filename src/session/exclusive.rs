//! The exclusive lease: all leases of a session at once, and its received messages.
//!
//! Owns when the diversion of received messages to the holder begins and ends; where they go meanwhile
//! is [`receive`](super::receive)'s business. It must never exist beside another lease.

use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::base::error::CloseReason;

use super::lease::handle::{Lease, LeaseHandle};
use super::lease::waiter::LeaseWaiter;
use super::signal::CAPACITY;

/// All leases of a session: no other caller sends until it is dropped, and the session's messages come
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
        let waiter = LeaseWaiter::of(&core);
        // Not to hold the core while waiting: it would count as a lease.
        drop(core);
        let (lease, others) = waiter.wait_for_all().await?;
        let session = Arc::clone(lease.session());
        loop {
            let changed = session.changed.notified();
            if let Some(why) = session.retired() {
                return Err(why);
            }
            if session.leases.live() == 1 {
                break;
            }
            changed.await;
        }
        session.receiver.begin();
        // The driver may be paused for want of room in the inbox; the holder has some.
        session.signal.set(CAPACITY);
        Ok(Self { lease, _others: others })
    }

    /// The next message of this session; `None` after the session has ended and all was read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it returns, it has taken nothing.
    pub async fn recv(&mut self) -> Option<Bytes> {
        let session = self.lease.session();
        let max = session.context.settings.max_undelivered;
        let received = poll_fn(|cx| session.receiver.poll_recv(max, cx)).await;
        if received.has_room {
            session.signal.set(CAPACITY);
        }
        received.message
    }
}

impl Drop for ExclusiveLease {
    fn drop(&mut self) {
        self.lease.session().end_diversion();
    }
}
