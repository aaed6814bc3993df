//! The primitives in pure Rust: X25519 by x25519-dalek, ciphers and hashes by snow's own resolver.

use std::sync::Arc;

use snow::Error;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Dh, Random};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::primitives::Primitives;
use crate::base::key::{KEY, StaticKey};

/// By x25519-dalek and snow.
pub(super) const PRIMITIVES: Primitives = Primitives {
    x25519: |local| Box::new(X25519 { local, key: Key::Unset }),
    cipher: |choice| DefaultResolver.resolve_cipher(choice),
};

/// A key pair for snow, which may be our static one.
struct X25519 {
    local: Arc<StaticKey>,
    key: Key,
}

enum Key {
    /// Not set, or set to something that is no key: agreement fails.
    Unset,
    Local,
    Other {
        secret: StaticSecret,
        public: PublicKey,
    },
}

impl Key {
    fn other(secret: [u8; KEY]) -> Self {
        let secret = StaticSecret::from(secret);
        let public = PublicKey::from(&secret);
        Self::Other { secret, public }
    }
}

impl Dh for X25519 {
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
        self.key = if self.local.is(privkey) {
            Key::Local
        } else {
            match privkey.try_into() {
                Ok(secret) => Key::other(secret),
                Err(_) => Key::Unset,
            }
        };
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut secret = Zeroizing::new([0; KEY]);
        rng.try_fill_bytes(&mut *secret)?;
        self.key = Key::other(*secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        match &self.key {
            Key::Unset => &[0; KEY],
            Key::Local => self.local.public(),
            Key::Other { public, .. } => public.as_bytes(),
        }
    }

    /// Nothing: snow asks only when it generates key pairs for others, which this crate never lets
    /// it do.
    fn privkey(&self) -> &[u8] {
        &[]
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        // snow lends its buffer of 56 bytes, made for X448; the key is at its start.
        let theirs: [u8; KEY] = *pubkey.first_chunk().ok_or(Error::Dh)?;
        let out = out.first_chunk_mut::<KEY>().ok_or(Error::Dh)?;
        let secret = match &self.key {
            Key::Unset => return Err(Error::Dh),
            Key::Local => self.local.dalek(),
            Key::Other { secret, .. } => secret,
        };
        let shared = secret.diffie_hellman(&PublicKey::from(theirs));
        if !shared.was_contributory() {
            return Err(Error::Dh);
        }
        *out = *shared.as_bytes();
        Ok(())
    }
}
