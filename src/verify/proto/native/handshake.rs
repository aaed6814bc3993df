//! The pure handshake: what passes, and every way to fail.

use proptest::prelude::*;

use super::*;
use crate::proto::native::crypto::tests::low_order_points;
use crate::verify::crypto::TestEntropy;

const SUITES: [Suite; 2] = [Suite::ChaChaPolyBlake2s, Suite::AesGcmSha256];
const SKEW: Duration = Duration::from_secs(60);
const NOW: u32 = 1_700_000_000;

fn terms_of(secret: u8, suite: Suite, network: &[u8]) -> HandshakeParams {
    let key = Arc::new(StaticKey::new([secret; KEY]));
    let entropy = Arc::new(TestEntropy::new(u64::from(secret)));
    HandshakeParams::new(suite, network, key, entropy)
}

fn terms(secret: u8) -> HandshakeParams {
    terms_of(secret, Suite::default(), b"test")
}

fn read1(terms: &HandshakeParams, message: &[u8]) -> Result<Responder, HandshakeError> {
    Responder::read_message1(terms, message, NOW, SKEW, |_| true)
}

fn hello2() -> Message2 {
    Message2 { instance: 0x0123_4567_89ab_cdef, time: NOW, max_message: 1 << 20 }
}

fn hello3(payload: &[u8]) -> Message3 {
    Message3 {
        instance: 7,
        stamp: 0xfedc_ba98_7654_3210,
        max_message: 4096,
        application_payload: Bytes::copy_from_slice(payload),
    }
}

/// Both sides after message 2, from `a` to `b`.
fn middle(a: &HandshakeParams, b: &HandshakeParams) -> (Answered, AwaitsMessage3) {
    let (initiator, one) = Initiator::start(a, &b.own_id(), NOW).unwrap();
    let (responder, two) = read1(b, &one).unwrap().write_message2(&hello2()).unwrap();
    let (answered, hello) = initiator.read_message2(&two).unwrap();
    assert_eq!(hello, hello2());
    (answered, responder)
}

fn name(error: &HandshakeError) -> String {
    format!("{error:?}")
}

#[test]
fn both_sides_end_with_the_same_session() {
    for suite in SUITES {
        for size in [0, 1, 1000, MAX_APPLICATION_PAYLOAD] {
            let (a, b) = (terms_of(1, suite, b""), terms_of(2, suite, b""));
            let (answered, responder) = middle(&a, &b);
            let sent = hello3(&vec![9; size]);
            let before = answered.handshake_hash();
            let (mut ours, three) = answered.write_message3(&sent, 2).unwrap();
            assert_eq!(three.len(), 2 + MIN_MESSAGE_3 + size);
            let (mut theirs, peer, hello) = responder.read_message3(&three[2..]).unwrap();
            assert_eq!((peer, hello), (a.own_id(), sent));
            assert_eq!(ours.handshake_hash, theirs.handshake_hash);
            assert_ne!(ours.handshake_hash, before);
            let (mut sealed, mut opened) = ([0; 20], [0; 4]);
            ours.transport.seal(b"ping", &mut sealed).unwrap();
            theirs.transport.open(&sealed, &mut opened).unwrap();
            assert_eq!(&opened, b"ping");
            theirs.transport.seal(b"pong", &mut sealed).unwrap();
            ours.transport.open(&sealed, &mut opened).unwrap();
            assert_eq!(&opened, b"pong");
        }
    }
}

#[test]
fn the_prologue_is_as_documented() {
    let terms = terms_of(1, Suite::AesGcmSha256, b"net");
    let expected = b"\x0cnoise-pool/1\x1cNoise_XK_25519_AESGCM_SHA256\x03net";
    assert_eq!(terms.prologue, expected);
    assert_eq!(terms_of(1, Suite::default(), &[7; 255]).prologue.len(), 13 + 34 + 256);
}

#[test]
fn the_lengths_are_as_documented() {
    assert_eq!(MESSAGE_1, 52);
    assert_eq!((MIN_MESSAGE_2, MAX_MESSAGE_2), (65, 321));
    assert_eq!((MIN_MESSAGE_3, MAX_MESSAGE_3), (87, 16_727));
}

#[test]
fn another_network_suite_or_key_does_not_verify() {
    let b = terms(2);
    let strangers = [
        terms_of(1, Suite::default(), b"other"),
        terms_of(1, Suite::default(), b""),
        terms_of(1, Suite::AesGcmSha256, b"test"),
    ];
    for a in strangers {
        let (_, one) = Initiator::start(&a, &b.own_id(), NOW).unwrap();
        let error = read1(&b, &one).err().unwrap();
        assert!(matches!(error, HandshakeError::Verify { message: 1 }), "{error:?}");
    }
    let (_, one) = Initiator::start(&terms(1), &terms(3).own_id(), NOW).unwrap();
    let error = read1(&b, &one).err().unwrap();
    assert!(matches!(error, HandshakeError::Verify { message: 1 }), "{error:?}");
}

#[test]
fn every_changed_bit_of_every_message_is_noticed() {
    let (a, b) = (terms(1), terms(2));
    let flips = |message: &[u8]| {
        let message = message.to_vec();
        (0..message.len()).map(move |at| {
            let mut bad = message.clone();
            bad[at] ^= 1 << (at % 8);
            bad
        })
    };
    let (_, one) = Initiator::start(&a, &b.own_id(), NOW).unwrap();
    for bad in flips(&one) {
        let error = read1(&b, &bad).err().unwrap();
        assert!(matches!(error, HandshakeError::Verify { message: 1 }), "{error:?}");
    }
    for at in 0..MIN_MESSAGE_2 {
        let (initiator, one) = Initiator::start(&a, &b.own_id(), NOW).unwrap();
        let (_, two) = read1(&b, &one).unwrap().write_message2(&hello2()).unwrap();
        let bad = flips(&two).nth(at).unwrap();
        let error = initiator.read_message2(&bad).err().unwrap();
        assert!(matches!(error, HandshakeError::Verify { message: 2 }), "{error:?}");
    }
    for at in 0..MIN_MESSAGE_3 + 3 {
        let (answered, responder) = middle(&a, &b);
        let (_, three) = answered.write_message3(&hello3(b"abc"), 0).unwrap();
        let bad = flips(&three).nth(at).unwrap();
        let error = responder.read_message3(&bad).err().unwrap();
        assert!(matches!(error, HandshakeError::Verify { message: 3 }), "{error:?}");
    }
}

#[test]
fn impossible_lengths_are_named() {
    let (a, b) = (terms(1), terms(2));
    for length in [0, 1, MESSAGE_1 - 1, MESSAGE_1 + 1, 65_535, 65_536] {
        let error = read1(&b, &vec![0; length]).err().unwrap();
        assert!(matches!(error, HandshakeError::Length { message: 1, .. }), "{error:?}");
    }
    for length in [0, MIN_MESSAGE_2 - 1, MAX_MESSAGE_2 + 1] {
        let (initiator, _) = Initiator::start(&a, &b.own_id(), NOW).unwrap();
        let error = initiator.read_message2(&vec![0; length]).err().unwrap();
        assert!(matches!(error, HandshakeError::Length { message: 2, .. }), "{error:?}");
    }
    for length in [0, MIN_MESSAGE_3 - 1, MAX_MESSAGE_3 + 1] {
        let (_, responder) = middle(&a, &b);
        let error = responder.read_message3(&vec![0; length]).err().unwrap();
        assert!(matches!(error, HandshakeError::Length { message: 3, .. }), "{error:?}");
    }
}

#[test]
fn a_skewed_clock_is_refused_before_the_replay_cache_hears_of_it() {
    let (a, b) = (terms(1), terms(2));
    // Across the end of 32 bits too, in the year 2106.
    for now in [NOW, 10, u32::MAX - 10] {
        for skew in [-61_i64, -60, 0, 60, 61, 86_400, -86_400] {
            let time = now.wrapping_add(skew as u32);
            let (_, one) = Initiator::start(&a, &b.own_id(), time).unwrap();
            let mut asked = false;
            let read = Responder::read_message1(&b, &one, now, SKEW, |_| {
                asked = true;
                true
            });
            assert_eq!(asked, skew.abs() <= 60);
            match read {
                Ok(responder) => assert_eq!(responder.skew_seconds(), skew),
                Err(HandshakeError::Skewed { skew_seconds }) => {
                    assert_eq!(skew_seconds, skew);
                    assert!(skew.abs() > 60);
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_replay_is_named_and_the_key_is_the_ephemeral_one() {
    let (a, b) = (terms(1), terms(2));
    let (_, one) = Initiator::start(&a, &b.own_id(), NOW).unwrap();
    let fresh = |key: [u8; KEY]| key != one[..KEY];
    let error = Responder::read_message1(&b, &one, NOW, SKEW, fresh).err();
    assert!(matches!(error, Some(HandshakeError::Replayed)));
}

#[test]
fn a_message_that_does_not_verify_is_not_remembered() {
    let (a, b) = (terms(1), terms(2));
    let (_, mut one) = Initiator::start(&a, &b.own_id(), NOW).unwrap();
    one[MESSAGE_1 - 1] ^= 1;
    let fresh = |_| panic!("asked about a message of unknown origin");
    assert!(Responder::read_message1(&b, &one, NOW, SKEW, fresh).is_err());
}

#[test]
fn ourselves_is_nobody_to_talk_to() {
    let a = terms(1);
    let error = Initiator::start(&a, &a.own_id(), NOW).err().unwrap();
    assert!(matches!(error, HandshakeError::OwnIdentity));
    // Somebody else who has our key.
    let thief = terms(1);
    let b = terms(2);
    let (answered, mut responder) = middle(&thief, &b);
    responder.own = thief.own_id();
    let (_, three) = answered.write_message3(&hello3(b""), 0).unwrap();
    let error = responder.read_message3(&three).err().unwrap();
    assert!(matches!(error, HandshakeError::OwnIdentity), "{error:?}");
}

/// p + `offset`, little-endian.
fn around_p(offset: i16) -> [u8; KEY] {
    let mut key = [0xff; KEY];
    key[0] = (0xed + offset) as u8;
    key[31] = 0x7f;
    key
}

#[test]
fn a_key_is_canonical_below_p_only() {
    assert!(is_canonical(&around_p(-1)));
    for offset in 0..=18 {
        assert!(!is_canonical(&around_p(offset)), "p + {offset}");
    }
    let mut high = [1; KEY];
    high[31] = 0x80;
    assert!(!is_canonical(&high));
    for at in 1..31 {
        let mut less = around_p(5);
        less[at] = 0xfe;
        assert!(is_canonical(&less));
    }
}

#[test]
fn a_dial_to_a_key_in_another_form_is_refused_before_message_1() {
    let mut high = *terms(2).key.public();
    high[31] |= 0x80;
    for key in [high, around_p(0), around_p(18)] {
        let error = Initiator::start(&terms(1), &PeerId::from_bytes(key), NOW).err().unwrap();
        assert!(matches!(error, HandshakeError::NonCanonicalKey), "{error:?}");
    }
}

#[test]
fn a_key_of_low_order_is_nobody() {
    for point in low_order_points() {
        let peer = PeerId::from_bytes(point);
        let error = Initiator::start(&terms(1), &peer, NOW).err().unwrap();
        assert!(matches!(error, HandshakeError::NonCanonicalKey), "{error:?}");
        let mut one = [0; MESSAGE_1];
        one[..KEY].copy_from_slice(&point);
        let error = read1(&terms(2), &one).err().unwrap();
        assert!(matches!(error, HandshakeError::Verify { message: 1 }), "{error:?}");
    }
}

/// An initiator that says of itself what it likes: snow's own state, with a key pair that claims
/// another public key.
mod liar {
    use super::*;
    use snow::params::{CipherChoice, DHChoice, HashChoice};
    use snow::resolvers::{BoxedCryptoResolver, CryptoResolver};
    use snow::types::{Cipher, Dh, Hash, Random};

    struct Lying(BoxedCryptoResolver, [u8; KEY]);

    struct LyingDh(Box<dyn Dh>, Option<[u8; KEY]>, [u8; KEY]);

    impl CryptoResolver for Lying {
        fn resolve_rng(&self) -> Option<Box<dyn Random>> {
            self.0.resolve_rng()
        }
        fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
            Some(Box::new(LyingDh(self.0.resolve_dh(choice)?, None, self.1)))
        }
        fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
            self.0.resolve_hash(choice)
        }
        fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
            self.0.resolve_cipher(choice)
        }
    }

    impl Dh for LyingDh {
        fn name(&self) -> &'static str {
            self.0.name()
        }
        fn pub_len(&self) -> usize {
            KEY
        }
        fn priv_len(&self) -> usize {
            KEY
        }
        fn set(&mut self, privkey: &[u8]) {
            self.0.set(privkey);
            self.1 = Some(self.2);
        }
        fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
            self.0.generate(rng)
        }
        fn pubkey(&self) -> &[u8] {
            self.1.as_ref().map_or(self.0.pubkey(), |claimed| claimed)
        }
        fn privkey(&self) -> &[u8] {
            &[]
        }
        fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
            self.0.dh(pubkey, out)
        }
    }

    pub(super) fn initiator(
        terms: &HandshakeParams,
        peer: &PeerId,
        claimed: [u8; KEY],
    ) -> HandshakeState {
        let resolver = crypto::resolver(&terms.key, &terms.entropy);
        Builder::with_resolver(terms.suite.params(), Box::new(Lying(resolver, claimed)))
            .prologue(&terms.prologue)
            .unwrap()
            .local_private_key(terms.key.secret())
            .unwrap()
            .remote_public_key(peer.as_bytes())
            .unwrap()
            .build_initiator()
            .unwrap()
    }
}

/// Message 3 of an initiator that holds `a`'s secret and claims `claimed`.
fn claim(a: &HandshakeParams, b: &HandshakeParams, claimed: [u8; KEY]) -> HandshakeError {
    let mut state = liar::initiator(a, &b.own_id(), claimed);
    let mut one = [0; MESSAGE_1];
    state.write_message(&NOW.to_be_bytes(), &mut one).unwrap();
    let (responder, two) = read1(b, &one).unwrap().write_message2(&hello2()).unwrap();
    state.read_message(&two, &mut [0; 64]).unwrap();
    let mut three = [0; MIN_MESSAGE_3];
    let payload = encode_message3(&hello3(b"")).unwrap();
    state.write_message(&payload, &mut three).unwrap();
    responder.read_message3(&three).err().unwrap()
}

#[test]
fn a_static_key_with_a_second_form_is_refused_in_message_3() {
    let (a, b) = (terms(1), terms(2));
    // X25519 ignores bit 255, so that everything verifies but the form.
    let mut second = *a.key.public();
    second[31] |= 0x80;
    let error = claim(&a, &b, second);
    assert!(matches!(error, HandshakeError::NonCanonicalKey), "{error:?}");
    // Of low order: the last product is zero.
    for point in low_order_points() {
        let error = claim(&a, &b, point);
        assert!(matches!(error, HandshakeError::NonCanonicalKey), "{error:?}");
    }
    // Somebody else's key: the last tag fails.
    let error = claim(&a, &b, *terms(3).key.public());
    assert!(matches!(error, HandshakeError::Verify { message: 3 }), "{error:?}");
}

#[test]
fn payloads_of_this_version_have_one_form() {
    let good = encode_message2(&hello2());
    assert_eq!(decode_message2(&good), Some(hello2()));
    for cut in 0..good.len() {
        assert_eq!(decode_message2(&good[..cut]), None);
    }
    assert_eq!(decode_message2(&[&good[..], &[0]].concat()), None);
    let zero = Message2 { max_message: 0, ..hello2() };
    assert_eq!(decode_message2(&encode_message2(&zero)), None);

    let good = encode_message3(&hello3(b"abc")).unwrap();
    assert_eq!(decode_message3(good.clone().into()), Some(hello3(b"abc")));
    for cut in 0..good.len() {
        assert_eq!(decode_message3(Bytes::copy_from_slice(&good[..cut])), None);
    }
    assert_eq!(decode_message3([&good[..], &[0]].concat().into()), None);
    let zero = Message3 { max_message: 0, ..hello3(b"") };
    assert_eq!(decode_message3(encode_message3(&zero).unwrap().into()), None);
}

#[test]
fn a_higher_minor_version_may_say_more() {
    for extra in [0, 1, GROWTH, GROWTH + 1] {
        let mut two = encode_message2(&hello2()).to_vec();
        let mut three = encode_message3(&hello3(b"abc")).unwrap();
        for payload in [&mut two, &mut three] {
            payload[0] = MINOR + 1;
            payload.resize(payload.len() + extra, 0xee);
        }
        let expected = (extra <= GROWTH).then(hello2);
        assert_eq!(decode_message2(&two), expected);
        let expected = (extra <= GROWTH).then(|| hello3(b"abc"));
        assert_eq!(decode_message3(three.into()), expected);
    }
}

#[test]
fn a_payload_that_is_too_long_is_neither_written_nor_read() {
    let long = hello3(&vec![0; MAX_APPLICATION_PAYLOAD + 1]);
    let (answered, _) = middle(&terms(1), &terms(2));
    let error = answered.write_message3(&long, 0).err().unwrap();
    assert!(matches!(error, HandshakeError::Payload { message: 3 }), "{}", name(&error));
    let mut payload = encode_message3(&hello3(&vec![0; MAX_APPLICATION_PAYLOAD])).unwrap();
    payload[0] = MINOR + 1;
    payload[21..23].copy_from_slice(&((MAX_APPLICATION_PAYLOAD + 1) as u16).to_be_bytes());
    payload.push(0);
    assert_eq!(decode_message3(payload.into()), None);
}

proptest! {
    #[test]
    fn hellos_go_round(instance: u64, stamp: u64, time: u32, max_message in 1_u32.., app: Vec<u8>) {
        let two = Message2 { instance, time, max_message };
        prop_assert_eq!(decode_message2(&encode_message2(&two)), Some(two));
        let application_payload = app.into();
        let three = Message3 { instance, stamp, max_message, application_payload };
        prop_assert_eq!(decode_message3(encode_message3(&three).unwrap().into()), Some(three));
    }

    #[test]
    fn no_payload_panics(payload: Vec<u8>) {
        let _ = decode_message2(&payload);
        let _ = decode_message3(payload.into());
    }

    #[test]
    fn no_message_panics(one: Vec<u8>, fixed in prop::array::uniform32(0_u8..)) {
        prop_assert!(read1(&terms(2), &one).is_err());
        let mut exact = one;
        exact.extend_from_slice(&fixed);
        exact.resize(MESSAGE_1, 0);
        prop_assert!(read1(&terms(2), &exact).is_err());
    }
}
