//! What a machine that was suspended does when it goes on.
//!
//! Owns how that is noticed: the monotonic clock stands still meanwhile on most systems and the wall clock
//! does not, so that all sessions look younger than they are. Nobody has heard of them since. Each is then
//! probed before it is handed out, and those of kept peers are probed at once. A wall clock that is put
//! ahead looks the same, and costs a ping each. It must never end a session itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::info;

use crate::pool::context::Context;
use crate::pool::lifecycle::Lifecycle;
use crate::pool::sessions::SessionTable;

/// How often the clocks are compared: for so long after the machine goes on, a session may be handed out
/// that has not been probed.
const EVERY: Duration = Duration::from_secs(2);

/// Clocks that part by less were set by hand, or by NTP.
const TOLERATED: u64 = 5;

/// See the module.
pub(crate) struct SuspendWatch {
    ctx: Arc<Context>,
    sessions: Arc<SessionTable>,
}

impl SuspendWatch {
    pub(crate) fn new(ctx: Arc<Context>, sessions: Arc<SessionTable>) -> Self {
        Self { ctx, sessions }
    }

    /// Starts the watch.
    pub(crate) fn spawn(self, lifecycle: &Lifecycle) {
        lifecycle.spawn_watch(async move { self.watch().await });
    }

    /// The clock may be the application's: if it panics, it says nothing this once.
    fn unix_seconds(&self) -> Option<u64> {
        let clock = &self.ctx.settings.wall_clock;
        catch_unwind(AssertUnwindSafe(|| clock.unix_seconds())).ok()
    }

    async fn watch(&self) {
        let mut last = None;
        loop {
            self.sessions.any().await;
            if let Some(wall) = self.unix_seconds() {
                let now = Instant::now();
                if let Some((wall_then, then)) = last.replace((wall, now)) {
                    self.compare(wall.saturating_sub(wall_then), now - then);
                }
            }
            sleep(EVERY).await;
        }
    }

    /// So many seconds have passed by the wall clock, and so much by the monotonic one.
    fn compare(&self, wall: u64, monotonic: Duration) {
        let slept = wall.saturating_sub(monotonic.as_secs());
        if slept > TOLERATED {
            info!(seconds = slept, "the machine was suspended, or its clock was put ahead");
            self.sessions.doubt_all();
        }
    }
}
