//! Unit tests of `base/address.rs`.

use super::*;
use proptest::prelude::*;

#[test]
fn the_three_forms_parse() {
    let socket: Address = "192.0.2.1:4567".parse().unwrap();
    assert_eq!(socket, Address::Socket(([192, 0, 2, 1], 4567).into()));
    let six: Address = "[2001:db8::1]:1".parse().unwrap();
    assert!(matches!(six, Address::Socket(SocketAddr::V6(_))));
    let host: Address = "router.example:80".parse().unwrap();
    let expected = Address::Host { host: "router.example".into(), port: 80 };
    assert_eq!(host, expected);
}

#[test]
fn errors_name_what_is_wrong() {
    let parse = |text: &str| text.parse::<Address>().unwrap_err();
    assert_eq!(parse("host"), AddressError::NoPort);
    assert_eq!(parse(""), AddressError::NoPort);
    for port in ["", "65536", "-1", "+1", "http", "0080", "080", "00", " 80"] {
        assert_eq!(parse(&format!("host:{port}")), AddressError::Port, "{port}");
    }
    assert_eq!(parse(":80"), AddressError::NoHost);
    assert_eq!(parse("a b:80"), AddressError::HostCharacter(' '));
    assert_eq!(parse("a@b:80"), AddressError::HostCharacter('@'));
    assert_eq!(parse("2001:db8::1:80:zz"), AddressError::Ipv6);
    assert_eq!(parse("[2001:db8::1]"), AddressError::Ipv6);
    assert_eq!(parse(&format!("{}:1", "a".repeat(254))), AddressError::HostLength(254));
}

#[test]
fn a_peers_address_says_which_half_is_wrong() {
    let peer = PeerId::from_bytes([7; 32]);
    let text = format!("{peer}@127.0.0.1:80");
    let parsed: PeerAddress = text.parse().unwrap();
    assert_eq!((parsed.peer, parsed.to_string()), (peer, text));
    let parse = |text: &str| text.parse::<PeerAddress>().unwrap_err();
    assert_eq!(parse("127.0.0.1:80"), PeerAddressError::NoAt);
    assert_eq!(parse("abc@h:80"), PeerAddressError::Peer(PeerIdError::Length(3)));
    let error = parse(&format!("{peer}@h"));
    assert_eq!(error, PeerAddressError::Address(AddressError::NoPort));
    assert!(error.to_string().starts_with("after the @"));
}

#[cfg(feature = "serde")]
#[test]
fn serde_sees_the_text() {
    let address: Address = "router.example:80".parse().unwrap();
    assert_eq!(serde_json::to_string(&address).unwrap(), "\"router.example:80\"");
    let back: Address = serde_json::from_str("\"router.example:80\"").unwrap();
    assert_eq!(back, address);
    let error = serde_json::from_str::<PeerAddress>("\"x\"").unwrap_err();
    assert!(error.to_string().contains("there is no @"), "{error}");
}

proptest! {
    #[test]
    fn sockets_go_round(ip: std::net::IpAddr, port: u16) {
        let address = Address::Socket((ip, port).into());
        prop_assert_eq!(address.to_string().parse(), Ok(address));
    }

    #[test]
    fn whatever_parses_is_written_so_that_it_parses_the_same(text in ".{0,20}:[0-9+]{0,6}") {
        if let Ok(address) = text.parse::<Address>() {
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn hosts_go_round(host in "[a-z][a-z0-9.-]{0,60}", port: u16, key: [u8; 32]) {
        let whole = PeerAddress {
            peer: PeerId::from_bytes(key),
            address: Address::Host { host: host.into(), port },
        };
        prop_assert_eq!(whole.to_string().parse(), Ok(whole));
    }
}
