//! What a dial has come to, for all who wait for it.
//!
//! Owns the rule that it belongs to them and not to the dial: a session that was found is shared by
//! as many as still have to wake, and by nobody once they have. A dial that goes on for its verdict
//! after another connection has served its waiters must not count as a user of that session.

use std::sync::Arc;

use crate::base::error::DialError;
use crate::base::sync::{Mutex, lock};
use crate::pool::dial::set_once::SetOnce;
use crate::session::LeaseHandle;

/// What all who wait on a dial get.
pub(crate) type Settled = Result<LeaseHandle, DialError>;

/// Settled once, after the dial has left its slot: first the map, then the waiters.
pub(crate) struct Outcome(Mutex<State>);

enum State {
    Awaited(Arc<SetOnce<Settled>>),
    /// What is left of it: why it failed, or nothing where a session was found.
    Settled(Option<DialError>),
}

impl Outcome {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State::Awaited(Arc::new(SetOnce::new()))))
    }

    /// The waiters' own handle. To be had under the lock of the dial's slot, so that it is there
    /// before the dial can be settled; whoever comes later is sent back to the slot.
    pub(crate) fn subscribe(&self) -> Arc<SetOnce<Settled>> {
        let error = match &*lock(&self.0) {
            State::Awaited(latch) => return latch.clone(),
            State::Settled(failure) => failure.clone().unwrap_or(DialError::Superseded),
        };
        let settled = SetOnce::new();
        settled.set(Err(error));
        Arc::new(settled)
    }

    /// Settles it, and wakes all who wait. The first settling counts.
    pub(crate) fn settle(&self, settled: Settled) {
        let mut stage = lock(&self.0);
        if let State::Awaited(latch) = &*stage {
            let latch = latch.clone();
            *stage = State::Settled(settled.as_ref().err().cloned());
            drop(stage);
            latch.set(settled);
        }
    }

    /// Whether and how it was settled.
    pub(crate) fn settled(&self) -> Option<Result<(), DialError>> {
        match &*lock(&self.0) {
            State::Awaited(_) => None,
            State::Settled(None) => Some(Ok(())),
            State::Settled(Some(error)) => Some(Err(error.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn the_first_settling_is_that_of_all_waiters() {
        let outcome = Outcome::new();
        let (one, other) = (outcome.subscribe(), outcome.subscribe());
        assert!(outcome.settled().is_none());
        outcome.settle(Err(DialError::TimedOut));
        outcome.settle(Err(DialError::PoolClosed));
        for latch in [one, other, outcome.subscribe()] {
            assert!(matches!(latch.wait().now_or_never(), Some(Err(DialError::TimedOut))));
        }
        assert!(matches!(outcome.settled(), Some(Err(DialError::TimedOut))));
    }

    #[test]
    fn it_keeps_nothing_for_itself() {
        let outcome = Outcome::new();
        let latch = Arc::downgrade(&outcome.subscribe());
        outcome.settle(Err(DialError::TimedOut));
        assert_eq!(latch.strong_count(), 0);
    }
}
