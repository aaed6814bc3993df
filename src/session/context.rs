//! What all sessions of one pool share.
//!
//! Owns the inbox's sender, what pays for queued messages, the buffers, memory for leases, the coarse
//! clock by which leases mark their use, and the wake-up of the waiters for an idle session.
//! It must never know a session: `C` is the core of its leases.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::base::config::Settings;
use crate::base::metrics::LimitUse;

use super::buffers::BufferPool;
use super::lease::slab::Slab;
use super::receive::inbox;
use super::receive::inbox::{Inbox, InboxSender};
use super::send::budget::SendBudget;

/// See the module.
pub(crate) struct Context<C> {
    pub(crate) settings: Arc<Settings>,
    pub(super) budget: Arc<SendBudget>,
    pub(crate) inbox: InboxSender,
    pub(super) buffers: Arc<BufferPool>,
    pub(super) slab: Slab<C>,
    epoch: Instant,
    /// The coarse clock: milliseconds since `epoch`, as of the last [`tick`](Self::tick).
    ticks: AtomicU64,
    /// How many callers wait for a session to fall idle.
    idle_wanted: AtomicUsize,
    /// Notified when a session may have fallen idle, while a caller waits for that.
    idle: Notify,
}

/// A caller waits for sessions to fall idle; until it is dropped.
#[derive(Debug)]
pub(crate) struct IdleWanted<'a>(&'a AtomicUsize);

impl Drop for IdleWanted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<C> fmt::Debug for Context<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl<C: Default> Context<C> {
    /// The context of a new pool, and its inbox.
    pub(crate) fn new(settings: Arc<Settings>) -> (Arc<Self>, Inbox) {
        let (sender, inbox) = inbox::inbox(&settings);
        let buffers = Arc::new(BufferPool::new(settings.max_retained_buffers));
        let context = Arc::new(Self {
            budget: Arc::new(SendBudget::new(settings.max_buffered_bytes, Arc::clone(&buffers))),
            inbox: sender,
            buffers,
            slab: Slab::default(),
            epoch: Instant::now(),
            ticks: AtomicU64::new(0),
            idle_wanted: AtomicUsize::new(0),
            idle: Notify::new(),
            settings,
        });
        (context, inbox)
    }

    /// Advances the coarse clock by which leases mark their use. A mark may be as old as the last
    /// tick: a judge of idle time ticks at least as often as that error may be long. Drivers tick too,
    /// whenever they have read the clock anyway.
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

    /// From now on [`fell_idle`](Self::fell_idle) is notified of every session that falls idle.
    pub(crate) fn want_idle(&self) -> IdleWanted<'_> {
        self.idle_wanted.fetch_add(1, Ordering::Relaxed);
        IdleWanted(&self.idle_wanted)
    }

    #[inline]
    pub(super) fn idle_wanted(&self) -> bool {
        self.idle_wanted.load(Ordering::Relaxed) > 0
    }

    /// The next time that any session may have fallen idle. One waiter is notified, not all: it looks at
    /// every session, and when it has found one or needs none any more, it notifies the next waiter by
    /// [`note_idle`](Self::note_idle).
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
        self.budget.limit_use()
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
