//! What pays for the messages that all sessions of a pool have queued.
//!
//! Owns the pool's budget of queued bytes, and the memory in which small messages are packed. It knows
//! no session: each has a reserve of its own beside this.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use crate::base::metrics::LimitUse;
use crate::session::buffers::BufferPool;

/// See the module.
#[derive(Debug)]
pub(crate) struct SendBudget {
    /// One for each byte of `max_buffered_bytes`.
    pub(crate) permits: Semaphore,
    pub(crate) buffers: Arc<BufferPool>,
    max: usize,
    /// The most that was ever taken, in bytes.
    high_water: AtomicUsize,
}

impl SendBudget {
    pub(crate) fn new(max: usize, buffers: Arc<BufferPool>) -> Self {
        let permits = Semaphore::new(max);
        Self { permits, buffers, max, high_water: AtomicUsize::new(0) }
    }

    /// What is taken, and was at most.
    pub(crate) fn limit_use(&self) -> LimitUse {
        let held = self.note_use();
        LimitUse {
            held: held as u64,
            high_water: self.high_water.load(Ordering::Relaxed).max(held) as u64,
            limit: self.max as u64,
        }
    }

    /// Notes what is taken. Called before anything is given back, where a peak ends.
    pub(crate) fn note_use(&self) -> usize {
        let held = self.max.saturating_sub(self.permits.available_permits());
        self.high_water.fetch_max(held, Ordering::Relaxed);
        held
    }
}
