//! Our static key, prepared once for all handshakes.

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroize;

/// Bytes of an X25519 key, of a cipher key and of a handshake hash.
pub(crate) const KEY: usize = 32;

/// The X25519 key pair behind an identity. The secret is wiped when the last user drops it.
///
/// The secret is kept clamped (RFC 7748, section 5), so that one key has one form; everything that
/// costs a scalar multiplication or an allocation to derive is derived here, once per identity.
pub(crate) struct StaticKey {
    secret: StaticSecret,
    public: [u8; KEY],
    #[cfg(feature = "fast-crypto")]
    prepared: Option<aws_lc_rs::agreement::PrivateKey>,
}

impl StaticKey {
    pub(crate) fn new(mut secret: [u8; KEY]) -> Self {
        secret[0] &= 0b1111_1000;
        secret[31] &= 0b0111_1111;
        secret[31] |= 0b0100_0000;
        #[cfg(feature = "fast-crypto")]
        let prepared = prepare(&secret);
        let wiped = StaticSecret::from(secret);
        secret.zeroize();
        Self {
            public: PublicKey::from(&wiped).to_bytes(),
            secret: wiped,
            #[cfg(feature = "fast-crypto")]
            prepared,
        }
    }

    pub(crate) fn public(&self) -> &[u8; KEY] {
        &self.public
    }

    /// The clamped secret: for the key file, and for snow's builder, which lends it to `Dh::set`.
    pub(crate) fn secret(&self) -> &[u8; KEY] {
        self.secret.as_bytes()
    }

    /// Whether `secret` is ours, in a time that does not depend on where it differs.
    pub(crate) fn is(&self, secret: &[u8]) -> bool {
        let own = self.secret();
        let difference = own.iter().zip(secret).fold(0, |acc, (a, b)| acc | (a ^ b));
        secret.len() == own.len() && difference == 0
    }

    #[cfg(any(test, not(feature = "fast-crypto")))]
    pub(crate) fn dalek(&self) -> &StaticSecret {
        &self.secret
    }

    /// The key as aws-lc wants it; none only if aws-lc could not allocate.
    #[cfg(feature = "fast-crypto")]
    pub(crate) fn prepared(&self) -> Option<&aws_lc_rs::agreement::PrivateKey> {
        self.prepared.as_ref()
    }
}

/// The secret as aws-lc holds it, which wipes it when it frees it.
#[cfg(feature = "fast-crypto")]
pub(crate) fn prepare(secret: &[u8]) -> Option<aws_lc_rs::agreement::PrivateKey> {
    aws_lc_rs::agreement::PrivateKey::from_private_key(&aws_lc_rs::agreement::X25519, secret).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_has_one_form() {
        let mut messy = [0x55; KEY];
        messy[0] |= 0b111;
        messy[31] |= 0b1000_0000;
        let key = StaticKey::new(messy);
        let again = StaticKey::new(*key.secret());
        assert_eq!(key.secret(), again.secret());
        assert_eq!(key.public(), again.public());
        assert_eq!(key.public(), PublicKey::from(&StaticSecret::from(messy)).as_bytes());
    }

    #[test]
    fn only_the_whole_secret_is_ours() {
        let key = StaticKey::new([0x58; KEY]);
        let own = *key.secret();
        assert!(key.is(&own));
        assert!(!key.is(&own[..31]));
        assert!(!key.is(&[]));
        for bit in 0..256 {
            let mut other = own;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.is(&other));
        }
    }
}
