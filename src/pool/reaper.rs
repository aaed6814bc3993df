//! Expiry of sessions for want of use.
//!
//! Owns the one task that watches idle time, and the coarse clock by which leases mark their use. It
//! sleeps while there is nothing to expire, and when the pool's last session has ended it ends the
//! inbox and the subscriptions. (Age is watched by each session's own driver.)

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::base::error::CloseReason;
use crate::pool::context::Context;
use crate::pool::lifecycle::Lifecycle;
use crate::pool::sessions::SessionTable;

/// The coarse clock ticks this often per `max_idle`: a session that was only leased, and carried no
/// data, is kept for at most 1/64 less than it should be.
const TICKS_PER_IDLE: u32 = 64;
/// No finer: below it a tick would cost more than it tells.
const MIN_TICK: Duration = Duration::from_millis(10);
/// No coarser: eviction compares sessions by it.
const MAX_TICK: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Reaper {
    ctx: Arc<Context>,
    lifecycle: Arc<Lifecycle>,
    sessions: Arc<SessionTable>,
}

/// How far a round of expiry came.
enum Expired {
    All,
    AsManyAsMayDrain,
}

impl Reaper {
    pub(crate) fn new(
        ctx: Arc<Context>,
        lifecycle: Arc<Lifecycle>,
        sessions: Arc<SessionTable>,
    ) -> Self {
        Self { ctx, lifecycle, sessions }
    }

    /// Starts the pool's own task: the watch, and then the end. Where nothing expires for want of use,
    /// the watch keeps the clock for eviction.
    pub(crate) fn spawn(self) {
        let lifecycle = self.lifecycle.clone();
        let guard = EndGuard { ctx: self.ctx.clone(), sessions: self.sessions.clone() };
        self.lifecycle.clone().spawn_service(async move {
            tokio::select! {
                biased;
                () = lifecycle.running().cancelled() => {}
                () = self.watch_idle(self.ctx.settings.max_idle) => {}
            }
            lifecycle.work_done().await;
            drop(guard);
        });
    }

    async fn watch_idle(&self, max_idle: Option<Duration>) {
        let sessions = &self.sessions;
        let tick = max_idle
            .map_or(MAX_TICK, |max_idle| (max_idle / TICKS_PER_IDLE).clamp(MIN_TICK, MAX_TICK));
        loop {
            let (appeared, ended) = (sessions.appeared.notified(), sessions.ended.notified());
            let now = Instant::now();
            sessions.shared.tick(now);
            let expired = match max_idle {
                Some(max_idle) => self.expire_idle(max_idle, now),
                None => Expired::All,
            };
            match (expired, sessions.idle.oldest()) {
                (_, None) => appeared.await,
                // No session that was last used at `oldest` or later is due sooner.
                (Expired::All, Some(oldest)) => {
                    let due = max_idle.map_or(now + tick, |max_idle| oldest + max_idle);
                    sleep_until(due.clamp(now, now + tick)).await;
                }
                (Expired::AsManyAsMayDrain, Some(_)) => tokio::select! {
                    biased;
                    () = ended => {}
                    () = sleep_until(now + tick) => {}
                },
            }
        }
    }

    fn expire_idle(&self, max_idle: Duration, now: Instant) -> Expired {
        let Some(cutoff) = now.checked_sub(max_idle) else { return Expired::All };
        loop {
            // Expiry can wait; to cut a session that drains could lose what is under way on it.
            if self.sessions.draining.is_full() {
                return Expired::AsManyAsMayDrain;
            }
            let Some(session) = self.sessions.idle.take_expired(cutoff, now) else {
                return Expired::All;
            };
            self.sessions.take_unused(&session, CloseReason::Idle);
        }
    }
}

/// Ends the inbox and the subscriptions: after the last session, so that what it brought is in them,
/// and also when the runtime drops the task.
struct EndGuard {
    ctx: Arc<Context>,
    sessions: Arc<SessionTable>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.sessions.shared.inbox.close();
        self.ctx.events.end();
    }
}
