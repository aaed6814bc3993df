//! Unit tests of `base/id.rs`.

use super::*;
use proptest::prelude::*;

/// p + `offset`, little-endian.
fn around_p(offset: i16) -> [u8; 32] {
    let mut key = [0xff; 32];
    key[0] = (0xed + offset) as u8;
    key[31] = 0x7f;
    key
}

#[test]
fn a_key_is_canonical_below_p_only() {
    assert!(PeerId::from_public_key(around_p(-1)).is_ok());
    for offset in 0..=18 {
        let refused = PeerId::from_public_key(around_p(offset));
        assert_eq!(refused, Err(PeerIdError::NotCanonical), "p + {offset}");
    }
    let mut high = [1; 32];
    high[31] = 0x80;
    assert_eq!(PeerId::from_public_key(high), Err(PeerIdError::NotCanonical));
    for at in 1..31 {
        let mut less = around_p(5);
        less[at] = 0xfe;
        assert!(PeerId::from_public_key(less).is_ok());
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let good = PeerId::from_public_key([7; 32]).unwrap().to_string();
    let parse = |text: &str| text.parse::<PeerId>().unwrap_err();
    assert_eq!(parse(""), PeerIdError::Length(0));
    assert_eq!(parse(&good[1..]), PeerIdError::Length(51));
    assert_eq!(parse(&format!("{good}a")), PeerIdError::Length(53));
    let at = |character, position| PeerIdError::Character { character, position };
    assert_eq!(parse(&good.to_uppercase()), at('A', 1));
    assert_eq!(parse(&good.replacen('q', "1", 1)), at('1', good.find('q').unwrap() + 1));
    assert_eq!(parse("aé"), at('é', 2));
    assert_eq!(parse(&format!("{}b", &good[..51])), PeerIdError::TrailingBits);
    assert_eq!(parse(&("7".repeat(51) + "q")), PeerIdError::NotCanonical);
}

#[test]
fn the_short_form_is_the_start_of_the_long_one() {
    let peer = PeerId::from_public_key([7; 32]).unwrap();
    assert_eq!(peer.short().to_string(), peer.to_string()[..8]);
    assert_eq!(format!("{peer:?}"), format!("PeerId({})", peer.short()));
    assert_eq!(format!("{peer:>54}"), format!("  {peer}"));
}

#[cfg(feature = "serde")]
#[test]
fn serde_sees_the_text() {
    let peer = PeerId::from_public_key([7; 32]).unwrap();
    let json = serde_json::to_string(&peer).unwrap();
    assert_eq!(json, format!("\"{peer}\""));
    assert_eq!(serde_json::from_str::<PeerId>(&json).unwrap(), peer);
    let error = serde_json::from_str::<PeerId>("\"abc\"").unwrap_err();
    assert!(error.to_string().contains("52 characters, not 3"), "{error}");
    let error = serde_json::from_str::<PeerId>("3").unwrap_err();
    assert!(error.to_string().contains("a peer id"), "{error}");
}

#[test]
fn numbers_do_not_repeat() {
    assert!(SessionId::next() < SessionId::next());
    assert!(AttemptId::next() < AttemptId::next());
}

proptest! {
    #[test]
    fn text_and_bytes_go_round(mut key: [u8; 32]) {
        key[31] &= 0x7f;
        if let Ok(peer) = PeerId::from_public_key(key) {
            prop_assert_eq!(peer.to_string().len(), TEXT);
            prop_assert_eq!(peer.to_string().parse(), Ok(peer));
            prop_assert_eq!(peer.as_bytes(), &key);
        }
    }

    #[test]
    fn whatever_parses_is_written_the_same(text in "[a-z2-7]{51}[aq]|.{0,60}") {
        if let Ok(peer) = text.parse::<PeerId>() {
            prop_assert_eq!(peer.to_string(), text);
        }
    }
}
