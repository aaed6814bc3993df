//! The native handshake: Noise `XK` with payloads that date it, name the pools and carry the hellos.
//!
//! Owns the three messages' layout and every check on them. Each step consumes the one before it, so
//! that no message can be written or judged out of turn. It reads no clock and no stream; it must
//! never let anything out between a failed check and the caller, and holds nothing larger than what
//! was given to it.
//!
//! # Prologue
//!
//! Three pieces, each preceded by its length in one byte: `noise-pool/1`, the suite's full Noise
//! name, the network id (0 to 255 bytes). So no two networks share a prologue.
//!
//! # Messages
//!
//! All numbers are big-endian. Each Noise message is preceded by its length as a `u16`.
//!
//! | message | Noise tokens | payload | length in bytes |
//! |---|---|---|---|
//! | 1 | `e, es` | time `u32` | 52 |
//! | 2 | `e, ee` | minor version `u8`, instance `u64`, time `u32`, max message `u32` | 65 (to 321) |
//! | 3 | `s, se` | minor version `u8`, instance `u64`, stamp `u64`, max message `u32`, length `u16` and application payload (0 to 16,384 bytes) | 87 to 16,471 (to 16,727) |
//!
//! Times are Unix seconds modulo 2^32, and are compared modulo 2^32. `max message` is the largest
//! message that its sender accepts, and not 0.
//!
//! This is minor version 0. A payload of minor version 0 has exactly the form above. One of a higher
//! minor version begins with it and may go on with up to 256 bytes more, which are ignored. Message
//! 1 cannot grow.
//!
//! # Checks, in this order
//!
//! Message 1 by the responder: length, tag, clock skew, replay. Message 2 by the initiator: length,
//! tag, payload. Message 3 by the responder: length, tags, the static key's canonical form, that it
//! is not our own, payload. A Diffie-Hellman result of zero counts as a tag that does not verify, or
//! as a bad static key where a static key caused it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use snow::{Builder, HandshakeState};

use super::crypto::{self, TAG, Transport};
use crate::base::config::MAX_APPLICATION_PAYLOAD;
use crate::base::environment::Entropy;
use crate::base::error::{HandshakeError, ProtocolError};
use crate::base::id::PeerId;
use crate::base::key::{KEY, StaticKey};
use crate::base::suite::Suite;

/// What the wire calls itself: the protocol's name and its major version.
const PROTOCOL: &[u8] = b"noise-pool/1";
/// The minor version that we speak.
const MINOR: u8 = 0;
/// By how much a payload of a higher minor version may be longer, in bytes.
const GROWTH: usize = 256;

/// Payloads of minor version 0, in bytes; the third without the application payload.
const PAYLOAD_1: usize = 4;
const PAYLOAD_2: usize = 1 + 8 + 4 + 4;
const PAYLOAD_3: usize = 1 + 8 + 8 + 4 + 2;

/// The length of message 1 in bytes; there is no other.
pub(crate) const MESSAGE_1: usize = KEY + PAYLOAD_1 + TAG;
/// The least length of message 2 in bytes, and the one that we write.
pub(crate) const MIN_MESSAGE_2: usize = KEY + PAYLOAD_2 + TAG;
/// The greatest length of message 2 in bytes.
pub(crate) const MAX_MESSAGE_2: usize = MIN_MESSAGE_2 + GROWTH;
/// The least length of message 3 in bytes.
pub(crate) const MIN_MESSAGE_3: usize = KEY + TAG + PAYLOAD_3 + TAG;
/// The greatest length of message 3 in bytes.
pub(crate) const MAX_MESSAGE_3: usize = MIN_MESSAGE_3 + MAX_APPLICATION_PAYLOAD + GROWTH;

/// What all handshakes of one pool have in common.
pub(crate) struct HandshakeParams {
    suite: Suite,
    prologue: Vec<u8>,
    key: Arc<StaticKey>,
    entropy: Arc<dyn Entropy>,
}

impl HandshakeParams {
    /// `network_id` has at most 255 bytes, which the configuration has checked.
    pub(crate) fn new(
        suite: Suite,
        network_id: &[u8],
        key: Arc<StaticKey>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        debug_assert!(network_id.len() <= usize::from(u8::MAX));
        let mut prologue = Vec::new();
        for piece in [PROTOCOL, suite.noise_name().as_bytes(), network_id] {
            prologue.push(piece.len() as u8);
            prologue.extend_from_slice(piece);
        }
        Self { suite, prologue, key, entropy }
    }

    /// Our own name.
    pub(crate) fn own_id(&self) -> PeerId {
        PeerId::from_bytes(*self.key.public())
    }

    /// snow's state, boxed: it is over a kilobyte and would sit in every handshake's future.
    fn begin(&self, responder: Option<&PeerId>) -> Result<Box<HandshakeState>, snow::Error> {
        let resolver = crypto::resolver(&self.key, &self.entropy);
        let builder = Builder::with_resolver(self.suite.params(), resolver)
            .prologue(&self.prologue)?
            .local_private_key(self.key.secret())?;
        let state = match responder {
            Some(peer) => builder.remote_public_key(peer.as_bytes())?.build_initiator(),
            None => builder.build_responder(),
        };
        state.map(Box::new)
    }
}

/// The payload of message 2: what anybody who knows the responder's key can learn from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message2 {
    /// The responder's pool.
    pub(crate) instance: u64,
    /// The responder's Unix time in seconds, modulo 2^32.
    pub(crate) time: u32,
    /// The largest message that the responder accepts, in bytes.
    pub(crate) max_message: u32,
}

/// The payload of message 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message3 {
    /// The initiator's pool.
    pub(crate) instance: u64,
    /// The initiator's stamp of this connection.
    pub(crate) stamp: u64,
    /// The largest message that the initiator accepts, in bytes.
    pub(crate) max_message: u32,
    /// What the initiator's application says of itself, at most 16 KiB.
    pub(crate) application_payload: Bytes,
}

/// What a finished handshake leaves.
pub(crate) struct Finished {
    /// The session's keys.
    pub(crate) transport: Transport,
    /// Noise `h` after message 3: names this very session to both sides.
    pub(crate) handshake_hash: [u8; KEY],
}

/// An initiator that has written message 1.
pub(crate) struct Initiator(Box<HandshakeState>);

impl Initiator {
    /// Begins a handshake with `peer` at `time`, and gives message 1.
    ///
    /// # Errors
    /// [`HandshakeError::OwnIdentity`]; [`HandshakeError::NonCanonicalKey`] if the peer's key is not
    /// canonical, or of low order, so that no peer can hold it.
    pub(crate) fn start(
        terms: &HandshakeParams,
        peer: &PeerId,
        time: u32,
    ) -> Result<(Self, [u8; MESSAGE_1]), HandshakeError> {
        if *peer == terms.own_id() {
            return Err(HandshakeError::OwnIdentity);
        }
        if !is_canonical(peer.as_bytes()) {
            return Err(HandshakeError::NonCanonicalKey);
        }
        let mut state = terms.begin(Some(peer)).map_err(local_error)?;
        let mut message = [0; MESSAGE_1];
        let written =
            state.write_message(&time.to_be_bytes(), &mut message).map_err(
                |error| match error {
                    snow::Error::Dh => HandshakeError::NonCanonicalKey,
                    other => local_error(other),
                },
            )?;
        check_written(written, MESSAGE_1)?;
        Ok((Self(state), message))
    }

    /// Judges message 2. The responder is authenticated when this succeeds.
    ///
    /// # Errors
    /// [`HandshakeError::Length`], [`HandshakeError::Verify`], [`HandshakeError::Payload`].
    pub(crate) fn read_message2(
        mut self,
        message: &[u8],
    ) -> Result<(Answered, Message2), HandshakeError> {
        length(2, message, MIN_MESSAGE_2, MAX_MESSAGE_2)?;
        let mut payload = [0; PAYLOAD_2 + GROWTH];
        let read = self
            .0
            .read_message(message, &mut payload)
            .map_err(|_| HandshakeError::Verify { message: 2 })?;
        let malformed = HandshakeError::Payload { message: 2 };
        let hello = decode_message2(&payload[..read]).ok_or(malformed)?;
        Ok((Answered(self.0), hello))
    }
}

/// An initiator that knows that the responder is who it dialled.
pub(crate) struct Answered(Box<HandshakeState>);

impl Answered {
    /// Noise `h` after message 2.
    pub(crate) fn handshake_hash(&self) -> [u8; KEY] {
        hash(&self.0)
    }

    /// Gives message 3, after `room` bytes that the caller fills.
    ///
    /// # Errors
    /// [`HandshakeError::Payload`] if the application payload is over 16 KiB.
    pub(crate) fn write_message3(
        mut self,
        hello: &Message3,
        room: usize,
    ) -> Result<(Finished, Vec<u8>), HandshakeError> {
        let malformed = HandshakeError::Payload { message: 3 };
        let payload = encode_message3(hello).ok_or(malformed)?;
        let max = KEY + TAG + payload.len() + TAG;
        let mut message = vec![0; room + max];
        let written = self.0.write_message(&payload, &mut message[room..]).map_err(local_error)?;
        check_written(written, max)?;
        Ok((finish(self.0)?, message))
    }
}

/// A responder that has accepted message 1.
pub(crate) struct Responder {
    state: Box<HandshakeState>,
    own: PeerId,
    skew_seconds: i64,
}

impl Responder {
    /// Judges message 1 at `time`. `fresh` is asked last, with the ephemeral key, whether this
    /// message was not seen before.
    ///
    /// # Errors
    /// [`HandshakeError::Length`], [`HandshakeError::Verify`], [`HandshakeError::Skewed`],
    /// [`HandshakeError::Replayed`]. None of them may be answered.
    pub(crate) fn read_message1(
        terms: &HandshakeParams,
        message: &[u8],
        time: u32,
        max_clock_skew: Duration,
        fresh: impl FnOnce([u8; KEY]) -> bool,
    ) -> Result<Self, HandshakeError> {
        length(1, message, MESSAGE_1, MESSAGE_1)?;
        let unverified = HandshakeError::Verify { message: 1 };
        let ephemeral = *message.first_chunk().ok_or(unverified.clone())?;
        let mut state = terms.begin(None).map_err(local_error)?;
        let mut payload = [0; PAYLOAD_1];
        state.read_message(message, &mut payload).map_err(|_| unverified)?;
        let skew_seconds = clock_offset(u32::from_be_bytes(payload), time);
        if skew_seconds.unsigned_abs() > max_clock_skew.as_secs() {
            return Err(HandshakeError::Skewed { skew_seconds });
        }
        if !fresh(ephemeral) {
            return Err(HandshakeError::Replayed);
        }
        Ok(Self { state, own: terms.own_id(), skew_seconds })
    }

    /// The initiator's clock less ours, in seconds.
    pub(crate) fn skew_seconds(&self) -> i64 {
        self.skew_seconds
    }

    /// Gives message 2.
    ///
    /// # Errors
    /// Only when our own cipher fails.
    pub(crate) fn write_message2(
        mut self,
        hello: &Message2,
    ) -> Result<(AwaitsMessage3, [u8; MIN_MESSAGE_2]), HandshakeError> {
        let mut message = [0; MIN_MESSAGE_2];
        let written =
            self.state.write_message(&encode_message2(hello), &mut message).map_err(local_error)?;
        check_written(written, MIN_MESSAGE_2)?;
        let next = AwaitsMessage3 { state: self.state, own: self.own };
        Ok((next, message))
    }
}

/// A responder that has written message 2.
pub(crate) struct AwaitsMessage3 {
    state: Box<HandshakeState>,
    own: PeerId,
}

impl AwaitsMessage3 {
    /// Judges message 3, and says who the initiator is.
    ///
    /// # Errors
    /// [`HandshakeError::Length`], [`HandshakeError::Verify`], [`HandshakeError::NonCanonicalKey`],
    /// [`HandshakeError::OwnIdentity`], [`HandshakeError::Payload`]. None of them may be answered.
    pub(crate) fn read_message3(
        mut self,
        message: &[u8],
    ) -> Result<(Finished, PeerId, Message3), HandshakeError> {
        length(3, message, MIN_MESSAGE_3, MAX_MESSAGE_3)?;
        let mut payload = vec![0; message.len() - (KEY + TAG) - TAG];
        let read = self.state.read_message(message, &mut payload).map_err(|error| match error {
            // The static key has verified by then; its product with our ephemeral key is zero.
            snow::Error::Dh => HandshakeError::NonCanonicalKey,
            _ => HandshakeError::Verify { message: 3 },
        })?;
        let key = self.state.get_remote_static();
        let peer = key
            .and_then(|key| key.try_into().ok())
            .filter(is_canonical)
            .map(PeerId::from_bytes)
            .ok_or(HandshakeError::NonCanonicalKey)?;
        if peer == self.own {
            return Err(HandshakeError::OwnIdentity);
        }
        payload.truncate(read);
        let malformed = HandshakeError::Payload { message: 3 };
        let hello = decode_message3(payload.into()).ok_or(malformed)?;
        Ok((finish(self.state)?, peer, hello))
    }
}

/// Whether the key is in its only canonical form (RFC 7748, section 5): below 2^255 - 19.
///
/// X25519 takes any other form for a canonical key, and one key must not appear as two peers.
fn is_canonical(key: &[u8; KEY]) -> bool {
    // p = 2^255 - 19 is ed ff .. ff 7f in this order of bytes.
    let over = key[31] >= 0x7f && key[1..31].iter().all(|&byte| byte == 0xff) && key[0] >= 0xed;
    key[31] <= 0x7f && !over
}

/// `theirs` less `ours` in seconds, both modulo 2^32: right while they are less than 68 years apart.
pub(crate) fn clock_offset(theirs: u32, ours: u32) -> i64 {
    i64::from(theirs.wrapping_sub(ours).cast_signed())
}

fn encode_message2(hello: &Message2) -> [u8; PAYLOAD_2] {
    let mut payload = [0; PAYLOAD_2];
    let mut out = &mut payload[..];
    out.put_u8(MINOR);
    out.put_u64(hello.instance);
    out.put_u32(hello.time);
    out.put_u32(hello.max_message);
    payload
}

fn decode_message2(mut payload: &[u8]) -> Option<Message2> {
    let minor = payload.try_get_u8().ok()?;
    let hello = Message2 {
        instance: payload.try_get_u64().ok()?,
        time: payload.try_get_u32().ok()?,
        max_message: payload.try_get_u32().ok()?,
    };
    (allows_trailing(minor, payload.len()) && hello.max_message != 0).then_some(hello)
}

fn encode_message3(hello: &Message3) -> Option<Vec<u8>> {
    let length = hello.application_payload.len();
    if length > MAX_APPLICATION_PAYLOAD {
        return None;
    }
    let mut payload = Vec::with_capacity(PAYLOAD_3 + length);
    payload.put_u8(MINOR);
    payload.put_u64(hello.instance);
    payload.put_u64(hello.stamp);
    payload.put_u32(hello.max_message);
    payload.put_u16(u16::try_from(length).ok()?);
    payload.put_slice(&hello.application_payload);
    Some(payload)
}

fn decode_message3(mut payload: Bytes) -> Option<Message3> {
    let minor = payload.try_get_u8().ok()?;
    let instance = payload.try_get_u64().ok()?;
    let stamp = payload.try_get_u64().ok()?;
    let max_message = payload.try_get_u32().ok()?;
    let length = usize::from(payload.try_get_u16().ok()?);
    if length > MAX_APPLICATION_PAYLOAD || length > payload.len() {
        return None;
    }
    let application_payload = payload.split_to(length);
    (allows_trailing(minor, payload.len()) && max_message != 0).then_some(Message3 {
        instance,
        stamp,
        max_message,
        application_payload,
    })
}

/// Whether `rest` unknown bytes may follow in a payload of version `minor`.
fn allows_trailing(minor: u8, rest: usize) -> bool {
    if minor > MINOR { rest <= GROWTH } else { rest == 0 }
}

fn length(number: u8, message: &[u8], min: usize, max: usize) -> Result<(), HandshakeError> {
    if (min..=max).contains(&message.len()) {
        return Ok(());
    }
    Err(HandshakeError::Length {
        message: number,
        length: u16::try_from(message.len()).unwrap_or(u16::MAX),
    })
}

/// A cipher that failed reports a wrong length, for want of an error in snow's trait.
fn check_written(written: usize, expected: usize) -> Result<(), HandshakeError> {
    if written == expected { Ok(()) } else { Err(ProtocolError::Cipher.into()) }
}

/// What snow reports of our own doing: no peer can cause it.
fn local_error(_: snow::Error) -> HandshakeError {
    ProtocolError::Cipher.into()
}

/// Both suites hash to 32 bytes.
fn hash(state: &HandshakeState) -> [u8; KEY] {
    let mut hash = [0; KEY];
    hash.copy_from_slice(state.get_handshake_hash());
    hash
}

fn finish(state: Box<HandshakeState>) -> Result<Finished, HandshakeError> {
    let handshake_hash = hash(&state);
    let transport = state.into_transport_mode().map_err(local_error)?;
    Ok(Finished { transport: Transport::new(transport), handshake_hash })
}

#[cfg(test)]
#[path = "../../verify/proto/native/handshake.rs"]
mod tests;
