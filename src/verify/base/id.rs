//! Unit tests of `base/id.rs`.

use super::*;
use proptest::prelude::*;

#[test]
fn any_32_bytes_are_a_name() {
    for name in [[0; 32], [0xff; 32]] {
        let peer = PeerId::from_bytes(name);
        assert_eq!(peer.as_bytes(), &name);
        assert_eq!(peer.to_string().parse(), Ok(peer));
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let good = PeerId::from_bytes([7; 32]).to_string();
    let parse = |text: &str| text.parse::<PeerId>().unwrap_err();
    assert_eq!(parse(""), PeerIdError::Length(0));
    assert_eq!(parse(&good[1..]), PeerIdError::Length(51));
    assert_eq!(parse(&format!("{good}a")), PeerIdError::Length(53));
    let at = |character, position| PeerIdError::Character { character, position };
    assert_eq!(parse(&good.to_uppercase()), at('A', 1));
    assert_eq!(parse(&good.replacen('q', "1", 1)), at('1', good.find('q').unwrap() + 1));
    assert_eq!(parse("aé"), at('é', 2));
    assert_eq!(parse(&format!("{}b", &good[..51])), PeerIdError::TrailingBits);
}

#[test]
fn the_short_form_is_the_start_of_the_long_one() {
    let peer = PeerId::from_bytes([7; 32]);
    assert_eq!(peer.short().to_string(), peer.to_string()[..8]);
    assert_eq!(format!("{peer:?}"), format!("PeerId({})", peer.short()));
    assert_eq!(format!("{peer:>54}"), format!("  {peer}"));
}

#[cfg(feature = "serde")]
#[test]
fn serde_sees_the_text() {
    let peer = PeerId::from_bytes([7; 32]);
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
    fn text_and_bytes_go_round(name: [u8; 32]) {
        let peer = PeerId::from_bytes(name);
        prop_assert_eq!(peer.to_string().len(), TEXT);
        prop_assert_eq!(peer.to_string().parse(), Ok(peer));
        prop_assert_eq!(peer.as_bytes(), &name);
    }

    #[test]
    fn whatever_parses_is_written_the_same(text in "[a-z2-7]{51}[aq]|.{0,60}") {
        if let Ok(peer) = text.parse::<PeerId>() {
            prop_assert_eq!(peer.to_string(), text);
        }
    }
}
