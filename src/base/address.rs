//! Where a peer is reached: addresses and their text forms.
//!
//! An address never names a peer; [`PeerAddress`] puts the two beside each other.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::base::id::{PeerId, PeerIdError};

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
crate::base::id::serde_as_text!(Address, "an address: host:port");
#[cfg(feature = "serde")]
crate::base::id::serde_as_text!(PeerAddress, "a peer's address: <peer id>@<host>:<port>");

#[cfg(test)]
#[path = "../verify/base/address.rs"]
mod tests;
