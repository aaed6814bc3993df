//! The primitives by aws-lc: X25519, ChaCha20-Poly1305, AES-256-GCM. Hashes by snow.

use std::sync::Arc;

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519 as CURVE};
use snow::Error;
use snow::params::CipherChoice;
use snow::types::{Cipher, Dh, Random};
use zeroize::Zeroizing;

use super::primitives::{Primitives, TAG};
use crate::base::key::{KEY, StaticKey, prepare};

/// By aws-lc.
pub(super) const PRIMITIVES: Primitives = Primitives {
    x25519: |local| Box::new(X25519 { local, key: Key::Unset }),
    cipher: |choice| {
        let kind = match choice {
            CipherChoice::ChaChaPoly => Kind::ChaChaPoly,
            CipherChoice::AESGCM => Kind::AesGcm,
        };
        Some(Box::new(Aead { kind, key: None }))
    },
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
        private: PrivateKey,
        public: [u8; KEY],
    },
}

impl Key {
    fn other(secret: &[u8]) -> Self {
        prepare(secret)
            .and_then(|private| {
                let derived = private.compute_public_key().ok()?;
                let public = derived.as_ref().try_into().ok()?;
                Some(Self::Other { private, public })
            })
            .unwrap_or(Self::Unset)
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
        self.key = if self.local.is(privkey) { Key::Local } else { Key::other(privkey) };
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut secret = Zeroizing::new([0; KEY]);
        rng.try_fill_bytes(&mut *secret)?;
        self.key = Key::other(&*secret);
        match self.key {
            Key::Other { .. } => Ok(()),
            _ => Err(Error::Dh),
        }
    }

    fn pubkey(&self) -> &[u8] {
        match &self.key {
            Key::Unset => &[0; KEY],
            Key::Local => self.local.public(),
            Key::Other { public, .. } => public,
        }
    }

    /// Nothing: snow asks only when it generates key pairs for others, which this crate never lets
    /// it do.
    fn privkey(&self) -> &[u8] {
        &[]
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        // snow lends its buffer of 56 bytes, made for X448; the key is at its start.
        let theirs = pubkey.first_chunk::<KEY>().ok_or(Error::Dh)?;
        let out = out.first_chunk_mut::<KEY>().ok_or(Error::Dh)?;
        let private = match &self.key {
            Key::Unset => return Err(Error::Dh),
            Key::Local => self.local.prepared().ok_or(Error::Dh)?,
            Key::Other { private, .. } => private,
        };
        let theirs = UnparsedPublicKey::new(&CURVE, theirs);
        agreement::agree(private, theirs, Error::Dh, |shared| {
            // aws-lc refuses an all-zero result by itself; this does not depend on it.
            if shared.len() != KEY || shared.iter().fold(0, |acc, byte| acc | byte) == 0 {
                return Err(Error::Dh);
            }
            out.copy_from_slice(shared);
            Ok(())
        })
    }
}

#[derive(Clone, Copy)]
enum Kind {
    ChaChaPoly,
    AesGcm,
}

impl Kind {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::ChaChaPoly => &CHACHA20_POLY1305,
            Self::AesGcm => &AES_256_GCM,
        }
    }

    /// Noise specification, section 12: 32 zero bits, then the counter, whose order differs.
    fn nonce(self, n: u64) -> Nonce {
        let mut bytes = [0; NONCE_LEN];
        bytes[4..].copy_from_slice(&match self {
            Self::ChaChaPoly => n.to_le_bytes(),
            Self::AesGcm => n.to_be_bytes(),
        });
        Nonce::assume_unique_for_key(bytes)
    }
}

/// One direction's cipher.
///
/// snow's trait has no error for `set`, `encrypt` and `rekey`. Here a failure of `set` or `rekey`
/// leaves no key, and an `encrypt` without a key, or one that fails, writes zeroes and reports a
/// length of 0. The caller compares the length with what it must be (see
/// [`Transport::seal`](super::Transport::seal)), so that a failure ends the session and nothing
/// unsealed is ever sent.
struct Aead {
    kind: Kind,
    key: Option<LessSafeKey>,
}

impl Cipher for Aead {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::ChaChaPoly => "ChaChaPoly",
            Kind::AesGcm => "AESGCM",
        }
    }

    fn set(&mut self, key: &[u8; KEY]) {
        self.key = UnboundKey::new(self.kind.algorithm(), key).ok().map(LessSafeKey::new);
    }

    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let sealed = self.key.as_ref().and_then(|key| {
            let (ciphertext, rest) = out.split_at_mut_checked(plaintext.len())?;
            let tag = rest.first_chunk_mut::<TAG>()?;
            let nonce = self.kind.nonce(nonce);
            key.seal_out_of_place_scatter(
                nonce,
                Aad::from(authtext),
                plaintext,
                ciphertext,
                &[],
                tag,
            )
            .ok()
        });
        match sealed {
            Some(()) => plaintext.len() + TAG,
            None => {
                out.fill(0);
                0
            }
        }
    }

    fn decrypt(
        &self,
        nonce: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let key = self.key.as_ref().ok_or(Error::Decrypt)?;
        let (body, tag) = ciphertext.split_last_chunk::<TAG>().ok_or(Error::Decrypt)?;
        let out = out.get_mut(..body.len()).ok_or(Error::Decrypt)?;
        key.open_separate_gather(self.kind.nonce(nonce), Aad::from(authtext), body, tag, out)
            .map_err(|_| {
                // What an unverified decryption leaves behind is unspecified.
                out.fill(0);
                Error::Decrypt
            })?;
        Ok(body.len())
    }

    /// Noise specification, section 4.2: the first 32 bytes of zeroes sealed with the last nonce.
    fn rekey(&mut self) {
        let mut sealed = Zeroizing::new([0; KEY + TAG]);
        let written = self.encrypt(u64::MAX, &[], &[0; KEY], &mut *sealed);
        match sealed.first_chunk() {
            Some(key) if written == sealed.len() => self.set(key),
            _ => self.key = None,
        }
    }
}

#[cfg(test)]
#[path = "../../../verify/proto/native/crypto/fast.rs"]
mod tests;
