//! The faults that the model must find, each planted between the pool and the machine.
//!
//! Owns every place where a fault changes what the machine is told or what it answers; the machine
//! itself knows nothing of them. With no fault each function is a plain call.

use crate::base::error::RejectReason;
use crate::base::id::{AttemptId, SessionId};
use crate::proto::slot::machine::State;
use crate::proto::slot::{
    AcceptDecision, Claim, Disconnected, Ended, Hearing, InboundCase, InboundDecision, KeyOrder,
    Slot,
};

use super::connection::{End, Id, Side};
use super::{Scenario, Wire};

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Whatever comes replaces what is held.
    NewcomerWins,
    /// Whatever is held stays.
    HolderWins,
    /// Each end takes the other's key for the larger.
    BothAccept,
    /// Each end takes its own key for the larger.
    BothPark,
    /// What arrives after our own `Drain` is not read.
    DrainDoesNotRead,
    /// What must be parked is rejected.
    RejectInsteadOfPark,
    /// A dial ends with its last waiter, committed or not.
    CommittedDialCut,
    /// A restarted peer keeps its instance.
    OneInstance,
    /// A connection of another instance than the held one's is newer.
    OtherInstanceWins,
    /// A dial's second message 3 carries the stamp of its first.
    OneStampPerDial,
    /// `disconnect` does not mark the dials that were superseded before.
    DisconnectMissesSuperseded,
    /// The machine is not told that a superseded dial ended.
    SupersededForgotten,
    /// A session that ended takes whatever session stands in the slot with it.
    RemovalByKey,
    /// A message whose session broke is sent again.
    BlindRepeat,
    /// A message that travelled with a refused dial is forgotten.
    FirstMessageForgotten,
    /// A message that travels with a dial is opened before the verdict.
    OpensBeforeVerdict,
    /// Without stamps, connections are dated by the order in which their handshakes ended.
    DatedByHandshakeEnd,
    /// Without verdicts, whatever comes replaces a session that is presumed.
    PresumptionYields,
}

/// What dates a connection at one of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Message 1 arrives.
    MessageOne,
    /// Message 2 arrives.
    MessageTwo,
    /// Message 3 is written, or arrives.
    MessageThree,
    /// The responder's first frame arrives.
    FirstFrame,
}

/// Whether the moment is the one whose order counts.
pub(super) fn dates(scenario: &Scenario, moment: Moment) -> bool {
    match scenario.wire {
        Wire::Stamped => matches!(moment, Moment::MessageOne | Moment::MessageTwo),
        Wire::Unstamped if scenario.fault == Some(Fault::DatedByHandshakeEnd) => {
            moment == Moment::MessageThree
        }
        Wire::Unstamped => matches!(moment, Moment::MessageOne | Moment::FirstFrame),
    }
}

/// What an end claims for its connection.
pub(super) fn claim(scenario: &Scenario, end: &End, stamp: u8) -> Claim {
    let heard = u64::from(end.heard);
    match scenario.wire {
        Wire::Stamped => {
            Claim::stamped(instance(scenario.fault, end.epoch), u64::from(stamp), heard)
        }
        Wire::Unstamped => Claim::unstamped(heard),
    }
}

/// The instance that a node's incarnation announces.
fn instance(fault: Option<Fault>, epoch: u8) -> u64 {
    if fault == Some(Fault::OneInstance) { 1 } else { u64::from(epoch) + 1 }
}

/// [`Slot::judge`].
pub(super) fn judge(
    fault: Option<Fault>,
    slot: &Slot<u8, Id>,
    side: Side,
    claim: &Claim,
    hearing: Hearing,
) -> InboundDecision {
    let order = match (fault, side) {
        (Some(Fault::BothAccept), _) => KeyOrder::PeerLarger,
        (Some(Fault::BothPark), _) | (_, 1) => KeyOrder::PeerSmaller,
        _ => KeyOrder::PeerLarger,
    };
    match slot.judge(&altered(fault, slot, claim), order, hearing) {
        InboundDecision::Park
            if fault == Some(Fault::PresumptionYields) && slot.session().is_some() =>
        {
            InboundDecision::Accept(InboundCase::RetiresSession)
        }
        InboundDecision::Park if fault == Some(Fault::RejectInsteadOfPark) => {
            InboundDecision::Reject(RejectReason::Simultaneous)
        }
        judgement => judgement,
    }
}

/// [`Slot::accepted`].
pub(super) fn accepted(
    fault: Option<Fault>,
    slot: &Slot<u8, Id>,
    attempt: AttemptId,
    claim: &Claim,
) -> AcceptDecision {
    slot.accepted(attempt, &altered(fault, slot, claim))
}

/// [`Slot::disconnect`].
pub(super) fn disconnect(fault: Option<Fault>, slot: &mut Slot<u8, Id>) -> Disconnected<u8, Id> {
    let before = slot.superseded.clone();
    let taken = slot.disconnect();
    if fault == Some(Fault::DisconnectMissesSuperseded) {
        for (now, then) in slot.superseded.iter_mut().zip(before) {
            now.cancelled = then.cancelled;
        }
    }
    taken
}

/// [`Slot::dial_ended`].
pub(super) fn dial_ended(
    fault: Option<Fault>,
    slot: &mut Slot<u8, Id>,
    attempt: AttemptId,
) -> Ended<u8> {
    let before = slot.superseded.clone();
    let ended = slot.dial_ended(attempt);
    if fault == Some(Fault::SupersededForgotten) {
        slot.superseded = before;
    }
    ended
}

/// [`Slot::remove`].
pub(super) fn remove(fault: Option<Fault>, slot: &mut Slot<u8, Id>, id: SessionId) -> Option<Id> {
    match &slot.state {
        State::Ready(held) if fault == Some(Fault::RemovalByKey) => slot.remove(held.id),
        _ => slot.remove(id),
    }
}

/// The claim as a faulty comparison would take it.
fn altered(fault: Option<Fault>, slot: &Slot<u8, Id>, claim: &Claim) -> Claim {
    let mut claim = *claim;
    let State::Ready(held) = &slot.state else { return claim };
    if let (Some(ours), Some(held)) = (&mut claim.stamped, &held.claim.stamped) {
        match fault {
            Some(Fault::NewcomerWins) => {
                (ours.instance, ours.stamp) = (held.instance, held.stamp + 1);
            }
            Some(Fault::HolderWins) => (ours.instance, ours.stamp) = (held.instance, held.stamp),
            _ => {}
        }
    }
    if fault == Some(Fault::OtherInstanceWins) && claim.instance() != held.claim.instance() {
        claim.heard = held.claim.heard + 1;
    }
    claim
}
