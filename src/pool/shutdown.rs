//! The pool's end, and the end of one peer's sessions: drain, close, disconnect.
//!
//! Owns the order in which things stop. A drain takes every session out of its slot, lets leases
//! return, flushes, and exchanges goodbyes; a close cuts. Both are driven by events.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tracing::info;

use crate::base::error::{CloseReason, DialError};
use crate::base::id::PeerId;
use crate::base::metrics::SessionReport;
use crate::base::sync::lock;
use crate::pool::dial::Dial;
use crate::pool::inner::{Held, Inner, Life};
use crate::proto::slot::{Disconnected, Phase};

/// Stands for a deadline that the clock cannot show.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// How [`Pool::disconnect`](crate::Pool::disconnect) ends a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseMode {
    /// Leases return, what was accepted is flushed, both sides say goodbye.
    #[default]
    Drain,
    /// Cut now; what was accepted and not written is lost and reported as unknown.
    Now,
}

/// What [`Pool::disconnect`](crate::Pool::disconnect) does. By default it drains, and refuses nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "it does nothing until it is passed to `Pool::disconnect`"]
pub struct Disconnect {
    mode: CloseMode,
    refuse_for: Option<Duration>,
}

impl Disconnect {
    /// Ends the session in this mode.
    pub fn new(mode: CloseMode) -> Self {
        Self { mode, refuse_for: None }
    }

    /// Drains the session: [`CloseMode::Drain`].
    pub fn drain() -> Self {
        Self::new(CloseMode::Drain)
    }

    /// Cuts the session: [`CloseMode::Now`].
    pub fn now() -> Self {
        Self::new(CloseMode::Now)
    }

    /// Refuses the peer for this time afterwards, inbound and outbound; bounded by `max_refusal`.
    pub fn refuse_for(mut self, time: Duration) -> Self {
        self.refuse_for = Some(time);
        self
    }
}

/// What a drain achieved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct DrainReport {
    /// Sessions that ended during the drain.
    pub sessions: usize,
    /// Leases that were still out at the deadline; their sessions were drained under them.
    pub leases_remaining: usize,
    /// What became of the sessions' messages, over their whole lives.
    pub messages: SessionReport,
    /// How long the drain took.
    pub elapsed: Duration,
}

impl Inner {
    /// Drains the pool and closes it. A second call waits for the same end.
    pub(crate) async fn drain(self: &Arc<Self>, deadline: Duration) -> DrainReport {
        let began = Instant::now();
        if self.advance(Life::Draining) {
            info!("draining");
            // Whoever drains may be the one who reads the inbox.
            self.session_shared.inbox.lift_for_drain();
            self.draining.lift();
            self.stop_accepting();
            self.keepers.clear();
            let swept = self.registry.shut(|_, slot| slot.disconnect());
            for taken in swept {
                self.part_with(taken, DialError::PoolClosed, CloseReason::Drained);
            }
        }
        self.work.close();
        let mut leases_remaining = 0;
        if timeout(deadline, self.work.wait()).await.is_err() {
            let left = self.draining.all();
            leases_remaining = left.iter().map(|session| session.leases_out() as usize).sum();
            for session in left {
                session.drain_now(CloseReason::Drained);
            }
            // Every session ends by its own drain_timeout from here, every dial by its verdict's.
            let max = self.settings.drain_timeout + self.settings.verdict_timeout;
            let _ = timeout(max, self.work.wait()).await;
        }
        self.close().await;
        let (sessions, messages) = *lock(&self.drained);
        DrainReport { sessions, leases_remaining, messages, elapsed: began.elapsed() }
    }

    /// Drains one peer's sessions; the peer may come back.
    pub(crate) async fn drain_peer(
        self: &Arc<Self>,
        peer: &PeerId,
        deadline: Duration,
    ) -> DrainReport {
        let began = Instant::now();
        // Past what a clock can show is never.
        let until = began.checked_add(deadline).unwrap_or(began + FAR);
        let (taken, awaited) = self.registry.with(peer, |slot, _| {
            let taken = slot.disconnect();
            (taken, slot.superseded().cloned().collect::<Vec<_>>())
        });
        // Before they are told: one that drains fast would be missed.
        let mut sessions = self.draining.of(peer);
        sessions.extend(taken.session.as_ref().map(|held| held.core.session().clone()));
        self.part_with(taken, DialError::Disconnected, CloseReason::Drained);
        for dial in awaited {
            // A committed dial may yet bring a session; it is drained when its verdict comes.
            let ended = dial.settled.notified();
            if self.awaits_verdict(&dial) {
                let _ = timeout_at(until, ended).await;
            }
            sessions.extend(dial.drained());
        }
        let mut report = DrainReport { sessions: sessions.len(), ..DrainReport::default() };
        for session in sessions {
            if timeout_at(until, session.closed()).await.is_err() {
                report.leases_remaining += session.leases_out() as usize;
                session.drain_now(CloseReason::Drained);
                session.closed().await;
            }
            report.messages += session.report();
        }
        report.elapsed = began.elapsed();
        report
    }

    /// Stops a pending dial to the peer and ends its session. Whether there was either.
    pub(crate) fn disconnect(&self, peer: &PeerId, what: Disconnect) -> bool {
        self.keepers.remove(peer);
        if let Some(time) = what.refuse_for {
            let until = Instant::now() + time.min(self.settings.max_refusal);
            let now = Instant::now().into_std();
            drop(self.with_backoff(|backoff| {
                backoff.refuse(*peer, until.into_std(), DialError::Disconnected, now);
            }));
        }
        let taken = self.registry.with(peer, |slot, _| slot.disconnect());
        let any = taken.dial.is_some() || taken.session.is_some();
        if what.mode == CloseMode::Now {
            if let Some(held) = &taken.session {
                held.core.session().close(CloseReason::Disconnected);
            }
            self.draining.of(peer).iter().for_each(|s| s.close(CloseReason::Disconnected));
        }
        self.part_with(taken, DialError::Disconnected, CloseReason::Disconnected);
        any
    }

    /// Cuts everything and waits until the last task has ended.
    pub(crate) async fn close(self: &Arc<Self>) {
        self.shut_down();
        self.work.wait().await;
        self.service.wait().await;
    }

    /// The part of a close that waits for nothing; also what dropping the pool does.
    pub(crate) fn shut_down(&self) {
        self.advance(Life::Closed);
        self.stop_accepting();
        self.admission.cut();
        self.keepers.clear();
        let mut committed = Vec::new();
        let swept = self.registry.shut(|_, slot| {
            let taken = slot.disconnect();
            committed.extend(slot.superseded().cloned());
            taken
        });
        committed.iter().for_each(|dial| dial.halt.cut());
        for taken in swept {
            if let Some(held) = &taken.session {
                held.core.session().close(CloseReason::PoolClosed);
            }
            self.part_with(taken, DialError::PoolClosed, CloseReason::PoolClosed);
        }
        self.draining.all().iter().for_each(|session| session.close(CloseReason::PoolClosed));
        self.stop.cancel();
        self.sessions.close();
        self.dialling.close();
        self.work.close();
        self.service.close();
    }

    /// Ends the listeners, and the handshakes that have not shown who they are.
    fn stop_accepting(&self) {
        self.stop_accepting.cancel();
        self.admission.close();
    }

    /// Acts on what was taken out of a slot: tells the waiters, stops an open dial, retires the
    /// session.
    fn part_with(&self, taken: Disconnected<Arc<Dial>, Held>, error: DialError, why: CloseReason) {
        if let Some((dial, phase)) = taken.dial {
            dial.outcome.settle(Err(error));
            if phase == Phase::Open {
                dial.halt.abort();
            }
            drop(dial.take_room());
            dial.settled.notify_waiters();
        }
        if let Some(held) = taken.session {
            self.retire_held(held, why);
        }
    }

    /// Whether a committed dial that was superseded or disconnected awaits its verdict.
    fn awaits_verdict(&self, dial: &Arc<Dial>) -> bool {
        self.registry
            .read(&dial.peer, |slot| slot.superseded().any(|other| Arc::ptr_eq(other, dial)))
            .unwrap_or(false)
    }
}
