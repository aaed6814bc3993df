//! Unit tests of `proto/native/crypto/transport.rs`.

use super::*;
use crate::base::suite::Suite;
use crate::verify::crypto::transports;

#[test]
fn what_is_sealed_opens_once_and_in_order() {
    let (mut a, mut b) = transports(Suite::default());
    let (mut one, mut two) = ([0; 21], [0; 21]);
    assert_eq!(a.seal(b"first", &mut one), Ok(21));
    assert_eq!(a.seal(b"other", &mut two), Ok(21));
    let mut out = [0; 5];
    assert_eq!(b.open(&two, &mut out), Err(ProtocolError::Decrypt));
    assert_eq!(b.open(&one, &mut out), Ok(5));
    assert_eq!(&out, b"first");
    assert_eq!(b.open(&one, &mut out), Err(ProtocolError::Decrypt));
    assert_eq!(b.open(&two, &mut out), Ok(5));
    assert_eq!((a.0.sending_nonce(), b.0.receiving_nonce()), (2, 2));
    assert_eq!((b.0.sending_nonce(), a.0.receiving_nonce()), (0, 0));
}

#[test]
fn a_rekey_is_of_one_direction_and_keeps_the_nonce() {
    let (mut a, mut b) = transports(Suite::default());
    let mut sealed = [0; 17];
    let mut out = [0; 1];
    a.seal(b"x", &mut sealed).unwrap();
    b.open(&sealed, &mut out).unwrap();
    a.rekey_outgoing();
    a.seal(b"x", &mut sealed).unwrap();
    assert_eq!(b.open(&sealed, &mut out), Err(ProtocolError::Decrypt));
    b.rekey_incoming();
    assert_eq!(b.open(&sealed, &mut out), Ok(1));
    assert_eq!((a.0.sending_nonce(), b.0.receiving_nonce()), (2, 2));
    b.seal(b"x", &mut sealed).unwrap();
    assert_eq!(a.open(&sealed, &mut out), Ok(1));
}

#[test]
fn lengths_are_checked() {
    let (mut a, mut b) = transports(Suite::default());
    assert_eq!(a.seal(b"x", &mut [0; 16]), Err(ProtocolError::Cipher));
    let mut large = vec![0; 65_536];
    let max = vec![7; 65_519];
    assert_eq!(a.seal(&[7; 65_520], &mut large), Err(ProtocolError::Cipher));
    assert_eq!(a.seal(&max, &mut large), Ok(65_535));
    let mut out = vec![0; 65_519];
    for length in 0..16 {
        assert_eq!(b.open(&large[..length], &mut out), Err(ProtocolError::Decrypt));
    }
    assert_eq!(b.open(&large[..65_535], &mut [0; 65_518]), Err(ProtocolError::Decrypt));
    assert_eq!(b.open(&large[..65_535], &mut out), Ok(65_519));
    assert_eq!(out, max);
}

#[test]
fn the_last_nonce_is_never_used() {
    let (mut a, _) = transports(Suite::default());
    a.0.set_receiving_nonce(u64::MAX);
    let error = a.open(&[0; 17], &mut [0; 1]);
    assert_eq!(error, Err(ProtocolError::NoncesExhausted));
}
