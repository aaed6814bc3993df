//! For tests and fuzzing: randomness that repeats, and both ends of a channel at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use snow::Builder;

use super::{Entropy, KEY, StaticKey, Suite, Transport, resolver};

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

impl Transport {
    /// Initiator and responder of one channel with fixed keys.
    #[allow(clippy::unwrap_used, reason = "only in tests, and with fixed inputs")]
    pub(crate) fn pair() -> (Self, Self) {
        let entropy: Arc<dyn Entropy> = Arc::new(TestEntropy::new(1));
        let keys = [[1; KEY], [2; KEY]].map(|secret| Arc::new(StaticKey::new(secret)));
        let builder = |key| {
            let params = Suite::default().params();
            Builder::with_resolver(params, resolver(key, &entropy))
        };
        let mut initiator = builder(&keys[0])
            .local_private_key(keys[0].secret())
            .unwrap()
            .remote_public_key(keys[1].public())
            .unwrap()
            .build_initiator()
            .unwrap();
        let mut responder = builder(&keys[1])
            .local_private_key(keys[1].secret())
            .unwrap()
            .build_responder()
            .unwrap();
        let (mut message, mut payload) = ([0; 128], [0; 128]);
        for turn in 0..3 {
            let (from, to) = match turn {
                1 => (&mut responder, &mut initiator),
                _ => (&mut initiator, &mut responder),
            };
            let length = from.write_message(&[], &mut message).unwrap();
            to.read_message(&message[..length], &mut payload).unwrap();
        }
        let [initiator, responder] = [initiator, responder].map(|side| side.into_transport_mode());
        (Self::new(initiator.unwrap()), Self::new(responder.unwrap()))
    }
}
