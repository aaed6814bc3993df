//! Where a peer is reached: addresses and their text forms.
//!
//! An address never names a peer; [`PeerAddress`] puts the two beside each other.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::id::{PeerId, PeerIdError};

/// The longest host name in bytes (RFC 1035, section 2.3.4, without the final dot).
const LONGEST_HOST: usize = 253;

/// Where a peer can be reached.
///
/// The text form is `192.0.2.1:4567`, `[2001:db8::1]:4567` or `host:4567`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and a port.
    Socket(SocketAddr),
    /// A name that the [`Connector`](crate::Connector) looks up, and a port.
    Host {
        /// The name.
        host: Arc<str>,
        /// The port.
        port: u16,
    },
}

impl From<SocketAddr> for Address {
    fn from(socket: SocketAddr) -> Self {
        Self::Socket(socket)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => fmt::Display::fmt(socket, f),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(socket) = text.parse() {
            return Ok(Self::Socket(socket));
        }
        if text.starts_with('[') {
            return Err(AddressError::Ipv6);
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        if host.contains(':') {
            return Err(AddressError::Ipv6);
        }
        // `u16` would take a plus sign and leading zeros, and a host must have one text only.
        let digits =
            port.bytes().all(|b| b.is_ascii_digit()) && (port == "0" || !port.starts_with('0'));
        let port = match port.parse() {
            Ok(port) if digits => port,
            _ => return Err(AddressError::Port),
        };
        if host.is_empty() {
            return Err(AddressError::NoHost);
        }
        if host.len() > LONGEST_HOST {
            return Err(AddressError::HostLength(host.len()));
        }
        let bad = |c: &char| c.is_whitespace() || c.is_control() || "@/[]%".contains(*c);
        if let Some(character) = host.chars().find(bad) {
            return Err(AddressError::HostCharacter(character));
        }
        let host = host.into();
        Ok(Self::Host { host, port })
    }
}

/// Why a text is not an [`Address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// There is no colon.
    #[error("an address ends in a colon and a port, as in host:4567")]
    NoPort,
    /// What follows the last colon is not a port.
    #[error("the port must be a number from 0 to 65535")]
    Port,
    /// Nothing precedes the port.
    #[error("the host before the port is empty")]
    NoHost,
    /// The host's name is too long.
    #[error("a host name has at most 253 bytes, not {0}")]
    HostLength(usize),
    /// The host's name has a character that no name has.
    #[error("{0:?} cannot be part of a host name")]
    HostCharacter(char),
    /// It looks like an IPv6 address, but is none with a port.
    #[error("an IPv6 address with its port is written [2001:db8::1]:4567")]
    Ipv6,
}

/// A peer and where it is reached: `<peer id>@<address>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    /// Who.
    pub peer: PeerId,
    /// Where.
    pub address: Address,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.peer, self.address)
    }
}

impl FromStr for PeerAddress {
    type Err = PeerAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (peer, address) = text.split_once('@').ok_or(PeerAddressError::NoAt)?;
        Ok(Self {
            peer: peer.parse().map_err(PeerAddressError::Peer)?,
            address: address.parse().map_err(PeerAddressError::Address)?,
        })
    }
}

/// Why a text is not a [`PeerAddress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PeerAddressError {
    /// There is no `@`.
    #[error("expected <peer id>@<host>:<port>, but there is no @")]
    NoAt,
    /// What precedes the `@` is not a peer id.
    #[error("before the @: {0}")]
    Peer(#[source] PeerIdError),
    /// What follows the `@` is not an address.
    #[error("after the @: {0}")]
    Address(#[source] AddressError),
}

#[cfg(feature = "serde")]
crate::id::serde_as_text!(Address, "an address: host:port");
#[cfg(feature = "serde")]
crate::id::serde_as_text!(PeerAddress, "a peer's address: <peer id>@<host>:<port>");

#[cfg(test)]
mod tests {
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
        let peer = PeerId::from_public_key([7; 32]).unwrap();
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
        fn hosts_go_round(host in "[a-z][a-z0-9.-]{0,60}", port: u16, mut key: [u8; 32]) {
            key[31] &= 0x3f;
            let whole = PeerAddress {
                peer: PeerId::from_public_key(key).unwrap(),
                address: Address::Host { host: host.into(), port },
            };
            prop_assert_eq!(whole.to_string().parse(), Ok(whole));
        }
    }
}
