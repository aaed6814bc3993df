//! What can happen next in a state.
//!
//! Owns the list of moves, and which of them a state allows. What a move does is [`super::pool`].

use crate::proto::slot::{Hearing, InboundDecision};

use super::connection::{Connection, Id, Message, Side, Stage};
use super::world::World;
use super::{Fault, Kind, Scenario, Wire, faults};

/// The number of kinds of bounded events.
pub(super) const KINDS: usize = Kind::Presume as usize + 1;

/// How a session or a process goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// What was accepted is delivered.
    Drain,
    /// At once, and the other end is told.
    Cut,
    /// At once, and nobody is told.
    Silent,
}

/// One thing that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    // What happens by itself, in any order; at rest none of these is left.
    /// The first message under way to this end arrives.
    Deliver(Id, Side),
    /// A parked connection is judged again.
    Judge(Id, Side),
    /// A reopened dial goes on, or ends.
    Resume(Side, u8),
    /// A timeout shows this end that the connection is dead.
    Notice(Id, Side),
    /// The last lease of a retired session returns.
    Return(Id, Side),
    /// The slot is told that a session has ended.
    Forget(Id, Side),
    /// A caller whose dial did not send its message sends it on the session that there is.
    Repeat(Side, u8),

    // What callers, checks and the network do, each a bounded number of times.
    Dial(Side),
    /// A second address joins the race.
    Race(Side, u8),
    Join(Side),
    Leave(Side),
    /// A caller gives its message to the dial.
    Offer(Side, u8),
    /// The application sends on the slot's session, or on a retired one.
    Send(Id, Side),
    /// Message 2 or 3 arrives, and a check of the application refuses the peer.
    Refuse(Id, Side),
    /// The verdict is late.
    Timeout(Id, Side),
    /// The first frame is late, and the accept is presumed.
    Presume(Id, Side),
    /// It is later still, and the presumption counts as confirmed.
    Confirm(Id, Side),
    Break(Id),
    Blackhole(Id),
    /// The session is closed (discarded, evicted, failed a check), at once or by a drain.
    Close(Side, How),
    Retire(Side),
    Disconnect(Side, How),
    Restart(Side, How),
}

impl Move {
    /// Whether it happens by itself.
    pub(super) const fn is_progress(self) -> bool {
        matches!(
            self,
            Self::Deliver(..)
                | Self::Judge(..)
                | Self::Resume(..)
                | Self::Notice(..)
                | Self::Return(..)
                | Self::Forget(..)
                | Self::Repeat(..)
        )
    }
}

/// All that can happen next.
pub(super) fn moves(world: &World, scenario: &Scenario, out: &mut Vec<Move>) {
    out.clear();
    let may = |kind: Kind| world.spent[kind as usize] < scenario.max[kind as usize];
    for c in &world.connections {
        for side in 0..2 {
            on_end(world, c, side, &may, scenario, out);
        }
        let anybody = c.ends.iter().any(|end| end.stage != Stage::Gone);
        if anybody && !c.broken && may(Kind::Break) {
            out.push(Move::Break(c.id));
        }
        if anybody && !c.broken && may(Kind::Blackhole) {
            out.push(Move::Blackhole(c.id));
        }
    }
    for side in 0..2 {
        on_node(world, side, &may, scenario, out);
    }
}

fn on_end(
    world: &World,
    c: &Connection,
    side: Side,
    may: &impl Fn(Kind) -> bool,
    scenario: &Scenario,
    out: &mut Vec<Move>,
) {
    let (id, node, end) = (c.id, &world.nodes[side], &c.ends[side]);
    // A parked connection is not read.
    let is_shut = end.stage == Stage::Parked
        && matches!(c.wire[side].first(), Some(Message::Data(_)))
        && scenario.fault != Some(Fault::OpensBeforeVerdict);
    if let Some(message) = c.wire[side].first().filter(|_| !is_shut) {
        out.push(Move::Deliver(id, side));
        let checked = match message {
            Message::Two { .. } => {
                let dial = node.dials.iter().find(|d| d.number == id.dial());
                dial.is_some_and(|d| d.committed.is_none() && d.lost.is_none())
            }
            Message::Three { .. } => true,
            _ => false,
        };
        if checked && may(Kind::Refuse) {
            out.push(Move::Refuse(id, side));
        }
    }
    if c.is_forsaken(side) {
        out.push(Move::Notice(id, side));
    }
    match end.stage {
        Stage::Parked => {
            let claim = faults::claim(scenario, end, end.stamp);
            let hearing = Hearing::AfterParking;
            let judgement = faults::judge(scenario.fault, &node.slot, side, &claim, hearing);
            if judgement != InboundDecision::Park {
                out.push(Move::Judge(id, side));
            }
        }
        Stage::AwaitsVerdict => match scenario.wire {
            Wire::Stamped if may(Kind::Timeout) && !c.is_forsaken(side) => {
                out.push(Move::Timeout(id, side));
            }
            Wire::Unstamped if may(Kind::Presume) => out.push(Move::Presume(id, side)),
            _ => {}
        },
        Stage::Live if may(Kind::Timeout) && node.presumes(id) => {
            out.push(Move::Confirm(id, side));
        }
        Stage::Retired => out.push(Move::Return(id, side)),
        _ => {}
    }
    if matches!(end.stage, Stage::Live | Stage::Retired) && node.sent < scenario.messages {
        out.push(Move::Send(id, side));
    }
}

fn on_node(
    world: &World,
    side: Side,
    may: &impl Fn(Kind) -> bool,
    scenario: &Scenario,
    out: &mut Vec<Move>,
) {
    let node = &world.nodes[side];
    out.extend(node.ended.iter().map(|id| Move::Forget(*id, side)));
    let is_left = |number: &u8| node.left & 1 << number != 0;
    out.extend((0..scenario.messages).filter(is_left).map(|number| Move::Repeat(side, number)));
    let current = node.current();
    if let Some((.., waiters)) = current {
        if may(Kind::Join) {
            out.push(Move::Join(side));
        }
        if waiters > 0 && may(Kind::Leave) {
            out.push(Move::Leave(side));
        }
    }
    // What is parked here is judged first.
    let parked = world.connections.iter().any(|c| c.ends[side].stage == Stage::Parked);
    for dial in &node.dials {
        if dial.lost.is_some() && !parked {
            out.push(Move::Resume(side, dial.number));
        }
        let racing = current.is_some_and(|(number, ..)| number == dial.number);
        let offers = scenario.first_messages && node.sent < scenario.messages;
        if racing && offers && dial.first.is_none() {
            out.push(Move::Offer(side, dial.number));
        }
        if racing && dial.addresses < scenario.addresses - 1 {
            out.push(Move::Race(side, dial.number));
        }
    }
    if node.slot.session().is_some() {
        for (kind, event) in [
            (Kind::Drain, Move::Close(side, How::Drain)),
            (Kind::Cut, Move::Close(side, How::Cut)),
            (Kind::Retire, Move::Retire(side)),
        ] {
            if may(kind) {
                out.push(event);
            }
        }
    } else if current.is_none() && node.dialled < scenario.dials {
        out.push(Move::Dial(side));
    }
    if !node.slot.is_vacant() && may(Kind::Disconnect) {
        out.push(Move::Disconnect(side, How::Drain));
        if node.slot.session().is_some() {
            out.push(Move::Disconnect(side, How::Cut));
        }
    }
    let something = world.connections.iter().any(|c| c.ends[side].stage != Stage::Gone);
    if something && may(Kind::Restart) {
        out.push(Move::Restart(side, How::Cut));
        out.push(Move::Restart(side, How::Silent));
    }
}
