//! What a session does because time has passed: age, drains, stalls, liveness, keep-alives.
//!
//! Owns every deadline of the session, which one timer keeps: traffic, which moves deadlines away, does
//! not touch it. What is due is judged by the clock, never by a wake-up.

use std::sync::atomic::Ordering;
use std::task::Context;

use tokio::time::Instant;

use crate::base::error::{CloseReason, PingError};
use crate::base::timer::Timer;

use super::super::{NEEDS_PROBE, RETIRED};
use super::{Driver, Probe};

impl Driver {
    /// Goes on with the timer that the handshake had, set for what is next here: left as it is, it
    /// would wake each new session once for nothing.
    pub(crate) fn take_over(&mut self, mut timer: Timer) {
        timer.rearm(self.next_deadline());
        self.timer = timer;
    }

    /// Does what is due and sets the timer for what is next.
    pub(super) fn poll_timers(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<(), CloseReason> {
        let shared = &self.session.shared;
        shared.tick(now);
        self.session.metrics.rate(shared.millis(now));
        if self.do_due(now)? {
            // It left something to write, or to look at.
            cx.waker().wake_by_ref();
        }
        if let Some(deadline) = self.next_deadline()
            && self.timer.poll_passed(deadline, cx).is_ready()
        {
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    fn do_due(&mut self, now: Instant) -> Result<bool, CloseReason> {
        let mut acted = false;
        if self.age_deadline().is_some_and(|at| at <= now) {
            self.retire(CloseReason::Age);
            acted = true;
        }
        if self.drain.is_none()
            && let Some(_) = self.retire_deadline.filter(|&at| at <= now)
        {
            self.begin_drain(self.session.retired(), now);
            acted = true;
        }
        if self.drain.is_some_and(|drain| drain.deadline <= now) {
            return Err(CloseReason::DrainTimeout);
        }
        if self.stall_deadline().is_some_and(|at| at <= now) {
            return Err(CloseReason::Stalled);
        }
        let every = self.keep_alive_every();
        if let Some(paused) = &mut self.paused
            && paused.keep_alive_at <= now
        {
            paused.keep_alive_at = now + every;
            if self.core.is_open() {
                self.core.keep_alive();
                acted = true;
            }
        }
        if self.probe_deadline().is_some_and(|at| at <= now)
            && let Some(Probe::Ping { since }) = self.probe
        {
            let alive = self.paused.is_some()
                || self.last_heard > since
                || self.excused_until().is_some_and(|at| at > now);
            if !alive {
                return Err(self.probe_failed(CloseReason::PingTimeout, PingError::TimedOut));
            }
            self.probe_answered(now.saturating_duration_since(since));
            acted = true;
        }
        if self.death_deadline().is_some_and(|at| at <= now) {
            return Err(self.probe_failed(CloseReason::PingTimeout, PingError::TimedOut));
        }
        if self.ping_deadline().is_some_and(|at| at <= now) {
            self.ping(now);
            acted = true;
        }
        if self.doubt_deadline().is_some_and(|at| at <= now) {
            self.session.mark(NEEDS_PROBE);
        }
        Ok(acted)
    }

    fn next_deadline(&self) -> Option<Instant> {
        [
            self.age_deadline(),
            self.retire_deadline.filter(|_| self.drain.is_none()),
            self.drain.map(|drain| drain.deadline),
            self.stall_deadline(),
            self.paused.map(|paused| paused.keep_alive_at),
            self.probe_deadline(),
            self.death_deadline(),
            self.ping_deadline(),
            self.doubt_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn marked(&self, mark: u32) -> bool {
        self.session.marks.load(Ordering::Relaxed) & mark != 0
    }

    fn age_deadline(&self) -> Option<Instant> {
        self.session.spec.expires_at.filter(|_| !self.marked(RETIRED))
    }

    /// A peer that says that it is alive has an application that is slow; while we do not read, it may
    /// have said so unheard.
    fn stall_deadline(&self) -> Option<Instant> {
        let since = self.blocked_since.filter(|_| self.paused.is_none())?;
        let excused = self.keep_alive_heard.map_or(since, |heard| heard.max(since));
        Some(excused + self.session.shared.settings.stall_timeout)
    }

    /// Whether the peer's silence means anything: not while we do not read, and not in a drain, which
    /// has its own bound.
    fn listening(&self) -> bool {
        self.paused.is_none() && self.core.is_open()
    }

    /// Until when a peer that has said that it does not read need not answer pings.
    fn excused_until(&self) -> Option<Instant> {
        Some(self.keep_alive_heard? + self.session.shared.settings.keepalive)
    }

    /// When a probe's caller has waited long enough for the peer. The application's check bounds
    /// itself.
    fn probe_deadline(&self) -> Option<Instant> {
        match &self.probe {
            Some(Probe::Ping { since }) => Some(*since + self.session.shared.settings.ping_timeout),
            None | Some(Probe::Check { .. }) => None,
        }
    }

    /// When an unanswered ping means death: any frame since is an answer.
    fn death_deadline(&self) -> Option<Instant> {
        let asked = Instant::from_std(self.core.open_ping().filter(|_| self.listening())?);
        let at = asked.max(self.last_heard) + self.session.shared.settings.ping_timeout;
        Some(self.excused_until().map_or(at, |excused| excused.max(at)))
    }

    /// When silence has to be broken by a ping of ours.
    fn ping_deadline(&self) -> Option<Instant> {
        (self.listening() && self.core.open_ping().is_none())
            .then(|| self.last_heard + self.session.shared.settings.keepalive)
    }

    /// When the next checkout has to probe.
    fn doubt_deadline(&self) -> Option<Instant> {
        (self.listening() && !self.marked(NEEDS_PROBE))
            .then(|| self.last_heard + self.session.shared.settings.ping_after)
    }
}
