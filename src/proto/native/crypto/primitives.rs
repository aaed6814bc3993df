//! The primitives that cost time, as each implementation of them provides them.

use std::sync::Arc;

use snow::params::CipherChoice;
use snow::types::{Cipher, Dh};

use crate::base::key::StaticKey;

/// Bytes that an AEAD adds to its plaintext: the Poly1305 or GCM tag.
pub(crate) const TAG: usize = 16;

/// One implementation of the primitives that cost time. The hash functions come from snow in both:
/// they are 2 % of a handshake.
#[derive(Clone, Copy)]
pub(super) struct Primitives {
    /// A key pair for snow, which may be the static one that is given.
    pub(super) x25519: fn(Arc<StaticKey>) -> Box<dyn Dh>,
    pub(super) cipher: fn(&CipherChoice) -> Option<Box<dyn Cipher>>,
}
