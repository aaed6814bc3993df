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
use crate::pool::dial::Dial;
use crate::pool::lifecycle::Life;
use crate::pool::pooled::PooledSession;
use crate::pool::state::PoolState;
use crate::proto::slot::{Disconnected, Phase};

/// Stands for a deadline that the clock cannot show.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// How [`Pool::disconnect`](crate::Pool::disconnect) ends a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseMode {
    /// Leases return, what was accepted is flushed, both sides say goodbye.
    #[default]
    Drain,
    /// Cut now; what was accepted and not written is lost and reported as unsent.
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

/// Drains the pool and closes it. A second call waits for the same end.
pub(crate) async fn drain(pool: &PoolState, deadline: Duration) -> DrainReport {
    let began = Instant::now();
    if pool.lifecycle.advance(Life::Draining) {
        info!("draining");
        // The task that drains may be the one that reads the inbox.
        pool.sessions.shared.inbox.lift_for_drain();
        pool.sessions.draining.lift();
        stop_accepting(pool);
        pool.sessions.kept.clear();
        let swept = pool.sessions.slots.shut(|_, slot| slot.disconnect());
        for taken in swept {
            release(pool, taken, DialError::PoolClosed, CloseReason::Drained);
        }
        pool.sessions.carry_over.clear();
    }
    pool.lifecycle.close_work();
    let mut leases_remaining = 0;
    if timeout(deadline, pool.lifecycle.work_done()).await.is_err() {
        let left = pool.sessions.draining.all();
        leases_remaining = left.iter().map(|session| session.leases_out() as usize).sum();
        for session in left {
            session.drain_now(CloseReason::Drained);
        }
        // Every session ends by its own drain_timeout from here, every dial by its verdict's.
        let max = pool.ctx.settings.drain_timeout + pool.ctx.settings.verdict_timeout;
        let _ = timeout(max, pool.lifecycle.work_done()).await;
    }
    close(pool).await;
    let (sessions, messages) = pool.sessions.drained();
    DrainReport { sessions, leases_remaining, messages, elapsed: began.elapsed() }
}

/// Drains one peer's sessions; the peer may come back.
pub(crate) async fn drain_peer(pool: &PoolState, peer: &PeerId, deadline: Duration) -> DrainReport {
    let began = Instant::now();
    // Past what a clock can show is never.
    let until = began.checked_add(deadline).unwrap_or(began + FAR_FUTURE);
    pool.sessions.carry_over.forget(peer);
    let (taken, awaited) = pool.sessions.slots.with(peer, |slot, _| {
        let taken = slot.disconnect();
        (taken, slot.superseded().cloned().collect::<Vec<_>>())
    });
    // Before they drain: one that drains fast would be missed.
    let mut sessions = pool.sessions.draining.of(peer);
    sessions.extend(taken.session.as_ref().map(|pooled| pooled.session().clone()));
    release(pool, taken, DialError::Disconnected, CloseReason::Drained);
    for dial in awaited {
        // A committed dial may yet bring a session; it is drained when its verdict comes.
        let ended = dial.uncommitted.notified();
        if awaits_verdict(pool, &dial) {
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
pub(crate) fn disconnect(pool: &PoolState, peer: &PeerId, what: Disconnect) -> bool {
    pool.sessions.kept.remove(peer);
    pool.sessions.carry_over.forget(peer);
    if let Some(time) = what.refuse_for {
        let until = Instant::now() + time.min(pool.ctx.settings.max_refusal);
        pool.sessions.failures.refuse(*peer, until);
    }
    let taken = pool.sessions.slots.with(peer, |slot, _| slot.disconnect());
    let any = taken.dial.is_some() || taken.session.is_some();
    if what.mode == CloseMode::Now {
        if let Some(pooled) = &taken.session {
            pooled.session().close(CloseReason::Disconnected);
        }
        pool.sessions.draining.of(peer).iter().for_each(|s| s.close(CloseReason::Disconnected));
    }
    release(pool, taken, DialError::Disconnected, CloseReason::Disconnected);
    any
}

/// Cuts everything and waits until the last task has ended.
pub(crate) async fn close(pool: &PoolState) {
    shut_down(pool);
    pool.lifecycle.work_done().await;
    pool.lifecycle.service_done().await;
}

/// The part of a close that waits for nothing; also what dropping the pool does.
pub(crate) fn shut_down(pool: &PoolState) {
    pool.lifecycle.advance(Life::Closed);
    stop_accepting(pool);
    pool.responder.pending().kill();
    pool.sessions.kept.clear();
    let mut committed = Vec::new();
    let swept = pool.sessions.slots.shut(|_, slot| {
        let taken = slot.disconnect();
        committed.extend(slot.superseded().cloned());
        taken
    });
    committed.iter().for_each(|dial| dial.stop.kill());
    for taken in swept {
        if let Some(pooled) = &taken.session {
            pooled.session().close(CloseReason::PoolClosed);
        }
        release(pool, taken, DialError::PoolClosed, CloseReason::PoolClosed);
    }
    pool.sessions.draining.all().iter().for_each(|session| session.close(CloseReason::PoolClosed));
    pool.sessions.carry_over.clear();
    pool.lifecycle.stop();
    pool.capacity.close();
    pool.dialer.close();
}

/// Ends the listeners, and the handshakes that have not shown who they are.
fn stop_accepting(pool: &PoolState) {
    pool.lifecycle.accepting().cancel();
    pool.responder.pending().close();
}

/// Acts on what was taken out of a slot: settles the waiters, stops an open dial, retires the
/// session.
fn release(
    pool: &PoolState,
    taken: Disconnected<Arc<Dial>, PooledSession>,
    error: DialError,
    why: CloseReason,
) {
    if let Some((dial, phase)) = taken.dial {
        dial.outcome.settle(Err(error));
        if phase == Phase::Open {
            dial.stop.abort();
        }
        drop(dial.take_permit());
        dial.uncommitted.notify_waiters();
    }
    if let Some(pooled) = taken.session {
        pool.sessions.retire_pooled(pooled, why);
    }
}

/// Whether a committed dial that was superseded or disconnected awaits its verdict.
fn awaits_verdict(pool: &PoolState, dial: &Arc<Dial>) -> bool {
    pool.sessions
        .slots
        .read(&dial.peer, |slot| slot.superseded().any(|other| Arc::ptr_eq(other, dial)))
        .unwrap_or(false)
}
