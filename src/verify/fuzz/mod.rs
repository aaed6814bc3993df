//! Entry functions for fuzzing what the bytes mean: here frames, records and the session; below, the
//! handshake and the slot.
//!
//! Owns what must hold for any input, as assertions; a fuzz target calls one function and nothing
//! else. The same functions run under `cargo test` with random and with committed inputs.

#![expect(clippy::expect_used, reason = "a failed assertion is the finding")]

#[cfg(feature = "serde")]
mod config;
mod handshake;
pub(crate) mod input;
mod pool;
mod slot;
#[cfg(feature = "snapshot-codec")]
mod snapshot;

use std::time::{Duration, Instant};

use bytes::Bytes;

pub use crate::base::identity::fuzzing::identity_parse;
#[cfg(feature = "serde")]
pub use config::{Format, config_parse};
pub use handshake::{handshake_initiator, handshake_responder};
pub use pool::pool_ops;
pub use slot::slot_model;
#[cfg(feature = "snapshot-codec")]
pub use snapshot::snapshot_decode;

use crate::base::error::{GoodbyeReason, ProtocolError};
use crate::base::suite::Suite;
use crate::proto::HandshakeRole;
use crate::proto::native::connection::NativeConnection;
use crate::proto::native::frame;
use crate::proto::native::frame::Split;
use crate::proto::native::record::{Record, Verdict};
use crate::proto::wire::connection::{Connection as _, Event};
use crate::verify::pair;
use crate::verify::pair::Pair;

/// Cuts frames off `data`: whole and partial inputs must agree, and nothing may be lost.
pub fn frame_decode(data: &[u8]) {
    let mut input = data;
    loop {
        match frame::split(input) {
            Ok(Split::Whole { body, rest }) => {
                let length = frame::PREFIX + body.len();
                assert!(body.len() >= frame::MIN_CIPHERTEXT);
                assert_eq!(length + rest.len(), input.len());
                // One byte less is a frame with one byte missing.
                let cut = frame::split(&input[..length - 1]);
                assert_eq!(cut, Ok(Split::Partial { missing: 1 }));
                input = rest;
            }
            Ok(Split::Partial { missing }) => {
                assert!((1..=frame::MAX_FRAME).contains(&missing));
                return;
            }
            Err(ProtocolError::FrameLength(length)) => {
                assert!(usize::from(length) < frame::MIN_CIPHERTEXT);
                return;
            }
            Err(error) => panic!("a frame's front cannot fail with {error}"),
        }
    }
}

/// Decodes the records of `data`; each must encode to the bytes it came from.
pub fn record_decode(data: &[u8]) {
    let mut input = &data[..data.len().min(frame::MAX_PLAINTEXT)];
    while let Ok((record, length)) = Record::decode(input) {
        let mut again = Vec::new();
        record.encode(&mut again);
        assert_eq!(again, &input[..length]);
        assert_eq!(record.encoded_len(), length);
        if let Record::Verdict(body) = record
            && let Ok(verdict) = Verdict::decode(body)
        {
            let again = verdict.encode().expect("what was decoded is within its limits");
            assert_eq!(again, body);
        }
        input = &input[length..];
    }
}

/// Runs arbitrary operations on both ends of a session, with the stream cut anywhere, then drains
/// it: no end may see an error, every message arrives once and in order, and both counts are true.
///
/// Three bytes are one operation: what and who, then an amount.
pub fn session_pair(data: &[u8]) {
    let (&settings, operations) = data.split_first().unwrap_or((&0, &[]));
    let suite = match settings & 1 {
        0 => Suite::ChaChaPolyBlake2s,
        _ => Suite::AesGcmSha256,
    };
    let rekey_after_bytes = [1, 5_000, 70_000, u64::MAX][usize::from(settings >> 1 & 3)];
    let mut pair = Pair::accepted(suite, |params| params.rekey_after_bytes = rekey_after_bytes);
    let mut sent: [Vec<Bytes>; 2] = Default::default();
    let mut draining = [false; 2];
    let roles = [HandshakeRole::Initiator, HandshakeRole::Responder];

    for operation in operations.as_chunks::<3>().0 {
        let &[what, high, low] = operation;
        let who = usize::from(what >> 7);
        let role = roles[who];
        let amount = usize::from(u16::from_be_bytes([high, low]));
        match what & 7 {
            0 | 1 if !draining[who] => {
                let length = if what & 1 == 0 { amount % 2_000 } else { amount * 4 };
                let message = Bytes::from(vec![sent[who].len() as u8; length]);
                sent[who].push(message.clone());
                pair.side(role).queue.push_back(message);
            }
            2 => {
                // As fast as the limit lets a well-behaved peer be.
                pair.pass(Duration::from_millis(100));
                let now = pair.now;
                pair.side(role).core.ping(amount as u64, now);
            }
            3 => pair.side(role).core.keep_alive(),
            4 if amount % 16 == 0 => {
                draining[who] = true;
                pair.side(role).core.drain();
            }
            5 => {
                pair.write(role, amount).expect("what is sent is in place");
            }
            6 | 7 => pair.read(role, amount).expect("what comes is in place"),
            _ => {}
        }
    }

    for role in roles {
        pair.side(role).core.drain();
        pair.side(role).core.goodbye(GoodbyeReason::Idle);
    }
    pair.settle().expect("a drain is in place");
    for (who, role) in roles.into_iter().enumerate() {
        let count = sent[who].len() as u64;
        assert_eq!(pair.side(role).goodbye(), Some((GoodbyeReason::Idle, count)));
        assert!(pair.side(role).core.open_ping().is_none());
        assert!(!pair.side(role).core.wants_seal());
        assert!(pair.side(role).ended_well());
        let there = pair.side(pair::other(role));
        assert_eq!(there.core.received(), count);
        assert_eq!(there.messages(), sent[who]);
    }
}

/// Gives a session arbitrary plaintext under the peer's true keys, as a hostile but authenticated
/// peer could, or arbitrary bytes as a stranger could: it must not panic, must not deliver or hold
/// more than came in, and must stay failed once it has failed.
///
/// The first byte chooses; then each frame is a length of two bytes and its plaintext.
pub fn transport_receive(data: &[u8]) {
    let Some((&settings, mut input)) = data.split_first() else {
        return;
    };
    let (initiator, responder) = pair::transports(Suite::default());
    let as_initiator = settings & 1 == 0;
    let authenticated = settings & 2 == 0;
    let (role, ours, mut theirs) = if as_initiator {
        (HandshakeRole::Initiator, initiator, responder)
    } else {
        (HandshakeRole::Responder, responder, initiator)
    };
    let mut params = pair::params(role);
    params.max_message = 1 << (settings >> 3);
    let mut core = NativeConnection::new(ours, params);
    let (mut scratch, mut out) = (Vec::new(), Vec::new());
    let mut nothing = std::collections::VecDeque::new();
    core.verdict(pair::accept());
    core.seal(&mut nothing, &mut scratch, &mut out, usize::MAX)
        .expect("an acceptance can be sealed");

    let now = Instant::now();
    let (mut arrived, mut delivered, mut messages) = (0, 0, 0);
    while let Some((prefix, rest)) = input.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*prefix)).min(rest.len());
        let (plaintext, rest) = rest.split_at(length.min(frame::MAX_PLAINTEXT));
        input = rest;
        if plaintext.is_empty() {
            continue;
        }
        let mut sealed = Vec::new();
        frame::seal(&mut theirs, plaintext, &mut sealed).expect("a frame of ours can be sealed");
        let body = if authenticated { &sealed[frame::PREFIX..] } else { plaintext };
        if let Err(error) = core.open(body, now) {
            assert_eq!(core.open(body, now), Err(error));
            let again = core.seal(&mut nothing, &mut scratch, &mut out, usize::MAX);
            assert_eq!(again, Err(error));
            break;
        }
        assert!(authenticated, "a stranger's frame was opened");
        arrived += plaintext.len();
        let mut rest = plaintext;
        while let Ok((record, length)) = Record::decode(rest) {
            rest = &rest[length..];
            match record {
                Record::Fragment { remaining, part } => {
                    assert!(remaining as usize + part.len() <= params.max_message, "announced");
                }
                // The frame's last, or it was refused.
                Record::Rekey => theirs.rekey_outgoing(),
                _ => {}
            }
        }
        while let Some(event) = core.poll_event() {
            if let Event::Message(message) = event {
                assert!(message.len() <= params.max_message);
                delivered += message.len();
                messages += 1;
            }
        }
        assert!(delivered + core.held() <= 2 * arrived);
        assert_eq!(core.received(), messages);
    }
}
