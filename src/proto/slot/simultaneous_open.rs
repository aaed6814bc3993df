#![doc = include_str!("../../../docs/simultaneous_open.md")]
//!
//! # In the code
//!
//! This file owns the rule, as types and pure functions: [`judge_inbound`] is the first table,
//! [`judge_accept`] the second, [`Claim::supersedes`] the order of two connections. It must never
//! hold or change what stands in a slot: [`Slot`](super::Slot) does, and applies the rule under its
//! lock. Parking and reopening are events of the slot; what happens while a dial pauses for a parked
//! connection is [`dial_policy`](crate::proto::dial_policy).

use crate::base::error::RejectReason;
use crate::base::id::PeerId;

/// How a peer dates one of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    /// The peer's own date, if the wire has one.
    pub(super) stamped: Option<Stamped>,
    /// Our own order of arrival, counted from 1. Stamped: of the peer's first message on the
    /// connection. Unstamped: of message 1 if the peer dialled, of its first frame if we did; 0
    /// while the accept is presumed.
    pub(crate) heard: u64,
}

/// The peer's own date of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stamped {
    /// The peer's instance: random per pool, so that a restarted peer is told from its past.
    pub(super) instance: u64,
    /// The peer's stamp: strictly increasing within an instance.
    pub(super) stamp: u64,
}

impl Claim {
    /// The claim of a connection on a wire with stamps.
    pub(crate) const fn stamped(instance: u64, stamp: u64, heard: u64) -> Self {
        Self { stamped: Some(Stamped { instance, stamp }), heard }
    }

    /// The claim of a connection on a wire without stamps.
    pub(crate) const fn unstamped(heard: u64) -> Self {
        Self { stamped: None, heard }
    }

    /// The claim of a dial of ours, on a wire without stamps, that is presumed to be accepted.
    #[cfg_attr(
        not(any(test, fuzzing)),
        expect(dead_code, reason = "the native wire has verdicts and stamps; others presume")
    )]
    pub(crate) const fn presumed() -> Self {
        Self::unstamped(0)
    }

    /// Whether the peer has not shown that it accepted.
    pub(super) const fn is_presumed(&self) -> bool {
        self.stamped.is_none() && self.heard == 0
    }

    /// The peer's instance, if the wire names one.
    pub(crate) fn instance(&self) -> Option<u64> {
        self.stamped.map(|stamped| stamped.instance)
    }

    /// Whether a connection with this claim was made after one with the claim `held`, so that the
    /// peer has given the held one up.
    ///
    /// Within one instance the peer's own stamps decide. Across instances they do not compare, and
    /// the order in which we first heard from each does: a dead incarnation's message that was
    /// under way for long was still heard first. Without stamps our own order is all there is.
    pub(crate) fn supersedes(&self, held: &Claim) -> bool {
        match (&self.stamped, &held.stamped) {
            (Some(ours), Some(theirs)) if ours.instance == theirs.instance => {
                ours.stamp > theirs.stamp
            }
            _ => self.heard > held.heard,
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

/// What stands in the slot, as far as the rule depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Standing<'a> {
    /// Neither dial nor session.
    Vacant,
    /// A dial of ours.
    Dialing(Phase),
    /// A session, with its claim.
    Ready(&'a Claim),
}

// ---- an inbound connection ---------------------------------------------------------------------

/// How often an inbound connection has been judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hearing {
    /// It has just passed its checks.
    First,
    /// It was parked, and what parked it is decided: a refusal names our dial.
    AfterParking,
}

/// What to do with an inbound connection whose message 3 has passed its checks: the first table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum InboundDecision {
    /// Accept it; the case says what it displaces.
    Accept(InboundCase),
    /// Send nothing until our committed dial is decided, or our presumed session confirmed or
    /// ended; then judge it again.
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

/// The first table.
pub(super) fn judge_inbound(
    standing: Standing<'_>,
    claim: &Claim,
    order: KeyOrder,
    hearing: Hearing,
) -> InboundDecision {
    match (standing, order, hearing) {
        (Standing::Vacant, ..) => InboundDecision::Accept(InboundCase::Vacant),
        (Standing::Dialing(Phase::Open), ..) => InboundDecision::Accept(InboundCase::AbortsDial),
        (Standing::Dialing(Phase::Committed), KeyOrder::PeerLarger, _) => {
            InboundDecision::Accept(InboundCase::SupersedesDial)
        }
        (Standing::Dialing(Phase::Committed), KeyOrder::PeerSmaller, _) => InboundDecision::Park,
        // Its dial is committed and undecided still, though its waiters have the session.
        (Standing::Ready(held), KeyOrder::PeerSmaller, _) if held.is_presumed() => {
            InboundDecision::Park
        }
        (Standing::Ready(held), ..) if claim.supersedes(held) => {
            InboundDecision::Accept(InboundCase::RetiresSession)
        }
        (Standing::Ready(_), _, Hearing::First) => InboundDecision::Reject(RejectReason::Duplicate),
        (Standing::Ready(_), _, Hearing::AfterParking) => {
            InboundDecision::Reject(RejectReason::Simultaneous)
        }
    }
}

// ---- an accept on a dial of ours ---------------------------------------------------------------

/// How a dial stands whose accept arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DialStanding {
    /// It holds the slot.
    Current,
    /// It was committed when another connection took the slot.
    Superseded,
    /// The application disconnected the peer, or the pool drains.
    Cancelled,
}

/// What to do with an accept that arrives on a dial of ours: the second table, and the ordinary case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AcceptDecision {
    /// Pool the session; the case says what it displaces.
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

/// The second table.
pub(super) fn judge_accept(
    dial: DialStanding,
    standing: Standing<'_>,
    claim: &Claim,
) -> AcceptDecision {
    match (dial, standing) {
        (DialStanding::Current, _) => AcceptDecision::Adopt(AcceptCase::Current),
        (DialStanding::Cancelled, _) => AcceptDecision::Drain(DrainCase::Cancelled),
        (DialStanding::Superseded, Standing::Vacant) => {
            AcceptDecision::Adopt(AcceptCase::LateVacant)
        }
        (DialStanding::Superseded, Standing::Dialing(Phase::Open)) => {
            AcceptDecision::Adopt(AcceptCase::LateAbortsDial)
        }
        (DialStanding::Superseded, Standing::Dialing(Phase::Committed)) => {
            AcceptDecision::Adopt(AcceptCase::LateSupersedesDial)
        }
        (DialStanding::Superseded, Standing::Ready(held)) if claim.supersedes(held) => {
            AcceptDecision::Adopt(AcceptCase::LateRetiresSession)
        }
        (DialStanding::Superseded, Standing::Ready(_)) => AcceptDecision::Drain(DrainCase::Stale),
    }
}
