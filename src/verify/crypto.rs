//! For tests and fuzzing: randomness that repeats, and both ends of a channel at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{BoxedCryptoResolver, CryptoResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error};

use crate::base::environment::Entropy;
use crate::base::key::{KEY, StaticKey};
use crate::base::suite::Suite;
use crate::proto::native::crypto::{Transport, resolver};

/// Random bytes from a counter (SplitMix64): the same in every run, and good for no key.
pub(crate) struct TestEntropy(AtomicU64);

impl TestEntropy {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Entropy for TestEntropy {
    fn fill(&self, dest: &mut [u8]) {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        for chunk in dest.chunks_mut(8) {
            let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// The keys of one session, as its initiator and its responder hold them: the same in every run, and
/// agreed on without curves, which would take most of a fuzzer's time.
#[expect(clippy::expect_used, reason = "a handshake with ourselves cannot fail by its input")]
pub(crate) fn transports(suite: Suite) -> (Transport, Transport) {
    try_transports(suite).expect("a handshake with ourselves succeeds")
}

fn try_transports(suite: Suite) -> Result<(Transport, Transport), Error> {
    let builder = |seed| {
        static UNUSED: LazyLock<Arc<StaticKey>> =
            LazyLock::new(|| Arc::new(StaticKey::new([1; KEY])));
        let entropy: Arc<dyn Entropy> = Arc::new(TestEntropy::new(seed));
        Builder::with_resolver(suite.params(), Box::new(Toy(resolver(&UNUSED, &entropy))))
    };
    let mut initiator =
        builder(3).local_private_key(&[1; KEY])?.remote_public_key(&[2; KEY])?.build_initiator()?;
    let mut responder = builder(4).local_private_key(&[2; KEY])?.build_responder()?;
    let (mut message, mut payload) = ([0; 128], [0; 128]);
    for from_initiator in [true, false, true] {
        let (from, to) = if from_initiator {
            (&mut initiator, &mut responder)
        } else {
            (&mut responder, &mut initiator)
        };
        let length = from.write_message(&[], &mut message)?;
        to.read_message(&message[..length], &mut payload)?;
    }
    Ok((
        Transport::new(initiator.into_transport_mode()?),
        Transport::new(responder.into_transport_mode()?),
    ))
}

/// This build's primitives, except for the key agreement.
struct Toy(BoxedCryptoResolver);

impl CryptoResolver for Toy {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        self.0.resolve_rng()
    }

    fn resolve_dh(&self, _: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::new(ToyDh([0; KEY])))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        self.0.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        self.0.resolve_cipher(choice)
    }
}

/// A key agreement that protects nothing: the public key is the secret, the result their difference.
struct ToyDh([u8; KEY]);

impl Dh for ToyDh {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY
    }

    fn priv_len(&self) -> usize {
        KEY
    }

    fn set(&mut self, privkey: &[u8]) {
        self.0.copy_from_slice(privkey);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        rng.try_fill_bytes(&mut self.0)
    }

    fn pubkey(&self) -> &[u8] {
        &self.0
    }

    fn privkey(&self) -> &[u8] {
        &self.0
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        for (out, (ours, theirs)) in out.iter_mut().zip(self.0.iter().zip(pubkey)) {
            *out = ours ^ theirs;
        }
        Ok(())
    }
}
