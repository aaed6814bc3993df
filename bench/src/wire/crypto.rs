//! snow with the primitives that noise-pool uses by default, for the peers that are built on snow.

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{BoxedCryptoResolver, CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};

/// X25519 and the AEADs by aws-lc, all else as snow has it.
pub fn aws_lc() -> BoxedCryptoResolver {
    Box::new(AwsLc)
}

struct AwsLc;

impl CryptoResolver for AwsLc {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        DefaultResolver.resolve_rng()
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(Pair::default()) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        let (name, algorithm, little_endian) = match choice {
            CipherChoice::ChaChaPoly => ("ChaChaPoly", &CHACHA20_POLY1305, true),
            CipherChoice::AESGCM => ("AESGCM", &AES_256_GCM, false),
        };
        Some(Box::new(Aead { name, algorithm, little_endian, key: None }))
    }
}

#[derive(Default)]
struct Pair {
    secret: [u8; 32],
    public: [u8; 32],
    prepared: Option<PrivateKey>,
}

impl Dh for Pair {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        let key = PrivateKey::from_private_key(&X25519, secret).expect("32 bytes are a key");
        let public = key.compute_public_key().expect("a key has a public half");
        self.public.copy_from_slice(public.as_ref());
        self.secret.copy_from_slice(secret);
        self.prepared = Some(key);
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), Error> {
        let mut secret = [0; 32];
        random.try_fill_bytes(&mut secret)?;
        self.set(&secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.secret
    }

    fn dh(&self, theirs: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let ours = self.prepared.as_ref().ok_or(Error::Dh)?;
        let theirs = UnparsedPublicKey::new(&X25519, &theirs[..32]);
        agree(ours, theirs, Error::Dh, |shared| {
            out[..32].copy_from_slice(shared);
            Ok(())
        })
    }
}

struct Aead {
    name: &'static str,
    algorithm: &'static Algorithm,
    little_endian: bool,
    key: Option<LessSafeKey>,
}

impl Aead {
    fn nonce(&self, n: u64) -> Nonce {
        let mut bytes = [0; 12];
        let n = if self.little_endian { n.to_le_bytes() } else { n.to_be_bytes() };
        bytes[4..].copy_from_slice(&n);
        Nonce::assume_unique_for_key(bytes)
    }

    fn key(&self) -> &LessSafeKey {
        self.key.as_ref().expect("snow sets the key first")
    }
}

impl Cipher for Aead {
    fn name(&self) -> &'static str {
        self.name
    }

    fn set(&mut self, key: &[u8; 32]) {
        let key = UnboundKey::new(self.algorithm, key).expect("32 bytes are a key");
        self.key = Some(LessSafeKey::new(key));
    }

    fn encrypt(&self, nonce: u64, ad: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (ciphertext, rest) = out.split_at_mut(plaintext.len());
        self.key()
            .seal_out_of_place_scatter(
                self.nonce(nonce),
                Aad::from(ad),
                plaintext,
                ciphertext,
                &[],
                &mut rest[..16],
            )
            .expect("there is room");
        plaintext.len() + 16
    }

    fn decrypt(
        &self,
        nonce: u64,
        ad: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let (body, tag) = sealed.split_last_chunk::<16>().ok_or(Error::Decrypt)?;
        self.key()
            .open_separate_gather(
                self.nonce(nonce),
                Aad::from(ad),
                body,
                tag,
                &mut out[..body.len()],
            )
            .map_err(|_| Error::Decrypt)?;
        Ok(body.len())
    }
}
