//! Entry functions for fuzzing the handshake, one per role.
//!
//! Owns a peer that holds true keys and says what the input tells it to: as a fuzzer cannot forge a
//! tag, the peer seals for it. What a message must lead to is stated here from the wire's description,
//! not by the code under test.

#![expect(clippy::expect_used, reason = "a failed assertion is the finding")]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use snow::HandshakeState;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{BoxedCryptoResolver, CryptoResolver};
use snow::types::{Cipher, Dh, Hash, Random};

use super::input::Input;
use crate::base::environment::Entropy;
use crate::base::error::HandshakeError;
use crate::base::id::PeerId;
use crate::base::key::KEY;
use crate::base::key::StaticKey;
use crate::base::suite::Suite;
use crate::proto::native::crypto;
use crate::proto::native::crypto::{TAG, Transport};
use crate::proto::native::handshake::{
    Finished, HandshakeParams, Initiator, MAX_MESSAGE_2, MAX_MESSAGE_3, MESSAGE_1, MIN_MESSAGE_2,
    MIN_MESSAGE_3, Message2, Message3, Responder,
};
use crate::proto::native::replay::ReplayCache;
use crate::verify::crypto::TestEntropy;

const NOW: u32 = 1_700_000_000;
const SKEW: Duration = Duration::from_secs(60);
const NETWORK: &[u8] = b"fuzz";
/// More than any Noise message.
const ROOM: usize = 1 << 16;
/// The most that a sealed payload may have: with tokens and tags it must be a Noise message.
const MAX_SEALED: usize = ROOM - 1 - KEY - 2 * TAG;
const MAX_APPLICATION_PAYLOAD: usize = 16_384;

/// Ours, and the peer's.
static KEYS: LazyLock<[Arc<StaticKey>; 2]> =
    LazyLock::new(|| [1, 2].map(|secret| Arc::new(StaticKey::new([secret; KEY]))));

/// What a peer does to one of its messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Seals the input as the message's payload.
    Sealed,
    /// Sends the input as it is: what a stranger can do.
    Raw,
    /// Seals what is in order, then changes bytes: what somebody between the two can do.
    Changed,
    /// Seals what is in order, then cuts it or lets it go on.
    Cut,
}

/// A message on its way to us.
struct Delivered<'a> {
    bytes: Vec<u8>,
    /// What is sealed in it, if it is as the peer made it.
    payload: Option<&'a [u8]>,
}

impl<'a> Delivered<'a> {
    /// The peer's next message, as the input has it; `in_order` is a payload that passes.
    fn take(input: &mut Input<'a>, peer: &mut HandshakeState, in_order: &'a [u8]) -> Self {
        let how = match input.byte() & 3 {
            0 => How::Sealed,
            1 => How::Raw,
            2 => How::Changed,
            _ => How::Cut,
        };
        let piece = input.piece();
        let payload = match how {
            How::Sealed => &piece[..piece.len().min(MAX_SEALED)],
            _ => in_order,
        };
        let mut genuine = vec![0; ROOM];
        let length = peer.write_message(payload, &mut genuine).expect("our own peer can write");
        genuine.truncate(length);
        let mut bytes = genuine.clone();
        match how {
            How::Sealed => {}
            How::Raw => bytes = piece.to_vec(),
            How::Changed => {
                let (at, change) = piece.split_at(piece.len().min(1));
                let at = at.first().map_or(0, |at| usize::from(*at));
                for (byte, change) in bytes.iter_mut().skip(at).zip(change) {
                    *byte ^= change;
                }
            }
            How::Cut => bytes.resize(Input(piece).word().into(), 0),
        }
        let payload = (bytes == genuine).then_some(payload);
        Self { bytes, payload }
    }

    /// Whether the message may fail as it did. A changed one must not even get past its tag.
    fn refused(&self, number: u8, range: std::ops::RangeInclusive<usize>, error: &HandshakeError) {
        let fits = range.contains(&self.bytes.len());
        match error {
            HandshakeError::Length { message, length } => {
                assert!(!fits && *message == number && usize::from(*length) == self.bytes.len());
            }
            HandshakeError::Verify { message } => {
                assert!(fits && *message == number && self.payload.is_none());
            }
            error => assert!(fits && self.payload.is_some(), "{error}"),
        }
    }
}

/// A peer's half of the handshake, by snow alone.
fn peer(
    suite: Suite,
    key: &Arc<StaticKey>,
    shown: Option<[u8; KEY]>,
    responder: Option<&[u8; KEY]>,
) -> HandshakeState {
    let entropy: Arc<dyn Entropy> = Arc::new(TestEntropy::new(5));
    let resolver = Showing { inner: crypto::resolver(key, &entropy), shown };
    let mut prologue = Vec::new();
    for piece in [&b"noise-pool/1"[..], suite.noise_name().as_bytes(), NETWORK] {
        prologue.push(piece.len() as u8);
        prologue.extend_from_slice(piece);
    }
    let build = || {
        let builder = snow::Builder::with_resolver(suite.params(), Box::new(resolver))
            .prologue(&prologue)?
            .local_private_key(key.secret())?;
        match responder {
            Some(responder) => builder.remote_public_key(responder)?.build_initiator(),
            None => builder.build_responder(),
        }
    };
    build().expect("a peer of ours can be built")
}

fn suite(settings: u8) -> Suite {
    if settings & 1 == 0 { Suite::ChaChaPolyBlake2s } else { Suite::AesGcmSha256 }
}

fn terms(suite: Suite, key: &Arc<StaticKey>) -> HandshakeParams {
    HandshakeParams::new(suite, NETWORK, Arc::clone(key), Arc::new(TestEntropy::new(6)))
}

/// Opens a message of ours as the peer.
fn opened(peer: &mut HandshakeState, message: &[u8]) -> Vec<u8> {
    let mut payload = vec![0; ROOM];
    let length = peer.read_message(message, &mut payload).expect("what we write verifies");
    payload.truncate(length);
    payload
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Whether so many bytes may follow what is known of a payload.
fn may_follow(payload: &[u8], rest: usize) -> bool {
    if payload[0] == 0 { rest == 0 } else { rest <= 256 }
}

/// What docs/wire.md says that a payload of message 2 means.
fn meaning_of_2(payload: &[u8]) -> Option<Message2> {
    let rest = payload.len().checked_sub(17)?;
    let hello = Message2 {
        instance: number(&payload[1..9]),
        time: number(&payload[9..13]) as u32,
        max_message: number(&payload[13..17]) as u32,
    };
    (may_follow(payload, rest) && hello.max_message > 0).then_some(hello)
}

/// What docs/wire.md says that a payload of message 3 means.
fn meaning_of_3(payload: &[u8]) -> Option<Message3> {
    let rest = payload.len().checked_sub(23)?;
    let length = number(&payload[21..23]) as usize;
    let rest = rest.checked_sub(length)?;
    let hello = Message3 {
        instance: number(&payload[1..9]),
        stamp: number(&payload[9..17]),
        max_message: number(&payload[17..21]) as u32,
        application_payload: Bytes::copy_from_slice(&payload[23..23 + length]),
    };
    let fits = length <= MAX_APPLICATION_PAYLOAD && may_follow(payload, rest);
    (fits && hello.max_message > 0).then_some(hello)
}

/// Both ends hold one session.
fn joined(ours: Finished, theirs: HandshakeState) {
    assert_eq!(ours.handshake_hash, theirs.get_handshake_hash());
    let mut ours = ours.transport;
    let mut theirs = Transport::new(theirs.into_transport_mode().expect("the handshake is over"));
    let (mut sealed, mut plain) = ([0; 20], [0; 4]);
    ours.seal(b"ping", &mut sealed).expect("we can seal");
    assert_eq!((theirs.open(&sealed, &mut plain), &plain), (Ok(4), b"ping"));
    theirs.seal(b"pong", &mut sealed).expect("the peer can seal");
    assert_eq!((ours.open(&sealed, &mut plain), &plain), (Ok(4), b"pong"));
}

/// We respond; the initiator's messages 1 and 3 are as the input has them.
///
/// A byte of settings; for each message what becomes of it, a length of two bytes, and its bytes. A
/// key of 32 bytes may come between the settings and the messages.
pub fn handshake_responder(data: &[u8]) {
    let mut input = Input(data);
    let settings = input.byte();
    let suite = suite(settings);
    let ours = terms(suite, &KEYS[0]);
    let public = KEYS[1].public();
    let (key, shown) = match settings >> 1 & 3 {
        0 => (&KEYS[1], *public),
        1 => (&KEYS[0], *KEYS[0].public()),
        2 => {
            // The same key for X25519, in a form that is not canonical.
            let mut shown = *public;
            shown[KEY - 1] |= 0x80;
            (&KEYS[1], shown)
        }
        _ => (&KEYS[1], [0; KEY].map(|_| input.byte())),
    };
    let mut theirs = peer(suite, key, Some(shown), Some(KEYS[0].public()));

    let now = Instant::now();
    let one = Delivered::take(&mut input, &mut theirs, &const { NOW.to_be_bytes() });
    let mut seen = ReplayCache::new(4, SKEW);
    let mut read = || {
        let fresh = |ephemeral| seen.insert(ephemeral, now);
        Responder::read_message1(&ours, &one.bytes, NOW, SKEW, fresh)
    };
    let responder = match read() {
        Ok(responder) => responder,
        Err(error) => {
            one.refused(1, MESSAGE_1..=MESSAGE_1, &error);
            if let Some(payload) = one.payload
                && let Ok(time) = <[u8; 4]>::try_from(payload)
            {
                let skew = i64::from(u32::from_be_bytes(time).wrapping_sub(NOW).cast_signed());
                assert!(matches!(error,
                    HandshakeError::Skewed { skew_seconds } if skew_seconds == skew));
                assert!(skew.unsigned_abs() > 60);
            }
            return;
        }
    };
    assert!(one.payload.is_some(), "a message that the peer did not make was accepted");
    assert!(responder.skew_seconds().unsigned_abs() <= 60);
    assert!(matches!(read(), Err(HandshakeError::Replayed)));

    let hello = Message2 { instance: 3, time: NOW, max_message: 1 << 20 };
    let (awaits, two) = responder.write_message2(&hello).expect("we can write");
    assert_eq!(meaning_of_2(&opened(&mut theirs, &two)), Some(hello));

    let in_order = b"\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x09\0\x10\0\0\0\x04here";
    let three = Delivered::take(&mut input, &mut theirs, in_order);
    let meaning = three.payload.and_then(meaning_of_3);
    match awaits.read_message3(&three.bytes) {
        Ok((finished, peer, hello)) => {
            assert_eq!(meaning, Some(hello));
            assert_eq!((peer.as_bytes(), shown), (public, *public));
            joined(finished, theirs);
        }
        // The peer has no secret for the key that it shows; the one without canonical form aside.
        Err(HandshakeError::Verify { message: 3 } | HandshakeError::NonCanonicalKey)
            if shown != *key.public() => {}
        Err(error) => {
            three.refused(3, MIN_MESSAGE_3..=MAX_MESSAGE_3, &error);
            match error {
                HandshakeError::OwnIdentity => assert_eq!(shown, *KEYS[0].public()),
                HandshakeError::Payload { message: 3 } => assert_eq!(meaning, None),
                HandshakeError::Length { .. } | HandshakeError::Verify { .. } => {}
                error => panic!("message 3 cannot fail with {error}"),
            }
        }
    }
}

/// We initiate; the responder's message 2 and what we say in message 3 are as the input has them.
///
/// A byte of settings, a key of 32 bytes if they say so; message 2 as above; 22 bytes of hello and
/// an application payload's length in two.
pub fn handshake_initiator(data: &[u8]) {
    let mut input = Input(data);
    let settings = input.byte();
    let suite = suite(settings);
    let ours = terms(suite, &KEYS[0]);
    if settings & 2 != 0 {
        // Whoever is dialled may be anybody, and nobody can answer for him.
        let anybody = PeerId::from_bytes([0; KEY].map(|_| input.byte()));
        match Initiator::start(&ours, &anybody, NOW) {
            Ok(_) => assert_ne!(anybody, ours.own_id()),
            Err(HandshakeError::OwnIdentity) => assert_eq!(anybody, ours.own_id()),
            Err(HandshakeError::NonCanonicalKey) => {}
            Err(error) => panic!("message 1 cannot fail with {error}"),
        }
        return;
    }
    let mut theirs = peer(suite, &KEYS[1], None, None);
    let id = PeerId::from_bytes(*KEYS[1].public());
    let (initiator, one) = Initiator::start(&ours, &id, NOW).expect("we can write");
    assert_eq!(opened(&mut theirs, &one), NOW.to_be_bytes());

    let in_order = b"\0\0\0\0\0\0\0\0\x07\x65\x53\xf1\0\0\x10\0\0";
    let two = Delivered::take(&mut input, &mut theirs, in_order);
    let meaning = two.payload.and_then(meaning_of_2);
    let answered = match initiator.read_message2(&two.bytes) {
        Ok((answered, hello)) => {
            assert_eq!(meaning, Some(hello));
            answered
        }
        Err(error) => {
            two.refused(2, MIN_MESSAGE_2..=MAX_MESSAGE_2, &error);
            assert_eq!(meaning, None);
            return;
        }
    };
    assert_eq!(answered.handshake_hash(), theirs.get_handshake_hash());

    let mut long = || number(&[0; 8].map(|_| input.byte()));
    let (instance, stamp) = (long(), long());
    let max_message = u32::from(input.word()) + 1;
    let room = usize::from(input.byte());
    let hello = Message3 {
        instance,
        stamp,
        max_message,
        application_payload: vec![input.byte(); input.word().into()].into(),
    };
    let length = hello.application_payload.len();
    match answered.write_message3(&hello, room) {
        Ok((finished, three)) => {
            assert_eq!(three.len(), room + MIN_MESSAGE_3 + length);
            assert_eq!(meaning_of_3(&opened(&mut theirs, &three[room..])), Some(hello));
            joined(finished, theirs);
        }
        Err(HandshakeError::Payload { message: 3 }) => {
            assert!(length > MAX_APPLICATION_PAYLOAD);
        }
        Err(error) => panic!("message 3 cannot fail with {error}"),
    }
}

/// This build's primitives, with a static key that may show another public key than its own.
struct Showing {
    inner: BoxedCryptoResolver,
    shown: Option<[u8; KEY]>,
}

impl CryptoResolver for Showing {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        self.inner.resolve_rng()
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let inner = self.inner.resolve_dh(choice)?;
        Some(Box::new(ShowingDh { inner, shown: self.shown, is_static: false }))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        self.inner.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        self.inner.resolve_cipher(choice)
    }
}

struct ShowingDh {
    inner: Box<dyn Dh>,
    shown: Option<[u8; KEY]>,
    is_static: bool,
}

impl Dh for ShowingDh {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn pub_len(&self) -> usize {
        self.inner.pub_len()
    }

    fn priv_len(&self) -> usize {
        self.inner.priv_len()
    }

    fn set(&mut self, privkey: &[u8]) {
        self.inner.set(privkey);
        self.is_static = true;
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        self.is_static = false;
        self.inner.generate(rng)
    }

    fn pubkey(&self) -> &[u8] {
        match &self.shown {
            Some(shown) if self.is_static => shown,
            _ => self.inner.pubkey(),
        }
    }

    fn privkey(&self) -> &[u8] {
        self.inner.privkey()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        self.inner.dh(pubkey, out)
    }
}
