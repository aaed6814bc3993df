//! The outcome of a dial, for all who wait for it.
//!
//! Owns the rule that the outcome belongs to the waiters and not to the dial: they alone keep the
//! session that was found, until the last of them has woken. A dial that goes on for its verdict after
//! another connection has served its waiters must not count as a user of that session.

use std::sync::Arc;

use crate::base::error::DialError;
use crate::base::sync::{Mutex, SetOnce, lock};
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

    /// The waiters' own handle. Taken under the lock of the dial's slot, so that the dial cannot be
    /// settled meanwhile; a caller that comes later gets the failure, or `Superseded`.
    pub(crate) fn subscribe(&self) -> Arc<SetOnce<Settled>> {
        let error = match &*lock(&self.0) {
            State::Awaited(settled) => return settled.clone(),
            State::Settled(failure) => failure.clone().unwrap_or(DialError::Superseded),
        };
        Arc::new(SetOnce::new_with(Some(Err(error))))
    }

    /// Settles it, and wakes all who wait. The first settling counts.
    pub(crate) fn settle(&self, settled: Settled) {
        let mut state = lock(&self.0);
        if let State::Awaited(waiters) = &*state {
            let waiters = waiters.clone();
            *state = State::Settled(settled.as_ref().err().cloned());
            drop(state);
            // It was not set before: only this method sets it, once.
            let _ = waiters.set(settled);
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
        for waiter in [one, other, outcome.subscribe()] {
            assert!(matches!(waiter.wait().now_or_never(), Some(Err(DialError::TimedOut))));
        }
        assert!(matches!(outcome.settled(), Some(Err(DialError::TimedOut))));
    }

    #[test]
    fn it_keeps_nothing_for_itself() {
        let outcome = Outcome::new();
        let waiter = Arc::downgrade(&outcome.subscribe());
        outcome.settle(Err(DialError::TimedOut));
        assert_eq!(waiter.strong_count(), 0);
    }
}
