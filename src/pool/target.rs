//! What a caller wants a session to: a peer, perhaps with addresses, data and a deadline.
//!
//! Owns the public `Target` and nothing else.

use std::fmt;
use std::net::SocketAddr;
use std::slice;
use std::time::Duration;

use crate::base::address::{Address, PeerAddress};
use crate::base::id::PeerId;
use crate::base::io::TargetData;

/// A peer to reach, and how.
///
/// Without addresses the pool asks its [`Connector`](crate::Connector) to resolve the peer.
///
/// ```
/// # use noise_pool::{Identity, Target};
/// # use std::time::Duration;
/// # let peer = Identity::generate().peer_id();
/// let target = Target::new(peer)
///     .address("127.0.0.1:4567".parse::<std::net::SocketAddr>()?)
///     .timeout(Duration::from_secs(5));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone)]
pub struct Target {
    pub(crate) peer: PeerId,
    addresses: Addresses,
    pub(crate) data: Option<TargetData>,
    pub(crate) timeout: Option<Duration>,
}

/// Nearly always one at most: a caller who joins a dial takes no memory for it.
#[derive(Clone)]
enum Addresses {
    None,
    One(Address),
    Many(Vec<Address>),
}

impl Target {
    /// The peer, to be resolved by the connector.
    pub fn new(peer: PeerId) -> Self {
        Self { peer, addresses: Addresses::None, data: None, timeout: None }
    }

    /// Adds an address to try, after those added before.
    #[must_use]
    pub fn address(mut self, address: impl Into<Address>) -> Self {
        let address = address.into();
        self.addresses = match self.addresses {
            Addresses::None => Addresses::One(address),
            Addresses::One(first) => Addresses::Many(vec![first, address]),
            Addresses::Many(mut all) => {
                all.push(address);
                Addresses::Many(all)
            }
        };
        self
    }

    /// Opaque data for the connector. A caller that joins a dial under way does not change its
    /// data.
    #[must_use]
    pub fn data(mut self, data: TargetData) -> Self {
        self.data = Some(data);
        self
    }

    /// How long this caller waits in all; the dial itself goes on for others. Without it the
    /// caller waits as long as the pool's own limits let the dial take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The peer.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The addresses to try, in order.
    pub(crate) fn addresses(&self) -> &[Address] {
        match &self.addresses {
            Addresses::None => &[],
            Addresses::One(address) => slice::from_ref(address),
            Addresses::Many(all) => all,
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("peer", &self.peer)
            .field("addresses", &self.addresses())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl From<PeerId> for Target {
    fn from(peer: PeerId) -> Self {
        Self::new(peer)
    }
}

impl From<PeerAddress> for Target {
    fn from(at: PeerAddress) -> Self {
        Self::new(at.peer).address(at.address)
    }
}

impl From<(PeerId, SocketAddr)> for Target {
    fn from((peer, address): (PeerId, SocketAddr)) -> Self {
        Self::new(peer).address(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_order_however_many_there_are() {
        let mut target = Target::new(PeerId::from_bytes([7; 32]));
        let mut added = Vec::new();
        assert_eq!(target.addresses(), added);
        for port in 1..=4 {
            let address = Address::from(SocketAddr::from(([127, 0, 0, 1], port)));
            added.push(address.clone());
            target = target.address(address);
            assert_eq!(target.addresses(), added);
        }
        let shown = format!("{target:?}");
        assert!(shown.contains("127.0.0.1:4"), "{shown}");
    }
}
