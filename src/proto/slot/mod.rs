//! The slot machine: what the pool knows of one peer, and which of two connections lives.
//!
//! Owns every decision about "exactly one session per peer": the phases of a dial, the simultaneous
//! open, who supersedes whom, and what a late accept means. It is pure: the handles of a dial (`D`)
//! and of a session (`S`) are opaque to it, what it displaces it hands back, and the caller acts on
//! that when its lock is gone. Each method is one event; its doc says From → To.
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

use crate::base::error::RejectReason;
use crate::base::id::{AttemptId, PeerId, SessionId};

/// How a peer dates one of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    /// The peer's instance: random per pool, so that a restarted peer is told from its past.
    pub(crate) instance: u64,
    /// The peer's stamp: strictly increasing within an instance.
    pub(crate) stamp: u64,
    /// Our own order of arrival of the peer's first message on the connection.
    pub(crate) heard: u64,
}

impl Claim {
    /// Whether a connection with this claim was made after one with the claim `held`, so that the
    /// peer has given the held one up.
    ///
    /// Within one instance the peer's own stamps decide. Across instances they do not compare, and
    /// the order in which we first heard from each does: a dead incarnation's message that was
    /// under way for long was still heard first.
    pub(crate) fn supersedes(&self, held: &Claim) -> bool {
        if self.instance == held.instance {
            self.stamp > held.stamp
        } else {
            self.heard > held.heard
        }
    }
}

/// Whether a dial may still be given up without the peer noticing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Message 3 is not written: the peer cannot have accepted.
    Open,
    /// Message 3 is being written or is out: the peer may have accepted.
    Committed,
}

/// Whose key is the larger; it decides which of two committed dials wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum KeyOrder {
    /// The peer's key is larger than ours: its dial wins.
    PeerLarger,
    /// The peer's key is smaller than ours: our dial wins.
    PeerSmaller,
}

impl KeyOrder {
    /// Compares the peer's key with ours, as bytes.
    pub(crate) fn of(peer: &PeerId, ours: &PeerId) -> Self {
        if peer > ours { Self::PeerLarger } else { Self::PeerSmaller }
    }
}

/// What to do with an inbound connection whose message 3 has passed its checks.
///
/// The rows are those of the first table of the simultaneous-open rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum InboundDecision {
    /// Accept it; the row says what it displaces.
    Accept(InboundCase),
    /// Send nothing until our committed dial is decided, then judge it again.
    Park,
    /// Refuse it: a session that is at least as new exists.
    Reject(RejectReason),
}

/// Why an inbound connection is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum InboundCase {
    /// Nothing stood in the slot.
    Vacant,
    /// Our dial was open: it is aborted.
    AbortsDial,
    /// Our dial was committed, and the peer's key is larger: it is superseded.
    SupersedesDial,
    /// The peer has given up the session that we hold: it is retired.
    RetiresSession,
}

/// What to do with an accept that arrives on a dial of ours.
///
/// The rows are those of the second table of the simultaneous-open rule, and the ordinary case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Acceptance {
    /// Pool the session; the row says what it displaces.
    Adopt(AcceptCase),
    /// The session is not wanted, but the peer may have sent on it: drain it, never cut it.
    Drain(DrainCase),
}

/// Why an accepted dial becomes the peer's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AcceptCase {
    /// The dial holds the slot: the ordinary case.
    Current,
    /// It was superseded, and the slot is vacant by now.
    LateVacant,
    /// It was superseded, and a later dial that is open is aborted.
    LateAbortsDial,
    /// It was superseded, and a later dial that is committed is superseded in turn.
    LateSupersedesDial,
    /// It was superseded, and is newer than the session that we hold, which is retired.
    LateRetiresSession,
}

/// Why an accepted dial is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DrainCase {
    /// The application disconnected the peer, or the pool drains.
    Cancelled,
    /// It was superseded, and the session that we hold is at least as new.
    Stale,
}

/// What an installed session displaced; act on it when the lock is gone.
#[derive(Debug)]
pub(crate) struct Displaced<D, S> {
    /// The dial whose waiters get the new session instead, and whether it goes on to its verdict.
    pub(crate) dial: Option<(D, Phase)>,
    /// The session that is to be retired as superseded.
    pub(crate) session: Option<S>,
    /// The peer's instances alternate: two processes run one key.
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
    /// It had been superseded, disconnected or aborted: nobody waits for it.
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
enum State<D, S> {
    Vacant,
    Dialing(Dialing<D>),
    Ready(Ready<S>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Dialing<D> {
    attempt: AttemptId,
    phase: Phase,
    waiters: u32,
    dial: D,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ready<S> {
    id: SessionId,
    claim: Claim,
    /// The instance that this session's instance displaced, to notice alternation.
    displaced_instance: Option<u64>,
    session: S,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Superseded<D> {
    attempt: AttemptId,
    dial: D,
    /// The application disconnected the peer, or the pool drains: do not adopt a late accept.
    cancelled: bool,
}

/// What the pool knows of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slot<D, S> {
    state: State<D, S>,
    /// Committed dials that lost the slot and await their verdicts; nearly always empty.
    superseded: Vec<Superseded<D>>,
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
    /// already, or nobody waits any more, and the dial must end.
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
    ///
    /// `parked` says that the connection was parked before: then a refusal names the simultaneous
    /// dial that won.
    pub(crate) fn judge(&self, claim: &Claim, order: KeyOrder, parked: bool) -> InboundDecision {
        match &self.state {
            State::Vacant => InboundDecision::Accept(InboundCase::Vacant),
            State::Dialing(Dialing { phase: Phase::Open, .. }) => {
                InboundDecision::Accept(InboundCase::AbortsDial)
            }
            State::Dialing(Dialing { phase: Phase::Committed, .. }) => match order {
                KeyOrder::PeerLarger => InboundDecision::Accept(InboundCase::SupersedesDial),
                KeyOrder::PeerSmaller => InboundDecision::Park,
            },
            State::Ready(held) if claim.supersedes(&held.claim) => {
                InboundDecision::Accept(InboundCase::RetiresSession)
            }
            State::Ready(_) if parked => InboundDecision::Reject(RejectReason::Simultaneous),
            State::Ready(_) => InboundDecision::Reject(RejectReason::Duplicate),
        }
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
    pub(crate) fn accepted(&self, attempt: AttemptId, claim: &Claim) -> Acceptance {
        if let State::Dialing(d) = &self.state
            && d.attempt == attempt
        {
            return Acceptance::Adopt(AcceptCase::Current);
        }
        match self.superseded.iter().find(|s| s.attempt == attempt) {
            None | Some(Superseded { cancelled: true, .. }) => {
                Acceptance::Drain(DrainCase::Cancelled)
            }
            Some(_) => match &self.state {
                State::Vacant => Acceptance::Adopt(AcceptCase::LateVacant),
                State::Dialing(Dialing { phase: Phase::Open, .. }) => {
                    Acceptance::Adopt(AcceptCase::LateAbortsDial)
                }
                State::Dialing(Dialing { phase: Phase::Committed, .. }) => {
                    Acceptance::Adopt(AcceptCase::LateSupersedesDial)
                }
                State::Ready(held) if claim.supersedes(&held.claim) => {
                    Acceptance::Adopt(AcceptCase::LateRetiresSession)
                }
                State::Ready(_) => Acceptance::Drain(DrainCase::Stale),
            },
        }
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
                let reborn = old.claim.instance != claim.instance;
                let conflict = reborn && old.displaced_instance == Some(claim.instance);
                self.state =
                    fresh(if reborn { Some(old.claim.instance) } else { old.displaced_instance });
                Displaced { dial: None, session: Some(old.session), conflict }
            }
        }
    }
}

#[cfg(test)]
#[path = "../../verify/model/mod.rs"]
mod model;

#[cfg(test)]
#[path = "../../verify/proto/slot.rs"]
mod tests;
