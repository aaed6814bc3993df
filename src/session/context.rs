//! What all sessions of one pool share.
//!
//! Owns the budget of queued bytes, the inbox's sender, the stock of buffers, the coarse clock by which
//! leases mark their use, and the wake-up of those who wait for a session to fall idle. It knows no
//! session.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::base::config::Settings;
use crate::base::metrics::LimitUse;

use super::inbox::{self, Inbox, InboxSender};
use super::slab::LeaseSlab;
use super::stock::BufferPool;

/// What all sessions of one pool share.
pub(crate) struct Shared {
    pub(crate) settings: Arc<Settings>,
    /// `max_buffered_bytes`: pays for what sessions queue beyond their own reserve.
    pub(crate) budget: Semaphore,
    pub(crate) inbox: InboxSender,
    pub(super) stock: Arc<BufferPool>,
    pub(super) slab: LeaseSlab,
    epoch: Instant,
    /// The coarse clock: milliseconds since `epoch`, as of the last [`tick`](Self::tick).
    ticks: AtomicU64,
    /// How many callers wait for a session to fall idle.
    idle_wanted: AtomicUsize,
    /// Told when a session may have fallen idle, while somebody wants to know.
    idle: Notify,
    /// The most that was ever taken from `budget`, in bytes.
    max_buffered: AtomicUsize,
}

/// Somebody wants to be told when sessions fall idle; until it is dropped.
#[derive(Debug)]
pub(crate) struct IdleWanted<'a>(&'a Shared);

impl Drop for IdleWanted<'_> {
    fn drop(&mut self) {
        self.0.idle_wanted.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// The shared parts of a new pool, and its inbox.
    pub(crate) fn new(settings: Arc<Settings>) -> (Arc<Self>, Inbox) {
        let (sender, inbox) = inbox::inbox(&settings);
        let shared = Arc::new(Self {
            budget: Semaphore::new(settings.max_buffered_bytes),
            inbox: sender,
            stock: Arc::new(BufferPool::new(settings.max_retained_buffers)),
            slab: LeaseSlab::default(),
            epoch: Instant::now(),
            ticks: AtomicU64::new(0),
            idle_wanted: AtomicUsize::new(0),
            idle: Notify::new(),
            max_buffered: AtomicUsize::new(0),
            settings,
        });
        (shared, inbox)
    }

    /// Advances the coarse clock by which leases mark their use. A mark may be as old as the last
    /// tick, so whoever judges idle time ticks at least as often as that error may be long. Drivers
    /// tick too, whenever they have read the clock anyway.
    pub(crate) fn tick(&self, now: Instant) {
        let now = self.millis(now);
        if now > self.ticks.load(Ordering::Relaxed) {
            self.ticks.store(now, Ordering::Relaxed);
        }
    }

    /// The coarse clock.
    #[inline]
    pub(super) fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// From now on [`fell_idle`](Self::fell_idle) is told of every session that falls idle.
    pub(crate) fn want_idle(&self) -> IdleWanted<'_> {
        self.idle_wanted.fetch_add(1, Ordering::Relaxed);
        IdleWanted(self)
    }

    #[inline]
    pub(super) fn idle_wanted(&self) -> bool {
        self.idle_wanted.load(Ordering::Relaxed) > 0
    }

    /// The next session, whichever, that may have fallen idle since the last time that somebody was
    /// told. One of those who wait is told, not all: it looks at every session, and who finds one or
    /// needs none any more tells the next by [`note_idle`](Self::note_idle).
    pub(crate) fn fell_idle(&self) -> Notified<'_> {
        self.idle.notified()
    }

    /// A session may have fallen idle.
    pub(crate) fn note_idle(&self) {
        if self.idle_wanted() {
            self.idle.notify_one();
        }
    }

    /// What is queued beyond the sessions' own reserves, in bytes.
    pub(crate) fn buffered(&self) -> LimitUse {
        let held = self.note_buffered();
        LimitUse {
            held: held as u64,
            high_water: self.max_buffered.load(Ordering::Relaxed).max(held) as u64,
            limit: self.settings.max_buffered_bytes as u64,
        }
    }

    /// Notes what is taken from the budget. Called before anything is given back, where a peak ends.
    pub(super) fn note_buffered(&self) -> usize {
        let held = self.settings.max_buffered_bytes.saturating_sub(self.budget.available_permits());
        self.max_buffered.fetch_max(held, Ordering::Relaxed);
        held
    }

    /// What the inbox holds, in bytes.
    pub(crate) fn inbox_use(&self) -> LimitUse {
        let inbox = self.inbox.gauge();
        LimitUse {
            held: inbox.held as u64,
            high_water: inbox.high_water as u64,
            limit: self.settings.inbox_bytes as u64,
        }
    }

    pub(super) fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn instant(&self, millis: u64) -> Instant {
        self.epoch + Duration::from_millis(millis)
    }
}
