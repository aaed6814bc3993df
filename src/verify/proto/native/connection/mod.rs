//! What a session does with a well-behaved peer, and with one that is not.

mod drain;
mod frames;
mod messages;
mod pings;
mod properties;
mod rekey;
mod verdict;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::state::REKEY_AFTER_FRAMES;
use super::*;
use crate::base::error::{CloseReason, GoodbyeReason, ProtocolError, RejectReason};
use crate::base::suite::Suite;
use crate::proto::HandshakeRole;
use crate::proto::native::crypto::{TAG, Transport};
use crate::proto::native::frame;
use crate::proto::native::record;
use crate::proto::native::record::{DATA, Record, Verdict};
use crate::proto::wire::block;
use crate::proto::wire::connection::{Connection as _, Event};
use crate::proto::wire::source::Sealed;
use crate::verify::pair;
use crate::verify::pair::{Pair, Side};

use HandshakeRole::{Initiator, Responder};

const SUITES: [Suite; 2] = [Suite::ChaChaPolyBlake2s, Suite::AesGcmSha256];

fn accepted() -> Pair {
    Pair::accepted(Suite::default(), |_| {})
}

fn message(length: usize) -> Bytes {
    (0..length).map(|i| (i % 251) as u8).collect()
}

fn kinds(side: &Side) -> Vec<&'static str> {
    let kind = |event: &Event| match event {
        Event::Message(_) => "message",
        Event::Pong { .. } => "pong",
        Event::KeepAlive => "keep-alive",
        Event::Drain => "drain",
        Event::Goodbye { .. } => "goodbye",
    };
    let verdict = side.verdict.as_ref().map(|_| "verdict");
    verdict.into_iter().chain(side.events.iter().map(kind)).collect()
}

/// A session of ours, and a peer that holds the right keys and writes whatever a test says.
struct Hostile {
    core: NativeConnection,
    peer: Transport,
    now: Instant,
}

impl Hostile {
    /// With the verdict outstanding.
    fn new(role: HandshakeRole, change: impl Fn(&mut ConnectionParams)) -> Self {
        let (initiator, responder) = pair::transports(Suite::default());
        let (ours, peer) = match role {
            Initiator => (initiator, responder),
            Responder => (responder, initiator),
        };
        let mut params = pair::params(role);
        change(&mut params);
        Self { core: NativeConnection::new(ours, params), peer, now: Instant::now() }
    }

    /// A responder that has accepted.
    fn accepted(change: impl Fn(&mut ConnectionParams)) -> Self {
        let mut hostile = Self::new(Responder, change);
        hostile.core.verdict(pair::accept());
        assert_eq!(hostile.seal(&[]).len(), 1);
        hostile
    }

    /// What ours writes, as the plaintext of each frame.
    fn seal(&mut self, messages: &[Bytes]) -> Vec<Vec<u8>> {
        let mut source: VecDeque<Bytes> = messages.iter().cloned().collect();
        let (mut scratch, mut out) = (Vec::new(), Vec::new());
        let sealed = self.core.seal(&mut source, &mut scratch, &mut out, usize::MAX).unwrap();
        let mut frames = Vec::new();
        let mut input = &out[..];
        while let frame::Split::Whole { body, rest } = frame::split(input).unwrap() {
            let mut plaintext = vec![0; body.len() - TAG];
            self.peer.open(body, &mut plaintext).unwrap();
            if plaintext.ends_with(&[record::REKEY, 0, 0]) {
                self.peer.rekey_incoming();
            }
            frames.push(plaintext);
            input = rest;
        }
        assert_eq!(frames.len(), sealed.frames as usize);
        frames
    }

    fn send_plain(&mut self, plaintext: &[u8]) -> Result<(), ProtocolError> {
        let mut out = Vec::new();
        frame::seal(&mut self.peer, plaintext, &mut out).unwrap();
        self.core.open(&out[frame::PREFIX..], self.now)
    }

    fn send(&mut self, records: &[Record<'_>]) -> Result<(), ProtocolError> {
        let mut plaintext = Vec::new();
        for record in records {
            record.encode(&mut plaintext);
        }
        self.send_plain(&plaintext)
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.core.poll_event()).collect()
    }
}

/// A responder that has accepted refuses the last of these records, with `error`.
fn refuses(records: &[Record<'_>], error: ProtocolError) {
    let mut hostile = Hostile::accepted(|params| params.max_message = 1_000);
    let (last, before) = records.split_last().unwrap();
    for record in before {
        hostile.send(&[*record]).unwrap();
    }
    assert_eq!(hostile.send(&[*last]), Err(error));
    // The session is over, for both directions, and says so each time.
    assert_eq!(hostile.send(&[Record::KeepAlive]), Err(error));
    let mut nothing = VecDeque::new();
    let sealed = hostile.core.seal(&mut nothing, &mut Vec::new(), &mut Vec::new(), usize::MAX);
    assert_eq!(sealed, Err(error));
    assert!(!hostile.core.wants_seal());
    assert_eq!(hostile.core.end_of_stream(0), Err(CloseReason::Truncated));
}

fn fragment(remaining: u32, part: &[u8]) -> Record<'_> {
    Record::Fragment { remaining, part }
}

const BYE: Record<'static> = Record::Goodbye { reason: GoodbyeReason::Shutdown, received: 0 };
