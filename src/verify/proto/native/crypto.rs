//! Unit tests of `proto/native/crypto/mod.rs`.

use super::*;
use crate::base::key::KEY;
use crate::verify::crypto::TestEntropy;

/// Makes resolvers of one implementation.
type Make = Box<dyn Fn() -> BoxedCryptoResolver>;

/// Every implementation that this build has, by name.
pub(crate) fn resolvers(secret: [u8; KEY]) -> Vec<(&'static str, Make)> {
    let local = Arc::new(StaticKey::new(secret));
    let entropy: Arc<dyn Entropy> = Arc::new(TestEntropy::new(7));
    let make = |primitives| -> Make {
        let (local, entropy) = (Arc::clone(&local), Arc::clone(&entropy));
        Box::new(move || {
            let (local, entropy) = (Arc::clone(&local), Arc::clone(&entropy));
            Box::new(Resolver { local, entropy, primitives })
        })
    };
    vec![
        ("pure", make(pure::PRIMITIVES)),
        #[cfg(feature = "fast-crypto")]
        ("fast", make(fast::PRIMITIVES)),
    ]
}

/// The canonical X25519 inputs of low order, little-endian: 0, 1, the two of order 8, p - 1.
pub(crate) fn low_order_points() -> Vec<[u8; KEY]> {
    let hex = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    hex.iter()
        .map(|h| data_encoding::HEXLOWER.decode(h.as_bytes()).unwrap().try_into().unwrap())
        .collect()
}

#[test]
fn a_result_of_all_zeroes_is_refused() {
    for (name, make) in resolvers([5; KEY]) {
        for point in low_order_points() {
            for own in [true, false] {
                let mut dh = make().resolve_dh(&DHChoice::Curve25519).unwrap();
                dh.set(if own { &[5; KEY] } else { &[9; KEY] });
                let mut padded = [0; 56];
                padded[..KEY].copy_from_slice(&point);
                let mut out = [0; 56];
                assert_eq!(dh.dh(&padded, &mut out), Err(snow::Error::Dh), "{name}");
                assert_eq!(out, [0; 56], "{name}: nothing is written");
            }
        }
    }
}

#[test]
fn our_own_key_agrees_with_another() {
    for (name, make) in resolvers([5; KEY]) {
        let mut dh = make().resolve_dh(&DHChoice::Curve25519).unwrap();
        dh.set(&[0x77; KEY]);
        let public: Vec<u8> = dh.pubkey().to_vec();
        let mut own = make().resolve_dh(&DHChoice::Curve25519).unwrap();
        own.set(&[5; KEY]);
        let (mut ours, mut theirs) = ([0; KEY], [0; KEY]);
        own.dh(&public, &mut ours).unwrap();
        let own_public = own.pubkey().to_vec();
        dh.dh(&own_public, &mut theirs).unwrap();
        assert_eq!(ours, theirs, "{name}");
        assert_eq!(own_public, StaticKey::new([5; KEY]).public(), "{name}");
    }
}

#[test]
fn a_key_of_a_wrong_length_agrees_with_nothing() {
    for (name, make) in resolvers([5; KEY]) {
        let mut dh = make().resolve_dh(&DHChoice::Curve25519).unwrap();
        dh.set(&[5; 31]);
        assert_eq!(dh.dh(&[9; KEY], &mut [0; KEY]), Err(snow::Error::Dh), "{name}");
        dh.set(&[5; KEY]);
        assert_eq!(dh.dh(&[9; 31], &mut [0; KEY]), Err(snow::Error::Dh), "{name}");
    }
}

#[test]
fn ephemeral_keys_come_from_the_given_entropy() {
    let mut publics = Vec::new();
    for (_, make) in resolvers([5; KEY]) {
        let resolver = make();
        let mut dh = resolver.resolve_dh(&DHChoice::Curve25519).unwrap();
        let mut rng = EntropyRng(Arc::new(TestEntropy::new(3)));
        dh.generate(&mut rng).unwrap();
        publics.push(dh.pubkey().to_vec());
        dh.generate(&mut rng).unwrap();
        assert_ne!(publics.last().unwrap(), dh.pubkey());
    }
    publics.dedup();
    assert_eq!(publics.len(), 1, "both implementations derive the same key");
}
