//! The dials of a pool: their limits, and the start of each.
//!
//! Owns how many dials run and wait. A dial's task belongs to the pool; what it does is in `task`.

use std::sync::Arc;

use tracing::{Instrument as _, debug};

use crate::base::error::DialError;
use crate::base::event::PoolEvent;
use crate::base::metrics::LimitUse;
use crate::pool::lifecycle::Lifecycle;
use crate::pool::limits::{Capacity, CountedLimit};
use crate::pool::sessions::SessionTable;
use crate::proto::dial_policy::Failed;

use super::handle::Dial;
use super::race::RaceParts;
use super::task::{DialEnd, DialParts, DialSlot, DialTask, StreamSource};

/// See the module.
pub(crate) struct Dialer {
    parts: Arc<DialParts>,
    /// Dials that wait for their turn.
    queued: CountedLimit,
}

impl Dialer {
    pub(crate) fn new(
        lifecycle: Arc<Lifecycle>,
        sessions: Arc<SessionTable>,
        capacity: Arc<Capacity>,
        race: RaceParts,
    ) -> Arc<Self> {
        let ctx = race.ctx.clone();
        let turns = CountedLimit::new(ctx.settings.max_concurrent_dials);
        let queued = CountedLimit::new(ctx.settings.max_queued_dials);
        let race = Arc::new(race);
        let parts = DialParts { ctx, lifecycle, sessions, capacity, race, turns };
        Arc::new(Self { parts: Arc::new(parts), queued })
    }

    #[cfg(all(test, noise_pool_loom))]
    pub(crate) fn task(&self, dial: Arc<Dial>) -> DialTask {
        DialTask::new(self.parts.clone(), dial)
    }

    /// A turn, or a place among those that wait for one: the queue is for dials that find no turn.
    pub(crate) fn try_slot(&self) -> Option<DialSlot> {
        let turn = self.parts.turns.try_acquire().map(DialSlot::Turn);
        turn.or_else(|| self.queued.try_acquire().map(DialSlot::Queue))
    }

    /// Lets no dial wait for its turn any longer.
    pub(crate) fn close(&self) {
        self.parts.turns.close();
    }

    /// What is held of `max_concurrent_dials` and of `max_queued_dials`.
    pub(crate) fn held(&self) -> (LimitUse, LimitUse) {
        (self.parts.turns.snapshot(), self.queued.snapshot())
    }

    /// Runs a dial that was just begun in its slot.
    pub(crate) fn spawn(&self, dial: Arc<Dial>, source: StreamSource, slot: DialSlot) {
        self.parts.ctx.counters.dials.one();
        let (peer, attempt) = (dial.peer, dial.attempt);
        self.parts.ctx.events.publish(|| PoolEvent::DialStarted { peer, attempt });
        let span = tracing::info_span!(
            "dial", peer = %peer.short(), attempt = %attempt, role = "initiator"
        );
        // Made here, so that it settles the dial also if the task never runs.
        let parts = self.parts.clone();
        let task = DialTask::new(parts.clone(), dial.clone());
        let mut guard = SettleGuard { task, ended: false };
        self.parts.lifecycle.spawn_connection(
            async move {
                let ended = tokio::select! {
                    biased;
                    () = dial.stop.killed() => return None,
                    ended = guard.task.run(source, slot) => ended,
                };
                let driver = match ended {
                    Ok(driver) => Some(driver),
                    Err(DialEnd::Displaced) => {
                        guard.task.displaced();
                        None
                    }
                    Err(DialEnd::Failed(failed)) => {
                        debug!(error = %failed.error, "dial failed");
                        guard.task.failed(failed);
                        None
                    }
                };
                guard.ended = true;
                drop((guard, dial));
                // The dial kept its session: if there is no lease, the session is idle now.
                parts.sessions.shared.note_idle();
                driver
            }
            .instrument(span),
        );
    }
}

/// Settles a dial whose task is dropped or panics, so that no caller waits for ever.
struct SettleGuard {
    task: DialTask,
    ended: bool,
}

impl Drop for SettleGuard {
    fn drop(&mut self) {
        if !self.ended {
            // What has left with a commit, and whose verdict the task did not live to see.
            self.task.dial.first.lost();
            let open = self.task.parts.lifecycle.is_open();
            let error = if open { DialError::Panicked } else { DialError::PoolClosed };
            self.task.failed(Failed { error, outcome: None });
        }
    }
}
