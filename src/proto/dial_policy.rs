//! How a dial goes on after a failure, and when a persistent peer is dialled again.
//!
//! Owns which deadline holds, whether and after which pause a dial goes on, which error its waiters
//! get, and what a failure means for the backoff. It must not dial, wait or read a clock: the dial's
//! task reports events, waits as long as it is asked to, and does the step that it is given. Errors
//! (`E`) are opaque.
//!
//! ```text
//!       broken                          another connection was named
//! any ──────────▶ AwaitsSpare       any ────────────────────────────▶ Redialling
//!                                                                         │ no address is known
//!                                   any ──▶ failed                        ▼
//!                                                                  ResolvingAnew
//! ```

use std::time::{Duration, Instant};

use crate::base::error::RejectReason;
use crate::proto::backoff::Outcome;

/// How often one dial begins anew after the peer has named another connection. Without a fault once
/// is enough: the other connection takes the slot.
const MAX_REDIALS: u32 = 3;

/// How long a dial waits for another connection between the two peers before it goes on. The peer has
/// judged that connection already, or it is parked here, so it is a round trip away at the most.
const OTHER_CONNECTION_PAUSE: Duration = Duration::from_millis(200);

/// How long a dial waits for the peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// From the start of a race to the first valid answer: `dial_timeout`.
    pub(crate) dial: Duration,
    /// After a committed connection broke, to the answer on another one: `verdict_timeout`.
    pub(crate) verdict: Duration,
}

/// Why no connection of a dial was answered and passed our checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// The peer was not tried: the pool is closed, one of its limits is reached, or no address is
    /// known.
    NotTried,
    /// The look-up, every connection or every handshake failed.
    Unreachable,
    /// Nobody answered in all the time that there was: not even to refuse.
    Silent,
    /// Our own check refused the peer, or it is one that nobody can dial.
    Refused,
}

impl Unanswered {
    /// What the failure means for the peer's backoff; `None` leaves it as it is.
    const fn outcome(self) -> Option<Outcome> {
        match self {
            Self::NotTried => None,
            Self::Unreachable => Some(Outcome::Unreachable),
            Self::Silent => Some(Outcome::Silent),
            Self::Refused => Some(Outcome::Refused),
        }
    }
}

/// Why a committed connection ended without a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It broke, or its verdict did not come in time.
    Broken,
    /// The peer refuses us by policy. A reason of a later version counts as this one.
    Refused,
    /// The peer is full or draining, and may have said for how long.
    Busy {
        /// What it asked for.
        retry_after: Option<Duration>,
    },
    /// The peer prefers another connection between the two of us.
    OtherConnection,
}

impl Lost {
    /// The peer has refused the connection.
    pub(crate) fn rejected(reason: RejectReason, retry_after: Option<Duration>) -> Self {
        match reason {
            RejectReason::Simultaneous | RejectReason::Duplicate => Self::OtherConnection,
            RejectReason::Full | RejectReason::Draining => Self::Busy { retry_after },
            _ => Self::Refused,
        }
    }

    /// What the failure means for the peer's backoff; `None` leaves it as it is.
    const fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Broken => Some(Outcome::Unreachable),
            Self::Refused => Some(Outcome::Refused),
            Self::Busy { retry_after } => Some(Outcome::Busy { retry_after }),
            Self::OtherConnection => None,
        }
    }
}

/// How the slot stood when the dial reopened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reopened {
    /// The dial has lost the slot, or has no waiters: it must end.
    No,
    /// The dial holds the slot.
    Yes,
    /// The dial holds the slot, and connections that it had parked are judged again now: the session
    /// of one of them would serve its waiters.
    WithParked,
}

/// The error that a dial ends with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failed<E> {
    /// What the waiters get.
    pub(crate) error: E,
    /// The backoff that begins; `None`: the failure says nothing of the peer.
    pub(crate) outcome: Option<Outcome>,
}

/// What a dial does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Next<E> {
    /// To be waited for before the step. An inbound connection may take the slot meanwhile.
    pub(crate) pause: Option<Duration>,
    pub(crate) step: Step<E>,
}

/// How a dial goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<E> {
    /// It ends.
    Fail(Failed<E>),
    /// Its race goes on: another connection that is answered may commit, with a new stamp.
    AwaitSpare,
    /// It tries all its addresses again, in a new race. With none known it reports
    /// [`DialPolicy::resolves_anew`], and the race begins with a look-up.
    Redial,
}

/// One dial, from its turn to its end. A dial that ended is not asked any more.
#[derive(Debug)]
pub(crate) struct DialPolicy<E> {
    timeouts: Timeouts,
    redials: u32,
    answer_due: Instant,
    state: State<E>,
}

/// What has become of the committed connections so far.
#[derive(Debug)]
enum State<E> {
    /// There was none.
    Racing,
    /// The last one broke with this error; another connection of the race is awaited.
    AwaitsSpare(E),
    /// The peer refused the last one with this error, for another connection; the dial begins anew.
    Redialling(E),
    /// The same, and no address is known but those that the connector may resolve.
    ResolvingAnew(E),
}

impl<E> DialPolicy<E> {
    /// The dial's turn has come. → `Racing`.
    pub(crate) fn new(timeouts: Timeouts, now: Instant) -> Self {
        let answer_due = now + timeouts.dial;
        Self { timeouts, redials: 0, answer_due, state: State::Racing }
    }

    /// Until when a connection must be answered.
    pub(crate) fn answer_due(&self) -> Instant {
        self.answer_due
    }

    /// No connection was answered in time, or each failed. Any → failed.
    ///
    /// The loss of a committed connection explains more to the waiters than what came after it.
    pub(crate) fn unanswered(self, why: Unanswered, error: E) -> Failed<E> {
        match self.state {
            State::Racing | State::Redialling(_) => Failed { error, outcome: why.outcome() },
            State::AwaitsSpare(lost) => Failed { error: lost, outcome: Lost::Broken.outcome() },
            State::ResolvingAnew(refusal) => {
                Failed { error: refusal, outcome: Lost::OtherConnection.outcome() }
            }
        }
    }

    /// A committed connection ended without a session, and the slot was reopened.
    /// Any → `AwaitsSpare`, if it broke; `Redialling`, if the peer named another connection and the
    /// dial has begun anew fewer than `MAX_REDIALS` times; failed otherwise.
    ///
    /// The new deadline counts from the end of the pause.
    pub(crate) fn lost(&mut self, why: Lost, error: E, slot: Reopened, now: Instant) -> Next<E> {
        let failed = |error| Step::Fail(Failed { error, outcome: why.outcome() });
        let pause = match slot {
            Reopened::No => return Next { pause: None, step: failed(error) },
            Reopened::Yes => Duration::ZERO,
            Reopened::WithParked => OTHER_CONNECTION_PAUSE,
        };
        let (pause, step) = match why {
            Lost::OtherConnection if self.redials < MAX_REDIALS => {
                self.redials += 1;
                let pause = pause + OTHER_CONNECTION_PAUSE;
                self.answer_due = now + pause + self.timeouts.dial;
                self.state = State::Redialling(error);
                (pause, Step::Redial)
            }
            Lost::Broken => {
                self.answer_due = now + pause + self.timeouts.verdict;
                self.state = State::AwaitsSpare(error);
                (pause, Step::AwaitSpare)
            }
            _ => (pause, failed(error)),
        };
        Next { pause: (!pause.is_zero()).then_some(pause), step }
    }

    /// The dial begins anew without an address. `Redialling` → `ResolvingAnew`; any other state is
    /// left alone.
    ///
    /// A stream that the caller brought is used up. If the connector knows no way either, the
    /// waiters get the refusal, not the failed look-up.
    pub(crate) fn resolves_anew(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Racing) {
            State::Redialling(refusal) => State::ResolvingAnew(refusal),
            other => other,
        };
    }
}

/// How a call for a persistent peer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreached {
    /// The peer's backoff lasts until then.
    BackingOff(Instant),
    /// What stood in the way was of the moment.
    Passing,
    /// A call fails until the application changes something while the pool runs.
    Lasting,
    /// No later call can succeed.
    Final,
}

/// When a persistent peer is dialled again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PersistentPolicy {
    /// The pause where no backoff asks for more: `initial_backoff`. A peer that accepts and goes at
    /// once must not be dialled without pause.
    pub(crate) pause: Duration,
    /// The pause after a lasting failure: `max_backoff`.
    pub(crate) max_pause: Duration,
}

impl PersistentPolicy {
    /// The peer has a session. When it is lost, the next dial waits for this moment.
    pub(crate) fn connected(&self, now: Instant) -> Instant {
        now + self.pause
    }

    /// The peer has no session. Returns the moment of the next dial; `None`: there is none.
    pub(crate) fn failed(&self, why: Unreached, now: Instant) -> Option<Instant> {
        match why {
            Unreached::BackingOff(until) => Some(until),
            Unreached::Passing => Some(now + self.pause),
            Unreached::Lasting => Some(now + self.max_pause),
            Unreached::Final => None,
        }
    }
}

#[cfg(test)]
#[path = "../verify/proto/dial_policy.rs"]
mod tests;
