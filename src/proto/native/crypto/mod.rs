//! What turns keys into sealed bytes: the primitives that snow is given, and their choice.
//!
//! Owns the [`CryptoResolver`](snow::resolvers::CryptoResolver) of this crate and the two
//! implementations behind it: aws-lc (feature `fast-crypto`) and pure Rust. Both run the same
//! published test vectors. It must never log, print or hand out a secret, and it draws randomness
//! only from the [`Entropy`] that it is given.

#[cfg(feature = "fast-crypto")]
mod fast;
mod primitives;
#[cfg(any(test, not(feature = "fast-crypto")))]
mod pure;
mod transport;
#[cfg(test)]
#[path = "../../../verify/proto/native/crypto/noise_vectors.rs"]
mod vectors;

use std::sync::Arc;

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{BoxedCryptoResolver, CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};

use crate::base::environment::Entropy;
use crate::base::key::StaticKey;

pub(crate) use primitives::TAG;
pub(crate) use transport::Transport;

use primitives::Primitives;

#[cfg(feature = "fast-crypto")]
use fast::PRIMITIVES;
#[cfg(not(feature = "fast-crypto"))]
use pure::PRIMITIVES;

/// The resolver of this build, for a handshake with `local` as the static key.
pub(crate) fn resolver(local: &Arc<StaticKey>, entropy: &Arc<dyn Entropy>) -> BoxedCryptoResolver {
    Box::new(Resolver {
        local: Arc::clone(local),
        entropy: Arc::clone(entropy),
        primitives: PRIMITIVES,
    })
}

/// Where snow gets its primitives.
struct Resolver {
    local: Arc<StaticKey>,
    entropy: Arc<dyn Entropy>,
    primitives: Primitives,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(EntropyRng(Arc::clone(&self.entropy))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some((self.primitives.x25519)(Arc::clone(&self.local))),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        (self.primitives.cipher)(choice)
    }
}

/// snow's view of an [`Entropy`].
struct EntropyRng(Arc<dyn Entropy>);

impl Random for EntropyRng {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill(dest);
        Ok(())
    }
}

#[cfg(test)]
#[path = "../../../verify/proto/native/crypto.rs"]
pub(crate) mod tests;
