//! How far a session has come: handed out, retired, draining, ended.
//!
//! Owns the state, the reasons that go with it, and the word in which leases see it. A state is never
//! left for an earlier one, and of two reasons for one step the first stands. It must never act: who
//! changes the state wakes whoever has to know.

use std::sync::atomic::Ordering;

use crate::base::error::CloseReason;
use crate::base::metrics::{SessionReport, SessionState};
use crate::base::sync::{AtomicU32, Mutex, lock};

/// What a checkout has to know of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    /// Hand it out.
    Ready,
    /// Nothing was heard for `ping_after`: probe it first.
    NeedsProbe,
    /// It is not to be handed out any more.
    Retired,
}

/// The word in which leases see a session: its [`Stage`], and beside it the mark [`NEEDS_PROBE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks(u32);

/// Nothing was heard for `ping_after`.
pub(super) const NEEDS_PROBE: Marks = Marks(1);

/// A session's state as one may see it without its lock. Each has the bits of those before it, so
/// that marks are only ever added, in whichever order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub(super) enum Stage {
    /// Handed out.
    Ready = 0,
    /// Not handed out any more.
    Retired = 0b0010,
    /// It drains.
    Draining = 0b0110,
    /// It has ended, and the pool knows.
    Closed = 0b1110,
}

impl Marks {
    /// Of this stage.
    pub(super) fn of(stage: Stage) -> Self {
        Self(stage as u32)
    }

    /// As they are kept in a word.
    #[inline]
    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// Reads what [`bits`](Self::bits) gave.
    #[inline]
    pub(super) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    fn stage(self) -> Stage {
        [Stage::Closed, Stage::Draining, Stage::Retired]
            .into_iter()
            .find(|&stage| self.0 & stage as u32 == stage as u32)
            .unwrap_or(Stage::Ready)
    }

    /// Whether a session with these marks may be handed out.
    #[inline]
    pub(super) fn availability(self) -> Availability {
        match self {
            Self(0) => Availability::Ready,
            NEEDS_PROBE => Availability::NeedsProbe,
            _ => Availability::Retired,
        }
    }
}

/// A session's state, with the reasons.
#[derive(Debug)]
enum State {
    /// Callers get leases of it.
    Ready,
    /// No caller gets one any more. Leases in hand go on.
    Retired(CloseReason),
    /// Sends are refused; what was accepted goes out.
    Draining { retired: CloseReason, why: CloseReason },
    /// The driver has to end it at once.
    Closing { retired: CloseReason, why: CloseReason },
    /// The driver has ended it.
    Ended { why: CloseReason, report: Box<SessionReport> },
}

/// What a driver has been ordered to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Drain once the last lease has returned, or has had its time.
    Retire(CloseReason),
    /// Drain now.
    Drain(CloseReason),
    /// End now.
    Close(CloseReason),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Life {
    /// Changed after `state`, so that a reader that sees a stage here finds its reason there.
    marks: AtomicU32,
    state: Mutex<State>,
}

impl Life {
    /// Ready.
    pub(super) fn new() -> Self {
        Self { marks: AtomicU32::new(0), state: Mutex::new(State::Ready) }
    }

    /// Ready → Retired.
    pub(super) fn retire(&self, why: CloseReason) {
        let mut state = lock(&self.state);
        if let State::Ready = *state {
            *state = State::Retired(why);
        }
    }

    /// Ready, Retired → Draining. The reason that stands.
    pub(super) fn drain(&self, why: CloseReason) -> CloseReason {
        let mut state = lock(&self.state);
        match *state {
            State::Ready => *state = State::Draining { retired: why, why },
            State::Retired(retired) => *state = State::Draining { retired, why },
            State::Draining { why: first, .. }
            | State::Closing { why: first, .. }
            | State::Ended { why: first, .. } => return first,
        }
        why
    }

    /// Ready, Retired, Draining → Closing. The reason that stands.
    pub(super) fn close(&self, why: CloseReason) -> CloseReason {
        let mut state = lock(&self.state);
        let retired = match *state {
            State::Ready => why,
            State::Retired(retired) | State::Draining { retired, .. } => retired,
            State::Closing { why, .. } | State::Ended { why, .. } => return why,
        };
        *state = State::Closing { retired, why };
        why
    }

    /// Every other → Ended.
    pub(super) fn end(&self, why: CloseReason, report: SessionReport) {
        let mut state = lock(&self.state);
        if !matches!(*state, State::Ended { .. }) {
            *state = State::Ended { why, report: Box::new(report) };
        }
    }

    /// What the driver has to do.
    pub(super) fn command(&self) -> Option<Command> {
        match *lock(&self.state) {
            State::Ready | State::Ended { .. } => None,
            State::Retired(why) => Some(Command::Retire(why)),
            State::Draining { why, .. } => Some(Command::Drain(why)),
            State::Closing { why, .. } => Some(Command::Close(why)),
        }
    }

    /// Why it is retired, or has ended.
    pub(super) fn retired(&self) -> Option<CloseReason> {
        if !self.is(Stage::Retired) {
            return None;
        }
        match *lock(&self.state) {
            State::Ready => None,
            State::Retired(why)
            | State::Draining { retired: why, .. }
            | State::Closing { retired: why, .. }
            | State::Ended { why, .. } => Some(why),
        }
    }

    /// Why it has ended, if it has.
    pub(super) fn ended(&self) -> Option<CloseReason> {
        match *lock(&self.state) {
            State::Ended { why, .. } => Some(why),
            _ => None,
        }
    }

    /// What became of its messages, once it has ended.
    pub(super) fn report(&self) -> Option<SessionReport> {
        match &*lock(&self.state) {
            State::Ended { report, .. } => Some(**report),
            _ => None,
        }
    }

    /// Lets everybody see what [`marks`](Self::marks) gives from now on, leases apart.
    pub(super) fn mark(&self, marks: Marks) {
        self.marks.fetch_or(marks.bits(), Ordering::AcqRel);
    }

    /// Takes [`NEEDS_PROBE`] back.
    pub(super) fn clear_needs_probe(&self) {
        self.marks.fetch_and(!NEEDS_PROBE.bits(), Ordering::AcqRel);
    }

    /// What leases are to see.
    pub(super) fn marks(&self) -> Marks {
        Marks::from_bits(self.marks.load(Ordering::Acquire))
    }

    /// Whether it has come at least so far.
    pub(super) fn is(&self, stage: Stage) -> bool {
        self.marks().stage() >= stage
    }

    /// One load: whether a checkout may hand it out.
    #[inline]
    pub(super) fn availability(&self) -> Availability {
        Marks::from_bits(self.marks.load(Ordering::Relaxed)).availability()
    }

    /// As snapshots name it.
    pub(super) fn named(&self) -> SessionState {
        match self.marks().stage() {
            Stage::Ready => SessionState::Ready,
            Stage::Retired => SessionState::Retired,
            Stage::Draining | Stage::Closed => SessionState::Draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CloseReason::{Age, Discarded, Drained, Idle, Truncated};

    #[test]
    fn each_step_is_taken_once_for_its_first_reason_and_none_is_taken_back() {
        let life = Life::new();
        assert_eq!((life.command(), life.retired(), life.ended()), (None, None, None));
        life.retire(Age);
        life.retire(Idle);
        assert_eq!(life.command(), Some(Command::Retire(Age)));
        assert_eq!((life.drain(Drained), life.drain(Idle)), (Drained, Drained));
        life.retire(Idle);
        assert_eq!(life.command(), Some(Command::Drain(Drained)));
        assert_eq!((life.close(Discarded), life.close(Idle)), (Discarded, Discarded));
        life.drain(Idle);
        assert_eq!(life.command(), Some(Command::Close(Discarded)));
        assert_eq!(life.retired(), None, "not before it is seen");
        life.mark(Marks::of(Stage::Retired));
        assert_eq!((life.retired(), life.ended()), (Some(Age), None));
        let report = SessionReport { accepted: 7, ..SessionReport::default() };
        life.end(Truncated, report);
        life.end(Idle, SessionReport::default());
        assert_eq!((life.drain(Idle), life.close(Idle)), (Truncated, Truncated));
        assert_eq!((life.retired(), life.ended()), (Some(Truncated), Some(Truncated)));
        assert_eq!((life.report(), life.command()), (Some(report), None));
    }

    #[test]
    fn marks_that_come_late_take_no_stage_back() {
        let stages = [Stage::Ready, Stage::Retired, Stage::Draining, Stage::Closed];
        for first in stages {
            for second in stages {
                let life = Life::new();
                life.mark(NEEDS_PROBE);
                life.mark(Marks::of(first));
                life.mark(Marks::of(second));
                life.clear_needs_probe();
                assert_eq!(life.marks().stage(), first.max(second));
                assert!(life.is(first) && life.is(second));
                let is_ready = first.max(second) == Stage::Ready;
                assert_eq!(life.availability() == Availability::Ready, is_ready);
            }
        }
    }
}
