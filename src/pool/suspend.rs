//! What a machine that was suspended does when it goes on.
//!
//! Owns how that is noticed: the monotonic clock stands still meanwhile on most systems and the wall clock
//! does not, so that all sessions look younger than they are. Nobody has heard of them since. Each is then
//! probed before it is handed out, and those of kept peers are probed at once. A wall clock that is put
//! ahead looks the same, and costs a ping each. It must never end a session itself.

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

    async fn watch(&self) {
        let clock = &self.ctx.settings.wall_clock;
        loop {
            self.sessions.any().await;
            let (before, began) = (clock.unix_seconds(), Instant::now());
            sleep(EVERY).await;
            let passed = clock.unix_seconds().saturating_sub(before);
            let slept = passed.saturating_sub(began.elapsed().as_secs());
            if slept > TOLERATED {
                info!(seconds = slept, "the machine was suspended, or its clock was put ahead");
                self.sessions.doubt_all();
            }
        }
    }
}
