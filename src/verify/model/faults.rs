//! The faults that the model must find, each planted between the pool and the machine.
//!
//! Owns every place where a fault changes what the machine is told or what it answers; the machine
//! itself knows nothing of them. With no fault each function is a plain call.

use crate::base::error::RejectReason;
use crate::base::id::{AttemptId, SessionId};
use crate::proto::slot::{
    Acceptance, Claim, Disconnected, Ended, InboundDecision, KeyOrder, Slot, State,
};

use super::connection::{Id, Side};

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
}

/// The instance that a node's incarnation announces.
pub(super) fn instance(fault: Option<Fault>, epoch: u8) -> u64 {
    if fault == Some(Fault::OneInstance) { 1 } else { u64::from(epoch) + 1 }
}

/// [`Slot::judge`].
pub(super) fn judge(
    fault: Option<Fault>,
    slot: &Slot<u8, Id>,
    side: Side,
    claim: &Claim,
    parked: bool,
) -> InboundDecision {
    let order = match (fault, side) {
        (Some(Fault::BothAccept), _) => KeyOrder::PeerLarger,
        (Some(Fault::BothPark), _) | (_, 1) => KeyOrder::PeerSmaller,
        _ => KeyOrder::PeerLarger,
    };
    match slot.judge(&altered(fault, slot, claim), order, parked) {
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
) -> Acceptance {
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
    if let State::Ready(held) = &slot.state {
        let held = &held.claim;
        match fault {
            Some(Fault::NewcomerWins) => {
                (claim.instance, claim.stamp) = (held.instance, held.stamp + 1);
            }
            Some(Fault::HolderWins) => (claim.instance, claim.stamp) = (held.instance, held.stamp),
            Some(Fault::OtherInstanceWins) if claim.instance != held.instance => {
                claim.heard = held.heard + 1;
            }
            _ => {}
        }
    }
    claim
}
