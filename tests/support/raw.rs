//! A peer made from `docs/wire.md` and `snow` alone, which says whatever a test wants.
//!
//! It shares no code with the crate: what it cannot be made to do from the page, the page lacks. It
//! judges only what it needs to go on.

use std::time::Duration;

use noise_pool::config::WallClock;
use noise_pool::{Config, Identity, PeerId};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState, TransportState};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What every clock shows unless a test says otherwise.
pub(crate) const NOW: u32 = 1_700_000_000;

pub(crate) const CHACHA: &str = "Noise_XK_25519_ChaChaPoly_BLAKE2s";
pub(crate) const AES: &str = "Noise_XK_25519_AESGCM_SHA256";

/// A wall clock that stands still.
pub(crate) struct Clock(pub(crate) u32);

impl WallClock for Clock {
    fn unix_seconds(&self) -> u64 {
        self.0.into()
    }
}

/// The defaults, at the raw peers' time.
pub(crate) fn config() -> Config {
    Config::default().wall_clock(Clock(NOW))
}

/// What a raw peer brings into its handshakes.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    pub(crate) secret: [u8; 32],
    /// Shown as its static public key, whatever the true one is.
    pub(crate) shown_key: Option<[u8; 32]>,
    /// Shown as its ephemeral public key, whatever the true one is.
    pub(crate) shown_ephemeral: Option<[u8; 32]>,
    pub(crate) suite: &'static str,
    pub(crate) network_id: Vec<u8>,
    pub(crate) time: u32,
    pub(crate) minor: u8,
    pub(crate) instance: u64,
    pub(crate) stamp: u64,
    pub(crate) max_message: u32,
    pub(crate) payload: Vec<u8>,
    /// Put behind the payload of its message 2 or 3.
    pub(crate) more: Vec<u8>,
}

/// A handshake that is under way.
pub(crate) struct Handshake(HandshakeState);

/// What the other side said of itself in message 2 or 3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) minor: u8,
    pub(crate) instance: u64,
    /// In message 2.
    pub(crate) time: u32,
    /// In message 3.
    pub(crate) stamp: u64,
    pub(crate) max_message: u32,
    pub(crate) payload: Vec<u8>,
}

impl Raw {
    /// The peer with the identity `support::identity(n)`.
    pub(crate) fn new(n: u8) -> Self {
        Self {
            secret: [n.wrapping_add(1); 32],
            shown_key: None,
            shown_ephemeral: None,
            suite: CHACHA,
            network_id: Vec::new(),
            time: NOW,
            minor: 0,
            instance: 7,
            stamp: 1,
            max_message: 1 << 20,
            payload: Vec::new(),
            more: Vec::new(),
        }
    }

    pub(crate) fn id(&self) -> PeerId {
        Identity::from_secret(self.secret).peer_id()
    }

    fn begin(&self, responder: Option<&PeerId>) -> Handshake {
        let mut prologue = Vec::new();
        for piece in [b"noise-pool/1".as_slice(), self.suite.as_bytes(), &self.network_id] {
            prologue.push(u8::try_from(piece.len()).unwrap());
            prologue.extend_from_slice(piece);
        }
        let resolver = Resolver {
            secret: self.secret,
            shown_key: self.shown_key,
            shown_ephemeral: self.shown_ephemeral,
        };
        let builder = Builder::with_resolver(self.suite.parse().unwrap(), Box::new(resolver))
            .prologue(&prologue)
            .unwrap()
            .local_private_key(&self.secret)
            .unwrap();
        Handshake(match responder {
            Some(peer) => {
                builder.remote_public_key(peer.as_bytes()).unwrap().build_initiator().unwrap()
            }
            None => builder.build_responder().unwrap(),
        })
    }

    /// Begins a handshake with `peer`; message 1, with its length.
    pub(crate) fn message1(&self, peer: &PeerId) -> (Handshake, Vec<u8>) {
        let mut handshake = self.begin(Some(peer));
        let message = handshake.write(&self.time.to_be_bytes());
        (handshake, message)
    }

    /// The answer to message 1, with its length.
    pub(crate) fn message2(&self, message1: &[u8]) -> (Handshake, Vec<u8>) {
        let mut handshake = self.begin(None);
        handshake.read(message1);
        let mut payload = vec![self.minor];
        payload.extend_from_slice(&self.instance.to_be_bytes());
        payload.extend_from_slice(&self.time.to_be_bytes());
        payload.extend_from_slice(&self.max_message.to_be_bytes());
        payload.extend_from_slice(&self.more);
        let message = handshake.write(&payload);
        (handshake, message)
    }

    /// The answer to message 2, with its length.
    pub(crate) fn message3(&self, handshake: &mut Handshake) -> Vec<u8> {
        let mut payload = vec![self.minor];
        payload.extend_from_slice(&self.instance.to_be_bytes());
        payload.extend_from_slice(&self.stamp.to_be_bytes());
        payload.extend_from_slice(&self.max_message.to_be_bytes());
        payload.extend_from_slice(&u16::try_from(self.payload.len()).unwrap().to_be_bytes());
        payload.extend_from_slice(&self.payload);
        payload.extend_from_slice(&self.more);
        handshake.write(&payload)
    }

    /// The initiator's part, up to and with message 3.
    pub(crate) async fn initiate<S>(&self, mut stream: S, peer: &PeerId) -> Session<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut handshake, message1) = self.message1(peer);
        stream.write_all(&message1).await.unwrap();
        let payload = handshake.read(&prefixed(&mut stream).await.unwrap());
        let mut input = &payload[..];
        let hello = Hello {
            minor: take::<1>(&mut input)[0],
            instance: u64::from_be_bytes(take(&mut input)),
            time: u32::from_be_bytes(take(&mut input)),
            max_message: u32::from_be_bytes(take(&mut input)),
            stamp: 0,
            payload: Vec::new(),
        };
        assert!(input.is_empty(), "message 2 of minor version 0 has nothing behind it");
        let message3 = self.message3(&mut handshake);
        stream.write_all(&message3).await.unwrap();
        handshake.finish(stream, hello)
    }

    /// The initiator's part, up to an accepting verdict.
    pub(crate) async fn open<S>(&self, stream: S, peer: &PeerId) -> Session<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut session = self.initiate(stream, peer).await;
        let verdict = session.hear().await.unwrap();
        assert_eq!((verdict[0].0, verdict[0].1[0]), (VERDICT, 0), "accepted");
        session
    }

    /// The responder's part, up to message 3; the verdict is the test's.
    pub(crate) async fn respond<S>(&self, mut stream: S) -> Session<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let message1 = prefixed(&mut stream).await.unwrap();
        let (mut handshake, message2) = self.message2(&message1);
        stream.write_all(&message2).await.unwrap();
        let payload = handshake.read(&prefixed(&mut stream).await.unwrap());
        let mut input = &payload[..];
        let minor = take::<1>(&mut input)[0];
        let instance = u64::from_be_bytes(take(&mut input));
        let stamp = u64::from_be_bytes(take(&mut input));
        let max_message = u32::from_be_bytes(take(&mut input));
        let length = u16::from_be_bytes(take(&mut input));
        assert_eq!(input.len(), usize::from(length), "nothing behind minor version 0");
        let hello = Hello { minor, instance, time: 0, stamp, max_message, payload: input.to_vec() };
        handshake.finish(stream, hello)
    }

    /// The responder's part, with an accepting verdict.
    pub(crate) async fn accept<S>(&self, stream: S) -> Session<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut session = self.respond(stream).await;
        session.say(&accept(self.stamp, "", &self.payload)).await;
        session
    }
}

impl Handshake {
    fn write(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut message = vec![0; 65_535];
        let length = self.0.write_message(payload, &mut message).unwrap();
        message.truncate(length);
        with_length(&message)
    }

    /// The payload of a message that came without its length.
    pub(crate) fn read(&mut self, message: &[u8]) -> Vec<u8> {
        let mut payload = vec![0; 65_535];
        let length = self.0.read_message(message, &mut payload).unwrap();
        payload.truncate(length);
        payload
    }

    pub(crate) fn finish<S>(self, stream: S, hello: Hello) -> Session<S> {
        let hash = self.0.get_handshake_hash().try_into().unwrap();
        let peer = self.0.get_remote_static().map(<[u8]>::to_vec).unwrap_or_default();
        Session { stream, noise: self.0.into_transport_mode().unwrap(), hash, peer, hello }
    }
}

/// An established session, in the hands of a peer that keeps no rule.
pub(crate) struct Session<S> {
    pub(crate) stream: S,
    pub(crate) noise: TransportState,
    pub(crate) hash: [u8; 32],
    /// The other's static key.
    pub(crate) peer: Vec<u8>,
    pub(crate) hello: Hello,
}

/// A record: its type and its body.
pub(crate) type Record = (u8, Vec<u8>);

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// One frame, with its length.
    pub(crate) fn frame(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut ciphertext = vec![0; plaintext.len() + 16];
        let length = self.noise.write_message(plaintext, &mut ciphertext).unwrap();
        assert_eq!(length, ciphertext.len());
        with_length(&ciphertext)
    }

    /// Writes these records as one frame.
    pub(crate) async fn say(&mut self, plaintext: &[u8]) {
        self.try_say(plaintext).await.unwrap();
    }

    pub(crate) async fn try_say(&mut self, plaintext: &[u8]) -> std::io::Result<()> {
        let frame = self.frame(plaintext);
        self.stream.write_all(&frame).await
    }

    /// The records of the next frame; none at the end of the stream.
    pub(crate) async fn hear(&mut self) -> Option<Vec<Record>> {
        let ciphertext = prefixed(&mut self.stream).await?;
        let mut plaintext = vec![0; ciphertext.len()];
        let length = self.noise.read_message(&ciphertext, &mut plaintext).unwrap();
        Some(records(&plaintext[..length]))
    }

    /// Waits for a record of this type, and leaves out the others; its body.
    pub(crate) async fn hear_one(&mut self, kind: u8) -> Vec<u8> {
        loop {
            let records = self.hear().await.expect("the stream goes on");
            if let Some((_, body)) = records.into_iter().find(|record| record.0 == kind) {
                return body;
            }
        }
    }

    /// Reads to the end of the stream; how many bytes came.
    pub(crate) async fn rest(&mut self) -> usize {
        rest(&mut self.stream).await
    }
}

/// Reads to the end of the stream, or until it breaks; how many bytes came.
pub(crate) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> usize {
    let mut scrap = [0; 4096];
    let mut bytes = 0;
    while let Ok(read @ 1..) = stream.read(&mut scrap).await {
        bytes += read;
    }
    bytes
}

/// Reads a length and what it announces; none if the stream ends instead.
pub(crate) async fn prefixed(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = stream.read_u16().await.ok()?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await.ok()?;
    Some(message)
}

/// Writes one byte at a time, with a pause before each; false if nobody reads any more.
pub(crate) async fn dribble(
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    pause: Duration,
) -> bool {
    for byte in bytes {
        tokio::time::sleep(pause).await;
        if stream.write_all(&[*byte]).await.is_err() {
            return false;
        }
    }
    true
}

fn with_length(message: &[u8]) -> Vec<u8> {
    let mut framed = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    framed
}

fn take<const N: usize>(input: &mut &[u8]) -> [u8; N] {
    let (taken, rest) = input.split_first_chunk().expect("the payload has its form");
    *input = rest;
    *taken
}

// ---- records -----------------------------------------------------------------------------------

pub(crate) const DATA: u8 = 0x01;
pub(crate) const FRAGMENT: u8 = 0x02;
pub(crate) const PING: u8 = 0x03;
pub(crate) const PONG: u8 = 0x04;
pub(crate) const KEEP_ALIVE: u8 = 0x05;
pub(crate) const RECEIPT: u8 = 0x80;
pub(crate) const REKEY: u8 = 0x06;
pub(crate) const DRAIN: u8 = 0x07;
pub(crate) const GOODBYE: u8 = 0x08;
pub(crate) const VERDICT: u8 = 0x09;

pub(crate) fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind];
    record.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    record.extend_from_slice(body);
    record
}

pub(crate) fn data(message: &[u8]) -> Vec<u8> {
    record(DATA, message)
}

pub(crate) fn fragment(remaining: u32, part: &[u8]) -> Vec<u8> {
    record(FRAGMENT, &[&remaining.to_be_bytes(), part].concat())
}

pub(crate) fn ping(nonce: u64) -> Vec<u8> {
    record(PING, &nonce.to_be_bytes())
}

pub(crate) fn pong(nonce: u64) -> Vec<u8> {
    record(PONG, &nonce.to_be_bytes())
}

pub(crate) fn goodbye(reason: u8, received: u64) -> Vec<u8> {
    record(GOODBYE, &[&[reason][..], &received.to_be_bytes()].concat())
}

pub(crate) fn accept(stamp: u64, observed: &str, payload: &[u8]) -> Vec<u8> {
    let length = [u8::try_from(observed.len()).unwrap()];
    let parts = [&[0][..], &stamp.to_be_bytes(), &length, observed.as_bytes(), payload];
    record(VERDICT, &parts.concat())
}

pub(crate) fn reject(reason: u8, retry_after_ms: u32) -> Vec<u8> {
    record(VERDICT, &[&[1, reason][..], &retry_after_ms.to_be_bytes()].concat())
}

/// The records of a frame.
pub(crate) fn records(mut plaintext: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while !plaintext.is_empty() {
        let [kind] = take(&mut plaintext);
        let length = u16::from_be_bytes(take(&mut plaintext));
        let (body, rest) = plaintext.split_at(length.into());
        records.push((kind, body.to_vec()));
        plaintext = rest;
    }
    records
}

// ---- crypto ------------------------------------------------------------------------------------

/// Two keys that nobody can hold: 0, and 2^255 - 19, which is 0 in another form.
pub(crate) const LOW_ORDER: [[u8; 32]; 2] = [[0; 32], {
    let mut p = [0xff; 32];
    p[0] = 0xed;
    p[31] = 0x7f;
    p
}];

/// snow's own primitives, with randomness, and with public keys that may be false.
struct Resolver {
    secret: [u8; 32],
    shown_key: Option<[u8; 32]>,
    shown_ephemeral: Option<[u8; 32]>,
}

struct SystemRandom;

impl Random for SystemRandom {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        getrandom::fill(dest).map_err(|_| snow::Error::Rng)
    }
}

/// A key pair that may show another public key than its own.
struct ShownDh {
    dh: Box<dyn Dh>,
    secret: [u8; 32],
    shown_key: Option<[u8; 32]>,
    shown_ephemeral: Option<[u8; 32]>,
}

impl ShownDh {
    fn shown(&self) -> Option<&[u8; 32]> {
        let is_static = self.dh.privkey() == self.secret;
        if is_static { self.shown_key.as_ref() } else { self.shown_ephemeral.as_ref() }
    }
}

impl Dh for ShownDh {
    fn name(&self) -> &'static str {
        self.dh.name()
    }

    fn pub_len(&self) -> usize {
        self.dh.pub_len()
    }

    fn priv_len(&self) -> usize {
        self.dh.priv_len()
    }

    fn set(&mut self, privkey: &[u8]) {
        self.dh.set(privkey);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        self.dh.generate(rng)
    }

    fn pubkey(&self) -> &[u8] {
        self.shown().map_or_else(|| self.dh.pubkey(), |shown| shown.as_slice())
    }

    fn privkey(&self) -> &[u8] {
        self.dh.privkey()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        // With a key of low order every product is zero, and that is what the other side computes.
        if self.shown().is_some_and(|shown| LOW_ORDER.contains(shown)) {
            out.fill(0);
            return Ok(());
        }
        self.dh.dh(pubkey, out)
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(SystemRandom))
    }

    fn resolve_dh(&self, choice: &snow::params::DHChoice) -> Option<Box<dyn Dh>> {
        let dh = DefaultResolver.resolve_dh(choice)?;
        let Self { secret, shown_key, shown_ephemeral } = *self;
        Some(Box::new(ShownDh { dh, secret, shown_key, shown_ephemeral }))
    }

    fn resolve_hash(&self, choice: &snow::params::HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &snow::params::CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}
