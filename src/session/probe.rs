//! Probes: many callers, one ping, one answer for all.
//!
//! Owns the rounds and the last answer. The driver asks the peer; a caller that goes away changes
//! nothing, since it owns only its wait. It must never decide whether the peer is alive.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use crate::base::error::{CloseReason, PingError};
use crate::base::sync::lock_std;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Probes {
    state: Mutex<State>,
    answered: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The round that is under way, or was last.
    round: u64,
    /// The last round that was answered.
    answered: u64,
    last: Option<Result<Duration, PingError>>,
    /// The driver has gone; all further answers are this one.
    ended: Option<CloseReason>,
}

/// A place in a round.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProbeTicket {
    round: u64,
    /// This caller began the round, and has to signal the driver.
    pub(super) first: bool,
}

impl Probes {
    /// Joins the round under way, or begins one; none once the driver has gone.
    pub(super) fn ask(&self) -> Option<ProbeTicket> {
        let mut state = self.lock();
        if state.ended.is_some() {
            return None;
        }
        let first = state.answered == state.round;
        if first {
            state.round += 1;
        }
        Some(ProbeTicket { round: state.round, first })
    }

    /// Waits for the answer of a round. Cancel safe.
    pub(super) async fn answer(&self, ticket: ProbeTicket) -> Result<Duration, PingError> {
        loop {
            let answered = self.answered.notified();
            {
                let state = self.lock();
                if state.answered >= ticket.round
                    && let Some(last) = state.last
                {
                    return last;
                }
                if let Some(reason) = state.ended {
                    return Err(PingError::Closed(reason));
                }
            }
            answered.await;
        }
    }

    /// The outcome of the round under way.
    pub(super) fn resolve(&self, outcome: Result<Duration, PingError>) {
        {
            let mut state = self.lock();
            state.answered = state.round;
            state.last = Some(outcome);
        }
        self.answered.notify_waiters();
    }

    /// The driver has gone.
    pub(super) fn end(&self, reason: CloseReason) {
        self.lock().ended = Some(reason);
        self.answered.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock_std(&self.state)
    }
}
