//! The state of the model: two nodes with one real slot each, and the connections between them.
//!
//! Owns the canonical form (equal situations are equal values) and the invariants. It makes no
//! moves: what happens is in [`super::pool`].

use std::fmt;

use crate::base::id::{AttemptId, SessionId};
use crate::proto::slot::machine::State;
use crate::proto::slot::{Phase, Slot, View};

use super::connection::{Connection, End, Id, Message, Side, Stage, other};
use super::moves::KINDS;
use super::{Kind, Scenario, Wire};

/// The real machine's id of a node's n-th dial.
pub(super) fn attempt(dial: u8) -> AttemptId {
    AttemptId::from_raw(u64::from(dial) + 1)
}

/// The pool's task behind one dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Dial {
    pub(super) number: u8,
    /// Connections begun so far.
    pub(super) connections: u8,
    /// Second addresses tried so far.
    pub(super) addresses: u8,
    /// How often it was redialled after the peer named another connection.
    pub(super) redials: u8,
    /// The connection whose verdict is awaited.
    pub(super) committed: Option<Id>,
    /// The committed connection ended without a session, and the dial has not gone on yet.
    pub(super) lost: Option<Lost>,
    /// Whether it has committed before.
    pub(super) again: bool,
    /// The first stamp drawn, which only the fault "one stamp per dial" uses.
    pub(super) stamp: u8,
    /// The application has disconnected the peer since the dial began.
    pub(super) disconnected: bool,
    /// A connection of it broke, or was refused by a check: its waiters may fail.
    pub(super) harmed: bool,
    /// A caller's message.
    pub(super) first: Option<First>,
}

/// A message that travels with a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum First {
    /// It goes with the next commit.
    Waiting(u8),
    /// It is under way, and the verdict on it is awaited.
    Left(u8),
}

/// Why a committed connection ended without a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lost {
    /// It broke, or its verdict did not come in time.
    Broken,
    /// The peer named another connection.
    Other,
    /// A check of the peer refused it.
    Refused,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node {
    /// The machine under test. A dial's handle is its number, a session's its connection.
    pub(super) slot: Slot<u8, Id>,
    pub(super) dials: Vec<Dial>,
    /// Sessions that have ended, of which the slot has not been told yet.
    pub(super) ended: Vec<Id>,
    /// Incarnation: grows with each restart.
    pub(super) epoch: u8,
    /// The stamp drawn last.
    pub(super) stamp: u8,
    /// The number of connections on which the peer was heard.
    pub(super) heard: u8,
    /// Dials begun so far.
    pub(super) dialled: u8,
    /// Messages accepted so far.
    pub(super) sent: u8,
    /// Messages of the peer that were delivered, one bit each.
    pub(super) delivered: u8,
    /// Messages that callers gave to dials, until they are sent, known to be in doubt, or given back; one
    /// bit each.
    pub(super) owed: u8,
    /// Of those: what dials that have ended left to their callers.
    pub(super) left: u8,
}

impl Node {
    fn new() -> Self {
        Self {
            slot: Slot::default(),
            dials: Vec::new(),
            ended: Vec::new(),
            epoch: 0,
            stamp: 0,
            heard: 0,
            dialled: 0,
            sent: 0,
            delivered: 0,
            owed: 0,
            left: 0,
        }
    }

    pub(super) fn draw_stamp(&mut self) -> u8 {
        self.stamp += 1;
        self.stamp
    }

    pub(super) fn hear(&mut self) -> u8 {
        self.heard += 1;
        self.heard
    }

    /// The dial that holds the slot: its number, phase and waiters.
    pub(super) fn current(&self) -> Option<(u8, Phase, u32)> {
        match self.slot.view() {
            View::Dialing { dial, phase, waiters } => Some((*dial, phase, waiters)),
            _ => None,
        }
    }

    /// Whether the slot's session is this one, and presumed.
    pub(super) fn presumes(&self, id: Id) -> bool {
        matches!(&self.slot.state, State::Ready(held)
            if held.id == SessionId::from_raw(id.raw()) && held.claim.is_presumed())
    }

    /// The dial's task has ended: a message that it did not send is left to its caller.
    pub(super) fn dial_over(&mut self, dial: &Dial) {
        match dial.first {
            Some(First::Waiting(message)) => self.left |= 1 << message,
            // Nobody knows what became of it.
            Some(First::Left(message)) => self.owed &= !(1 << message),
            None => {}
        }
    }

    pub(super) fn dial(&mut self, number: u8) -> Option<&mut Dial> {
        self.dials.iter_mut().find(|d| d.number == number)
    }
}

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Violation {
    TwoSessions,
    HalfOpen,
    NoSession,
    StuckDial,
    StuckSuperseded,
    Leftover,
    WaiterFailed,
    MessageLost,
    MessageTwice,
    CameBack,
    GhostWon,
    DeadPreferred,
    NotOneLive,
    Conflict,
    Unnoticed,
    Machine,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoSessions => "the ends hold different sessions at rest",
            Self::HalfOpen => "a session is half-open at rest",
            Self::NoSession => "there is no session at rest though nothing broke",
            Self::StuckDial => "a dial is stuck",
            Self::StuckSuperseded => "a superseded dial is left in a slot at rest",
            Self::Leftover => "a connection, or a dial's task, is left over at rest",
            Self::WaiterFailed => "a waiter failed though nothing broke",
            Self::MessageLost => "an accepted message is lost on a connection that did not break",
            Self::MessageTwice => "a message is delivered twice",
            Self::CameBack => "a disconnected peer came back by a late accept",
            Self::GhostWon => "a dead incarnation of the peer replaced the live session",
            Self::DeadPreferred => "a peer's live dial was refused in favour of a dead session",
            Self::NotOneLive => "a slot's session is not the one live connection",
            Self::Conflict => "one restarted peer was taken for two processes",
            Self::Unnoticed => "an end can only time out on a connection that did not break",
            Self::Machine => "the machine answered what it must not",
        })
    }
}

/// The whole state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) nodes: [Node; 2],
    /// Ordered by id.
    pub(super) connections: Vec<Connection>,
    /// How often each bounded event has happened.
    pub(super) spent: [u8; KINDS],
    /// What the last move broke.
    pub(super) violation: Option<Violation>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            nodes: [Node::new(), Node::new()],
            connections: Vec::new(),
            spent: [0; KINDS],
            violation: None,
        }
    }

    pub(super) fn connection(&self, id: Id) -> Option<&Connection> {
        self.connections.iter().find(|c| c.id == id)
    }

    /// A connection that exists; the model's moves name no other.
    pub(super) fn at(&mut self, id: Id) -> &mut Connection {
        let Some(c) = self.connections.iter_mut().find(|c| c.id == id) else {
            panic!("{id:?} is gone, and a move names it");
        };
        c
    }

    /// The connections of a dial on which no verdict has come.
    pub(super) fn undecided(&self, side: Side, dial: u8) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(move |c| {
            c.id.initiator() == side
                && c.id.dial() == dial
                && matches!(
                    c.ends[side].stage,
                    Stage::AwaitsAnswer | Stage::Spare | Stage::AwaitsVerdict
                )
        })
    }

    pub(super) fn flag(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// Forgets what nobody can observe any more, and renumbers what is only compared by order.
    pub(super) fn settle(&mut self, scenario: &Scenario) {
        for c in &mut self.connections {
            for side in 0..2 {
                if c.ends[side].stage == Stage::Listens && c.is_forsaken(side) {
                    c.ends[side].stage = Stage::Gone;
                }
                let End { stage, heard, epoch, stamp } = c.ends[side];
                // A session's claim is in the slot, and its epoch serves the checks alone.
                c.ends[side] = match stage {
                    Stage::Parked => End { stage, heard, epoch, stamp },
                    Stage::Live => End { stage, heard: 0, epoch, stamp: 0 },
                    Stage::AwaitsCommit | Stage::Spare | Stage::AwaitsVerdict => {
                        End { stage, heard, epoch, stamp: 0 }
                    }
                    _ => End::at(stage),
                };
            }
        }
        self.connections.retain(|c| c.ends.iter().any(|end| end.stage != Stage::Gone));
        for side in 0..2 {
            let current = self.nodes[side].current().map(|(dial, ..)| dial);
            let mut dials = std::mem::take(&mut self.nodes[side].dials);
            let goes_on = |d: &Dial| {
                current == Some(d.number) || self.undecided(side, d.number).next().is_some()
            };
            let ended: Vec<_> = dials.extract_if(.., |d| !goes_on(d)).collect();
            for dial in ended {
                self.nodes[side].dial_over(&dial);
            }
            self.nodes[side].dials = dials;
        }
        if scenario.renumber {
            for side in 0..2 {
                let mut used = 0;
                if scenario.wire == Wire::Stamped {
                    self.stamps_of(side, |stamp| {
                        used |= 1_u64 << stamp;
                        stamp
                    });
                    self.stamps_of(side, |stamp| rank(used, stamp));
                }
                let mut used = 0;
                self.hearings_of(side, |heard| {
                    used |= 1_u64 << heard;
                    heard
                });
                self.hearings_of(side, |heard| rank(used, heard));
            }
        }
    }

    /// Every stamp that `side` has drawn and that can still be compared.
    fn stamps_of(&mut self, side: Side, mut map: impl FnMut(u8) -> u8) {
        let peer = other(side);
        let drawer = &mut self.nodes[side];
        drawer.stamp = map(drawer.stamp);
        for dial in &mut drawer.dials {
            if dial.stamp > 0 {
                dial.stamp = map(dial.stamp);
            }
        }
        if let State::Ready(ready) = &mut self.nodes[peer].slot.state
            && let Some(stamped) = &mut ready.claim.stamped
        {
            stamped.stamp = u64::from(map(stamped.stamp as u8));
        }
        for c in &mut self.connections {
            if c.ends[peer].stage == Stage::Parked {
                c.ends[peer].stamp = map(c.ends[peer].stamp);
            }
            for message in c.wire[peer].iter_mut() {
                if let Message::Three { stamp, .. } | Message::Accept { stamp } = message {
                    *stamp = map(*stamp);
                }
            }
        }
    }

    /// Every order of arrival that `side` can still compare.
    fn hearings_of(&mut self, side: Side, mut map: impl FnMut(u8) -> u8) {
        let node = &mut self.nodes[side];
        node.heard = map(node.heard);
        if let State::Ready(ready) = &mut node.slot.state
            && ready.claim.heard > 0
        {
            ready.claim.heard = u64::from(map(ready.claim.heard as u8));
        }
        for c in &mut self.connections {
            if c.ends[side].heard > 0 {
                c.ends[side].heard = map(c.ends[side].heard);
            }
        }
    }

    /// What must hold in every state.
    pub(super) fn check_always(&self) -> Option<Violation> {
        if self.violation.is_some() {
            return self.violation;
        }
        for (side, node) in self.nodes.iter().enumerate() {
            let mut live =
                self.connections.iter().filter(|c| c.ends[side].stage == Stage::Live).map(|c| c.id);
            let held = node.slot.session().copied().filter(|id| !node.ended.contains(id));
            if live.next() != held || live.next().is_some() {
                return Some(Violation::NotOneLive);
            }
        }
        None
    }

    /// What must hold when nothing is under way any more.
    pub(super) fn check_rest(&self) -> Option<Violation> {
        let [a, b] = &self.nodes;
        if a.owed | b.owed != 0 {
            return Some(Violation::MessageLost);
        }
        if self.nodes.iter().any(|n| n.current().is_some()) {
            return Some(Violation::StuckDial);
        }
        if self.nodes.iter().any(|n| n.slot.superseded().len() > 0) {
            return Some(Violation::StuckSuperseded);
        }
        match (a.slot.session(), b.slot.session()) {
            (None, None) => {
                if !(a.slot.is_vacant() && b.slot.is_vacant()) {
                    return Some(Violation::StuckSuperseded);
                }
                let harmless = [Kind::Join as usize, Kind::Presume as usize];
                let nothing_broke = |(kind, n): (usize, &u8)| harmless.contains(&kind) || *n == 0;
                let dialled = a.dialled + b.dialled > 0;
                if dialled && self.spent.iter().enumerate().all(nothing_broke) {
                    return Some(Violation::NoSession);
                }
            }
            (Some(x), Some(y)) if x == y => {}
            (Some(_), Some(_)) => return Some(Violation::TwoSessions),
            _ => return Some(Violation::HalfOpen),
        }
        let held = a.slot.session();
        if self.connections.iter().any(|c| Some(&c.id) != held)
            || self.nodes.iter().any(|n| !n.dials.is_empty())
        {
            return Some(Violation::Leftover);
        }
        None
    }
}

/// The place of `value` among the used ones, from 1.
const fn rank(used: u64, value: u8) -> u8 {
    (used & ((1_u64 << value) - 1)).count_ones() as u8 + 1
}
