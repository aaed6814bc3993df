//! One connection between the two nodes: its two ends, and the messages under way on it.
//!
//! Owns what travels and in which order. It knows nothing of slots.

use std::fmt;

/// Node 0 or node 1. Node 1 has the larger key.
pub(super) type Side = usize;

/// The other node.
pub(super) const fn other(side: Side) -> Side {
    1 - side
}

/// A connection: who dialled, in which dial of theirs, and the how manieth of that dial.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(u8);

impl Id {
    pub(super) fn new(initiator: Side, dial: u8, nth: u8) -> Self {
        assert!(dial < 8 && nth < 8);
        Self((initiator as u8) << 6 | dial << 3 | nth)
    }

    pub(super) const fn initiator(self) -> Side {
        (self.0 >> 6) as Side
    }

    pub(super) const fn dial(self) -> u8 {
        self.0 >> 3 & 7
    }

    pub(super) fn raw(self) -> u64 {
        u64::from(self.0) + 1
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}.{}.{}", self.initiator(), self.dial(), self.0 & 7)
    }
}

/// Why a responder refuses: what the machine says, or its application's check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Refusal {
    Simultaneous,
    Duplicate,
    Check,
}

/// What travels on a connection, in order, one queue each way. `epoch` is the sender's incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Message {
    One,
    Two {
        epoch: u8,
    },
    Three {
        epoch: u8,
        stamp: u8,
    },
    Accept {
        stamp: u8,
    },
    Reject(Refusal),
    /// The sender's n-th application message.
    Data(u8),
    /// `Drain`, `Goodbye` and the half-close that follows.
    Drain,
    /// The connection is broken.
    Reset,
}

impl Message {
    /// One byte pair per message, so that a queue is hashed in one go.
    const fn code(self) -> [u8; 2] {
        match self {
            Self::One => [0, 0],
            Self::Two { epoch } => [1, epoch],
            Self::Three { epoch, stamp } => [2 | epoch << 4, stamp],
            Self::Accept { stamp } => [3, stamp],
            Self::Reject(why) => [4, why as u8],
            Self::Data(n) => [5, n],
            Self::Drain => [6, 0],
            Self::Reset => [7, 0],
        }
    }
}

const DEEPEST: usize = 6;

/// The messages under way to one end, in order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Queue {
    length: u8,
    messages: [Message; DEEPEST],
}

impl Queue {
    pub(super) const EMPTY: Self = Self { length: 0, messages: [Message::Reset; DEEPEST] };

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn first(&self) -> Option<Message> {
        self.iter().next()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Message> + '_ {
        self.messages[..self.length as usize].iter().copied()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Message> {
        self.messages[..self.length as usize].iter_mut()
    }

    pub(super) fn push(&mut self, message: Message) {
        self.messages[self.length as usize] = message;
        self.length += 1;
    }

    pub(super) fn pop(&mut self) -> Option<Message> {
        let first = self.first()?;
        self.messages.copy_within(1.., 0);
        self.messages[DEEPEST - 1] = Message::Reset;
        self.length -= 1;
        Some(first)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::EMPTY;
    }
}

impl std::hash::Hash for Queue {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let mut bytes = [0; 2 * DEEPEST + 1];
        bytes[0] = self.length;
        for (i, message) in self.iter().enumerate() {
            bytes[2 * i + 1..2 * i + 3].copy_from_slice(&message.code());
        }
        state.write(&bytes[..2 * self.length as usize + 1]);
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// How far one end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Initiator: message 1 is out.
    AwaitsAnswer,
    /// Initiator: message 2 is in, but another connection of the dial is committed.
    Spare,
    /// Initiator: message 3 is out.
    AwaitsVerdict,
    /// Responder: nothing has come yet.
    Listens,
    /// Responder: message 2 is out.
    AwaitsCommit,
    /// Responder: message 3 is in, and our own dial's verdict is awaited.
    Parked,
    /// The session of the slot.
    Live,
    /// Out of the slot, but leases in hand still send.
    Retired,
    /// Flushed and half-closed; reads until the peer has done the same.
    Draining,
    Gone,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) stage: Stage,
    /// When the peer was first heard on it, in this node's order.
    pub(super) heard: u8,
    /// The peer's incarnation, as its handshake said.
    pub(super) epoch: u8,
    /// The stamp of the peer's message 3, kept while parked.
    pub(super) stamp: u8,
}

impl End {
    pub(super) const fn at(stage: Stage) -> Self {
        Self { stage, heard: 0, epoch: 0, stamp: 0 }
    }
}

/// One connection; `ends[n]` is node n's, `wire[n]` travels to node n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) id: Id,
    pub(super) ends: [End; 2],
    pub(super) wire: [Queue; 2],
    /// It failed, so that messages on it may be lost.
    pub(super) broken: bool,
    /// Nothing gets through any more, and nobody is told.
    pub(super) silent: bool,
    /// The responder has refused it: what travels behind message 3 is not opened.
    pub(super) refused: bool,
}

impl Connection {
    pub(super) fn new(id: Id) -> Self {
        let mut ends = [End::at(Stage::Listens); 2];
        ends[id.initiator()] = End::at(Stage::AwaitsAnswer);
        Self { id, ends, wire: [Queue::EMPTY; 2], broken: false, silent: false, refused: false }
    }

    /// Whether `side`'s end can only learn by a timeout that the connection is dead.
    pub(super) fn is_forsaken(&self, side: Side) -> bool {
        self.ends[side].stage != Stage::Gone
            && self.wire[side].is_empty()
            && (self.silent || self.ends[other(side)].stage == Stage::Gone)
    }
}

impl std::hash::Hash for Connection {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let [a, b] = self.ends;
        state.write(&[
            self.id.0,
            a.stage as u8,
            a.heard,
            a.epoch,
            a.stamp,
            b.stage as u8,
            b.heard,
            b.epoch,
            b.stamp,
            u8::from(self.broken) | u8::from(self.silent) << 1 | u8::from(self.refused) << 2,
        ]);
        self.wire[0].hash(state);
        self.wire[1].hash(state);
    }
}
