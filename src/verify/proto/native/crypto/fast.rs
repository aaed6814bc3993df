//! Unit tests of `proto/native/crypto/fast.rs`.

use super::*;
use crate::proto::native::crypto::tests::resolvers;

const CIPHERS: [CipherChoice; 2] = [CipherChoice::ChaChaPoly, CipherChoice::AESGCM];

#[test]
fn a_cipher_without_a_key_writes_nothing_of_the_plaintext() {
    for kind in [Kind::ChaChaPoly, Kind::AesGcm] {
        let mut aead = Aead { kind, key: None };
        let mut out = [0xaa; 40];
        assert_eq!(aead.encrypt(0, &[], &[0x55; 24], &mut out), 0);
        assert_eq!(out, [0; 40]);
        aead.rekey();
        assert!(aead.key.is_none());
        assert_eq!(aead.decrypt(0, &[], &[0; 40], &mut out), Err(Error::Decrypt));
        aead.set(&[1; KEY]);
        assert_eq!(aead.encrypt(0, &[], &[0x55; 25], &mut out), 0, "no room");
        assert_eq!(aead.encrypt(0, &[], &[0x55; 24], &mut out), 40);
    }
}

/// Both implementations must be one cipher on the wire, over rekeys too.
#[test]
fn both_implementations_seal_alike_and_open_each_other() {
    for choice in CIPHERS {
        let mut ciphers: Vec<_> = resolvers([1; KEY])
            .into_iter()
            .map(|(_, make)| make().resolve_cipher(&choice).unwrap())
            .collect();
        for cipher in &mut ciphers {
            cipher.set(&[7; KEY]);
        }
        for nonce in [0, 1, 0x0102_0304_0506_0708, u64::MAX - 1] {
            for len in [0, 1, 15, 16, 17, 1028, 65519] {
                let plain: Vec<u8> = (0..len).map(|i| i as u8).collect();
                let sealed: Vec<Vec<u8>> = ciphers
                    .iter()
                    .map(|cipher| {
                        let mut out = vec![0; len + TAG];
                        assert_eq!(cipher.encrypt(nonce, b"ad", &plain, &mut out), len + TAG);
                        out
                    })
                    .collect();
                assert_eq!(sealed[0], sealed[1]);
                for cipher in &ciphers {
                    let mut out = vec![0; len];
                    assert_eq!(cipher.decrypt(nonce, b"ad", &sealed[0], &mut out), Ok(len));
                    assert_eq!(out, plain);
                    let mut bad = sealed[0].clone();
                    bad[len / 2] ^= 1;
                    assert!(cipher.decrypt(nonce, b"ad", &bad, &mut out).is_err());
                    assert!(cipher.decrypt(nonce, b"aD", &sealed[0], &mut out).is_err());
                }
            }
            for cipher in &mut ciphers {
                cipher.rekey();
            }
        }
    }
}
