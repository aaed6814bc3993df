//! The slot machine: what the pool knows of one peer.
//!
//! Owns the state of a slot and its transitions. Which of two connections lives it takes from
//! [`simultaneous_open`](super::simultaneous_open). It is pure: the handles of a dial (`D`) and of a
//! session (`S`) are opaque to it, what it displaces it hands back, and the caller acts on that when
//! its lock is gone. Each method is one event; its doc says From → To.
//!
//! ```text
//! vacant ──dial──▶ Dialing{open} ──commit──▶ Dialing{committed} ──accept──▶ Ready
//!    ▲               │ last waiter left,         │ rejected, broken,          │ retired, died,
//!    │               │ failed, inbound won       │ timed out                  │ evicted
//!    └───────────────┴───────────────────────────┴────────────────────────────┘
//! ```
//!
//! A committed dial is never forgotten before its verdict: when an inbound connection takes its
//! slot, or the application disconnects, it moves to the list of superseded dials, and its late
//! accept is judged by [`Slot::accepted`]. A slot is worth an entry in a map until it
//! [is vacant](Slot::is_vacant), and the list counts.

use crate::base::id::{AttemptId, SessionId};

use super::simultaneous_open::{
    AcceptDecision, Claim, DialStanding, Hearing, InboundDecision, KeyOrder, Phase, Standing,
    judge_accept, judge_inbound,
};

/// What an installed session displaced; act on it when the lock is gone.
#[derive(Debug)]
pub(crate) struct Displaced<D, S> {
    /// The dial whose waiters get the new session instead, and whether it goes on to its verdict.
    pub(crate) dial: Option<(D, Phase)>,
    /// The session that is to be retired as superseded.
    pub(crate) session: Option<S>,
    /// The peer's instances alternate: two processes run one key. Only stamped claims show it.
    pub(crate) conflict: bool,
}

/// What [`Slot::disconnect`] took out of the slot.
#[derive(Debug)]
pub(crate) struct Disconnected<D, S> {
    /// The dial whose waiters must be told, and whether it goes on to its verdict.
    pub(crate) dial: Option<(D, Phase)>,
    /// The session that is to be drained or closed.
    pub(crate) session: Option<S>,
}

/// How a dial that ended without a session stood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended<D> {
    /// It held the slot, which is vacant now; its waiters must be told.
    Current(D),
    /// It had been superseded, disconnected or aborted: no caller waits for it.
    Forgotten,
}

/// A read-only view of the slot's state.
#[derive(Debug)]
pub(crate) enum View<'a, D, S> {
    /// Neither dial nor session.
    Vacant,
    /// One dial.
    Dialing {
        /// The dial's handle.
        dial: &'a D,
        /// How far it is.
        phase: Phase,
        /// How many callers wait for it.
        waiters: u32,
    },
    /// One session.
    Ready {
        /// The session's id.
        id: SessionId,
        /// The session's handle.
        session: &'a S,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum State<D, S> {
    Vacant,
    Dialing(Dialing<D>),
    Ready(Ready<S>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Dialing<D> {
    attempt: AttemptId,
    phase: Phase,
    waiters: u32,
    dial: D,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ready<S> {
    pub(super) id: SessionId,
    pub(super) claim: Claim,
    /// The instance that this session's instance displaced, to notice alternation.
    displaced_instance: Option<u64>,
    session: S,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Superseded<D> {
    attempt: AttemptId,
    dial: D,
    /// The application disconnected the peer, or the pool drains: do not adopt a late accept.
    pub(super) cancelled: bool,
}

/// What the pool knows of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slot<D, S> {
    pub(super) state: State<D, S>,
    /// Committed dials that lost the slot and await their verdicts; nearly always empty.
    pub(super) superseded: Vec<Superseded<D>>,
}

impl<D, S> Default for Slot<D, S> {
    fn default() -> Self {
        Self { state: State::Vacant, superseded: Vec::new() }
    }
}

impl<D: Clone, S> Slot<D, S> {
    /// Whether nothing is known of the peer any more, so that the entry can go.
    pub(crate) fn is_vacant(&self) -> bool {
        matches!(self.state, State::Vacant) && self.superseded.is_empty()
    }

    /// What stands in the slot.
    pub(crate) fn view(&self) -> View<'_, D, S> {
        match &self.state {
            State::Vacant => View::Vacant,
            State::Dialing(d) => {
                View::Dialing { dial: &d.dial, phase: d.phase, waiters: d.waiters }
            }
            State::Ready(r) => View::Ready { id: r.id, session: &r.session },
        }
    }

    /// The session's handle, if there is a session.
    pub(crate) fn session(&self) -> Option<&S> {
        match &self.state {
            State::Ready(r) => Some(&r.session),
            _ => None,
        }
    }

    /// The session's handle, to be changed in place.
    pub(crate) fn session_mut(&mut self) -> Option<&mut S> {
        match &mut self.state {
            State::Ready(r) => Some(&mut r.session),
            _ => None,
        }
    }

    /// The superseded dials whose verdicts are awaited.
    pub(crate) fn superseded(&self) -> impl ExactSizeIterator<Item = &D> {
        self.superseded.iter().map(|s| &s.dial)
    }

    // ---- dials ---------------------------------------------------------------------------------

    /// A caller asks and nothing is there. Vacant → `Dialing{open, 1 waiter}`.
    ///
    /// Returns whether the dial was begun; a slot that is not vacant stays as it is.
    pub(crate) fn dial(&mut self, attempt: AttemptId, dial: D) -> bool {
        if !matches!(self.state, State::Vacant) {
            return false;
        }
        self.state = State::Dialing(Dialing { attempt, phase: Phase::Open, waiters: 1, dial });
        true
    }

    /// Another caller joins the dial that is under way. `Dialing{n}` → `Dialing{n + 1}`.
    pub(crate) fn join(&mut self) -> Option<D> {
        match &mut self.state {
            State::Dialing(d) => {
                d.waiters = d.waiters.saturating_add(1);
                Some(d.dial.clone())
            }
            _ => None,
        }
    }

    /// A caller no longer waits. `Dialing{open, 1}` → vacant, and the dial is handed back to be
    /// stopped; a committed dial goes on without waiters; any other attempt is left alone.
    pub(crate) fn leave(&mut self, attempt: AttemptId) -> Option<D> {
        let State::Dialing(d) = &mut self.state else { return None };
        if d.attempt != attempt {
            return None;
        }
        d.waiters = d.waiters.saturating_sub(1);
        if d.waiters > 0 || d.phase == Phase::Committed {
            return None;
        }
        self.take_dial().map(|d| d.dial)
    }

    /// The dial is about to write message 3. `Dialing{open}` → `Dialing{committed}`.
    ///
    /// This is the linearisation point against inbound connections, disconnects and the last
    /// waiter's leaving. False: the dial lost its slot and must write nothing. After
    /// [`Slot::reopen`] it may commit again, on another connection and with a new stamp.
    pub(crate) fn commit(&mut self, attempt: AttemptId) -> bool {
        match &mut self.state {
            State::Dialing(d) if d.attempt == attempt => {
                d.phase = Phase::Committed;
                true
            }
            _ => false,
        }
    }

    /// The committed connection ended without a session: refused, lost, or without a verdict in
    /// time. `Dialing{committed}` → `Dialing{open}`, so that another connection, which may be parked
    /// here or under way, can take the slot and serve the waiters. False: somebody else has it
    /// already, or no caller waits any more, and the dial must end.
    pub(crate) fn reopen(&mut self, attempt: AttemptId) -> bool {
        match &mut self.state {
            State::Dialing(d) if d.attempt == attempt && d.waiters > 0 => {
                d.phase = Phase::Open;
                true
            }
            _ => false,
        }
    }

    /// The dial ended without a session: rejected, broken or timed out. `Dialing` → vacant; a
    /// superseded dial is forgotten.
    pub(crate) fn dial_ended(&mut self, attempt: AttemptId) -> Ended<D> {
        self.superseded.retain(|s| s.attempt != attempt);
        match &self.state {
            State::Dialing(d) if d.attempt == attempt => match self.take_dial() {
                Some(d) => Ended::Current(d.dial),
                None => Ended::Forgotten,
            },
            _ => Ended::Forgotten,
        }
    }

    // ---- inbound connections -------------------------------------------------------------------

    /// Judges an inbound connection whose message 3 has passed its checks; changes nothing.
    pub(crate) fn judge(
        &self,
        claim: &Claim,
        order: KeyOrder,
        hearing: Hearing,
    ) -> InboundDecision {
        judge_inbound(self.standing(), claim, order, hearing)
    }

    /// Installs an inbound session that [`Slot::judge`] accepted under the same lock.
    /// Any → Ready.
    pub(crate) fn install_inbound(
        &mut self,
        id: SessionId,
        claim: Claim,
        session: S,
    ) -> Displaced<D, S> {
        self.install(id, claim, session)
    }

    // ---- verdicts on our dials -----------------------------------------------------------------

    /// Judges an accept that arrived on a dial of ours; changes nothing.
    pub(crate) fn accepted(&self, attempt: AttemptId, claim: &Claim) -> AcceptDecision {
        let dial = match &self.state {
            State::Dialing(d) if d.attempt == attempt => DialStanding::Current,
            _ => match self.superseded.iter().find(|s| s.attempt == attempt) {
                Some(Superseded { cancelled: false, .. }) => DialStanding::Superseded,
                // One that the slot does not know was aborted, with its waiters told.
                Some(Superseded { cancelled: true, .. }) | None => DialStanding::Cancelled,
            },
        };
        judge_accept(dial, self.standing(), claim)
    }

    /// Installs the session of a dial that [`Slot::accepted`] adopts under the same lock.
    /// Any → Ready. In the ordinary case the displaced dial is the dial itself.
    pub(crate) fn install_outbound(
        &mut self,
        attempt: AttemptId,
        id: SessionId,
        claim: Claim,
        session: S,
    ) -> Displaced<D, S> {
        self.superseded.retain(|s| s.attempt != attempt);
        // The dial that became this session is not superseded by it.
        let own = match &self.state {
            State::Dialing(d) if d.attempt == attempt => self.take_dial(),
            _ => None,
        };
        let mut displaced = self.install(id, claim, session);
        if let Some(own) = own {
            displaced.dial = Some((own.dial, own.phase));
        }
        displaced
    }

    // ---- sessions ------------------------------------------------------------------------------

    /// The peer's first frame on a session arrived, or was awaited for long enough.
    /// `Ready(id, presumed)` → `Ready(id, claim)`; anything else is left alone.
    ///
    /// What is parked here is to be judged again.
    #[cfg_attr(
        not(any(test, fuzzing)),
        expect(dead_code, reason = "the native wire has verdicts and stamps; others presume")
    )]
    pub(crate) fn confirm(&mut self, id: SessionId, claim: Claim) {
        if let State::Ready(r) = &mut self.state
            && r.id == id
            && r.claim.is_presumed()
        {
            r.claim = claim;
        }
    }

    /// A session ended or is being retired. `Ready(id)` → vacant; any other session is left alone,
    /// so that a stale handle never removes its successor.
    pub(crate) fn remove(&mut self, id: SessionId) -> Option<S> {
        self.remove_if(id, Ok)
    }

    /// A session is to make room or has been idle for long. `Ready(id)` → vacant, if `close` lets the
    /// session go; it gives it back otherwise, and nothing has changed.
    pub(crate) fn remove_if(
        &mut self,
        id: SessionId,
        close: impl FnOnce(S) -> Result<S, S>,
    ) -> Option<S> {
        match std::mem::replace(&mut self.state, State::Vacant) {
            State::Ready(Ready { id: held, claim, displaced_instance, session }) if held == id => {
                match close(session) {
                    Ok(session) => Some(session),
                    Err(session) => {
                        self.state = State::Ready(Ready { id, claim, displaced_instance, session });
                        None
                    }
                }
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// The application disconnects the peer, or the pool drains. Any → vacant, with every dial
    /// whose verdict is awaited marked, so that a late accept is drained.
    pub(crate) fn disconnect(&mut self) -> Disconnected<D, S> {
        for s in &mut self.superseded {
            s.cancelled = true;
        }
        match std::mem::replace(&mut self.state, State::Vacant) {
            State::Vacant => Disconnected { dial: None, session: None },
            State::Dialing(d) => {
                if d.phase == Phase::Committed {
                    self.superseded.push(Superseded {
                        attempt: d.attempt,
                        dial: d.dial.clone(),
                        cancelled: true,
                    });
                }
                Disconnected { dial: Some((d.dial, d.phase)), session: None }
            }
            State::Ready(r) => Disconnected { dial: None, session: Some(r.session) },
        }
    }

    // ---- helpers -------------------------------------------------------------------------------

    fn standing(&self) -> Standing<'_> {
        match &self.state {
            State::Vacant => Standing::Vacant,
            State::Dialing(d) => Standing::Dialing(d.phase),
            State::Ready(r) => Standing::Ready(&r.claim),
        }
    }

    fn take_dial(&mut self) -> Option<Dialing<D>> {
        match std::mem::replace(&mut self.state, State::Vacant) {
            State::Dialing(d) => Some(d),
            other => {
                self.state = other;
                None
            }
        }
    }

    fn install(&mut self, id: SessionId, claim: Claim, session: S) -> Displaced<D, S> {
        let fresh =
            |displaced_instance| State::Ready(Ready { id, claim, displaced_instance, session });
        match std::mem::replace(&mut self.state, State::Vacant) {
            State::Vacant => {
                self.state = fresh(None);
                Displaced { dial: None, session: None, conflict: false }
            }
            State::Dialing(d) => {
                if d.phase == Phase::Committed {
                    self.superseded.push(Superseded {
                        attempt: d.attempt,
                        dial: d.dial.clone(),
                        cancelled: false,
                    });
                }
                self.state = fresh(None);
                Displaced { dial: Some((d.dial, d.phase)), session: None, conflict: false }
            }
            State::Ready(old) => {
                // Without instances nothing tells a restarted peer from a second process.
                let reborn = old.claim.instance() != claim.instance();
                let conflict = reborn
                    && claim.instance().is_some()
                    && old.displaced_instance == claim.instance();
                self.state =
                    fresh(if reborn { old.claim.instance() } else { old.displaced_instance });
                Displaced { dial: None, session: Some(old.session), conflict }
            }
        }
    }
}

#[cfg(test)]
#[path = "../../verify/proto/slot/machine.rs"]
mod tests;
