//! Two native connections joined by byte queues, for tests and fuzzing.
//!
//! Owns both ends of one session and the bytes between them. It must never touch a clock or a
//! socket after it was made: tests move time and bytes by hand.

#![expect(clippy::expect_used, reason = "a test whose set-up fails ends there")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::base::error::{GoodbyeReason, ProtocolError};
use crate::base::suite::Suite;
use crate::proto::HandshakeRole;
use crate::proto::native::connection::{ConnectionParams, NativeConnection};
use crate::proto::native::crypto::Transport;
use crate::proto::native::record::Verdict;
use crate::proto::wire::connection::{Connection, Event};
use crate::proto::wire::source::{MessageSource, Next, Plaintext, Sealed};
pub(crate) use crate::verify::crypto::transports;

impl MessageSource for VecDeque<Bytes> {
    fn next(&mut self, _: &mut Plaintext<'_>) -> Next {
        self.pop_front().map_or(Next::Empty, Next::Message)
    }
}

/// Parameters that a test may change before it uses them.
pub(crate) fn params(role: HandshakeRole) -> ConnectionParams {
    ConnectionParams {
        role,
        max_message: 1 << 20,
        peer_max_message: 1 << 20,
        rekey_after_bytes: 1 << 30,
        pings_per_second: 10,
    }
}

/// An acceptance that says nothing of interest.
pub(crate) fn accept() -> Verdict {
    Verdict::Accept {
        stamp: 7,
        observed: "192.0.2.1:9".to_owned(),
        payload: Bytes::from_static(b"router"),
    }
}

/// One end: a connection, what it shall send, what is on its way to it, and what it was told.
pub(crate) struct Side {
    pub(crate) core: NativeConnection,
    pub(crate) queue: VecDeque<Bytes>,
    /// Written by the other side, not yet arrived here.
    pub(crate) wire: VecDeque<u8>,
    /// Arrived, but not a whole frame yet.
    arrived: Vec<u8>,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) events: Vec<Event>,
}

impl Side {
    fn new(transport: Transport, params: ConnectionParams) -> Self {
        Self {
            core: NativeConnection::new(transport, params),
            queue: VecDeque::new(),
            wire: VecDeque::new(),
            arrived: Vec::new(),
            verdict: None,
            events: Vec::new(),
        }
    }

    /// The messages among the events so far.
    pub(crate) fn messages(&self) -> Vec<Bytes> {
        let message = |event: &Event| match event {
            Event::Message(message) => Some(message.clone()),
            _ => None,
        };
        self.events.iter().filter_map(message).collect()
    }

    /// What the other side's goodbye said, if it came.
    pub(crate) fn goodbye(&self) -> Option<(GoodbyeReason, u64)> {
        self.events.iter().find_map(|event| match *event {
            Event::Goodbye { reason, received } => Some((reason, received)),
            _ => None,
        })
    }

    /// Whether the stream could end here.
    pub(crate) fn ended_well(&self) -> bool {
        self.wire.is_empty() && self.core.end_of_stream(self.arrived.len()).is_ok()
    }
}

/// One session, both ends.
pub(crate) struct Pair {
    sides: [Side; 2],
    /// The time that both ends are told.
    pub(crate) now: Instant,
}

impl Pair {
    /// Both ends with the verdict outstanding; `change` may alter each end's parameters.
    pub(crate) fn new(suite: Suite, change: impl Fn(&mut ConnectionParams)) -> Self {
        let (initiator, responder) = transports(suite);
        let side = |transport, role| {
            let mut params = params(role);
            change(&mut params);
            Side::new(transport, params)
        };
        Self {
            sides: [
                side(initiator, HandshakeRole::Initiator),
                side(responder, HandshakeRole::Responder),
            ],
            now: Instant::now(),
        }
    }

    /// Both ends with the session accepted.
    pub(crate) fn accepted(suite: Suite, change: impl Fn(&mut ConnectionParams)) -> Self {
        let mut pair = Self::new(suite, change);
        pair.side(HandshakeRole::Responder).core.verdict(accept());
        pair.settle().expect("an acceptance is in place");
        pair.side(HandshakeRole::Initiator).verdict = None;
        pair
    }

    pub(crate) fn side(&mut self, role: HandshakeRole) -> &mut Side {
        &mut self.sides[index(role)]
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Lets one end seal up to about `max` bytes, which are then under way to the other.
    pub(crate) fn write(
        &mut self,
        from: HandshakeRole,
        max: usize,
    ) -> Result<Sealed, ProtocolError> {
        let (mut scratch, mut out) = (Vec::new(), Vec::new());
        let side = self.side(from);
        let sealed = side.core.seal(&mut side.queue, &mut scratch, &mut out, max)?;
        assert_eq!(sealed.bytes, out.len());
        self.side(other(from)).wire.extend(out);
        Ok(sealed)
    }

    /// Lets up to `bytes` bytes arrive at one end, and that end poll what they say.
    pub(crate) fn read(&mut self, to: HandshakeRole, bytes: usize) -> Result<(), ProtocolError> {
        let now = self.now;
        let side = self.side(to);
        let bytes = bytes.min(side.wire.len());
        side.arrived.extend(side.wire.drain(..bytes));
        let mut input = &side.arrived[..];
        while let Some(body) = side.core.cut_frame(input)? {
            let (frame, rest) = input.split_at(body.end);
            side.core.open(&frame[body], now)?;
            side.verdict = side.core.poll_verdict().or(side.verdict.take());
            // As a driver does.
            while let Some(mut batch) = side.core.poll_messages() {
                for _ in 0..batch.messages() {
                    side.events.push(Event::Message(batch.take().0));
                }
            }
            while let Some(event) = side.core.poll_event() {
                side.events.push(event);
            }
            input = rest;
        }
        let left = input.len();
        side.arrived.drain(..side.arrived.len() - left);
        Ok(())
    }

    /// Lets both ends write and read until nothing moves.
    pub(crate) fn settle(&mut self) -> Result<(), ProtocolError> {
        loop {
            let mut written = 0;
            for role in [HandshakeRole::Initiator, HandshakeRole::Responder] {
                self.read(role, usize::MAX)?;
                written += self.write(role, usize::MAX)?.bytes;
            }
            if written == 0 {
                return Ok(());
            }
        }
    }
}

pub(crate) fn other(role: HandshakeRole) -> HandshakeRole {
    match role {
        HandshakeRole::Initiator => HandshakeRole::Responder,
        HandshakeRole::Responder => HandshakeRole::Initiator,
    }
}

fn index(role: HandshakeRole) -> usize {
    match role {
        HandshakeRole::Initiator => 0,
        HandshakeRole::Responder => 1,
    }
}
