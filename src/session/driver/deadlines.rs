//! The driver's part in what happens because time has passed.
//!
//! Owns the timer, one for all deadlines, and acts on what [`Liveness`](crate::proto::liveness) says is
//! due. It must never decide when that is.

use std::task::Context;

use tokio::time::Instant;

use crate::base::error::{CloseReason, PingError};
use crate::base::timer::Timer;
use crate::proto::liveness::{Due, Ping};
use crate::proto::wire::connection::Connection;

use super::task::{Driver, PingOut};

impl Driver {
    /// Goes on with the timer that the handshake had, set for what is next here: left as it is, it
    /// would wake each new session once for nothing.
    pub(crate) fn take_over(&mut self, mut timer: Timer) {
        timer.rearm(self.next_deadline());
        self.timer = timer;
    }

    /// Does what is due and sets the timer for what is next.
    pub(super) fn poll_deadlines(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<(), CloseReason> {
        let context = &self.session.context;
        context.tick(now);
        self.session.metrics.rate(context.millis(now));
        let next = loop {
            match self.next_deadline() {
                Some(at) if at <= now => {
                    if self.do_due(now)? {
                        // It left something to write, or to look at.
                        cx.waker().wake_by_ref();
                    }
                }
                next => break next,
            }
        };
        if let Some(deadline) = next
            && self.timer.poll_passed(deadline, cx).is_ready()
        {
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Does one thing that is due. Whether there is something to do in consequence.
    fn do_due(&mut self, now: Instant) -> Result<bool, CloseReason> {
        let (settings, ping) = (&self.session.context.settings, self.ping_state());
        match self.liveness.poll(settings, ping, now.into_std()) {
            None => return Ok(false),
            Some(Due::Retire) => {
                if self.session.retired().is_none() {
                    self.retire(CloseReason::Age);
                }
            }
            Some(Due::Drain) => self.begin_drain(self.session.retired(), now),
            Some(Due::DrainTimedOut) => return Err(CloseReason::DrainTimeout),
            Some(Due::Stalled) => return Err(CloseReason::Stalled),
            Some(Due::KeepAlive) => {
                if !self.connection.is_open() {
                    return Ok(false);
                }
                self.connection.keep_alive();
            }
            Some(Due::Receipt) => {
                if !self.connection.is_open() {
                    return Ok(false);
                }
                self.connection.receipt();
            }
            Some(Due::InDoubt) => {
                if !self.host.may_redial(&self.session) {
                    return Ok(false);
                }
                tracing::debug!("in doubt");
                self.retire(CloseReason::InDoubt);
            }
            Some(Due::ProbeAnswered(after)) => self.probe_answered(after),
            Some(Due::PeerSilent) => {
                return Err(self.probe_failed(CloseReason::PingTimeout, PingError::TimedOut));
            }
            Some(Due::Ping) => self.ping(now),
            Some(Due::NeedsProbe) => {
                self.session.mark_needs_probe();
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let settings = &self.session.context.settings;
        self.liveness.next_deadline(settings, self.ping_state()).map(Instant::from_std)
    }

    fn ping_state(&self) -> Ping {
        if !self.connection.abilities().probe || !self.connection.is_open() {
            return Ping::Unavailable;
        }
        match (self.connection.open_ping(), self.writing.ping) {
            (None, _) => Ping::Idle,
            (Some(_), PingOut::Queued | PingOut::Sealed) => Ping::Queued,
            (Some(_), PingOut::Left(at)) => Ping::Open(at.into_std()),
        }
    }
}
