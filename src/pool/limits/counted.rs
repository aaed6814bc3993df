//! Limits that count by permits.
//!
//! Owns [`CountedLimit`] and [`Permit`]. What is held is what permits exist: a permit gives its room back when
//! it is dropped, so that neither cancellation nor a panic can leak it, and no counter can drift.
//! Nothing here may hand out more than the limit, not for a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::metrics::LimitUse;

/// A limit, what it holds, and the most that it ever held.
///
/// Clones share one limit.
#[derive(Clone)]
pub(crate) struct CountedLimit(Arc<Shared>);

struct Shared {
    /// The room that is left; waiters queue here, first come first served.
    room: Arc<Semaphore>,
    limit: usize,
    /// Permits that exist. Raised after the room is taken and lowered before it is given back, so
    /// that it never shows more than what is really held.
    held: AtomicUsize,
    high_water: AtomicUsize,
}

impl CountedLimit {
    /// A limit that holds nothing. A limit of zero gives no permit.
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Shared {
            room: Arc::new(Semaphore::new(limit)),
            limit,
            held: AtomicUsize::new(0),
            high_water: AtomicUsize::new(0),
        }))
    }

    /// A permit, if there is room that no caller waits for.
    pub(crate) fn try_acquire(&self) -> Option<Permit> {
        let room = Arc::clone(&self.0.room).try_acquire_owned().ok()?;
        Some(Permit::new(&self.0, room))
    }

    /// A permit, when it is this caller's turn; `None` once the limit is closed.
    ///
    /// # Cancel safety
    ///
    /// A caller that is dropped loses its place; those behind it move up.
    pub(crate) async fn acquire(&self) -> Option<Permit> {
        let room = Arc::clone(&self.0.room).acquire_owned().await.ok()?;
        Some(Permit::new(&self.0, room))
    }

    /// Gives no more permits, and wakes all callers that wait. Permits that are out stay good.
    pub(crate) fn close(&self) {
        self.0.room.close();
    }

    /// What is held now.
    pub(crate) fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// What is held, was held at most, and may be held.
    pub(crate) fn snapshot(&self) -> LimitUse {
        let held = self.held();
        // A permit that is being made counts as held a moment before it raises the mark.
        let high_water = self.0.high_water.load(Ordering::Relaxed).max(held);
        LimitUse { held: held as u64, high_water: high_water as u64, limit: self.0.limit as u64 }
    }
}

/// Room for one; given back on drop.
#[must_use = "a permit gives its room back when it is dropped"]
pub(crate) struct Permit {
    _held: Held,
    // After `_held`: fields are dropped in order, and the count must fall before the room is free.
    _room: OwnedSemaphorePermit,
}

impl Permit {
    fn new(inner: &Arc<Shared>, room: OwnedSemaphorePermit) -> Self {
        let held = inner.held.fetch_add(1, Ordering::Relaxed) + 1;
        inner.high_water.fetch_max(held, Ordering::Relaxed);
        Self { _held: Held(Arc::clone(inner)), _room: room }
    }
}

/// One in the count of what is held.
struct Held(Arc<Shared>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "../../verify/pool/limits/counted.rs"]
mod tests;
