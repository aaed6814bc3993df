//! What a caller wants a session to: a peer, perhaps with addresses, data and a deadline.
//!
//! Owns the public `Target` and nothing else.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
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
    /// Nearly always the only one: a caller who joins a dial takes no memory for it.
    address: Option<Address>,
    pub(crate) timeout: Option<Duration>,
    /// What few targets have. Every call makes and drops a target: it takes one look to see that
    /// there is none of it.
    more: Option<Arc<More>>,
}

#[derive(Clone, Default)]
struct More {
    /// All addresses, if there are several.
    addresses: Vec<Address>,
    data: Option<TargetData>,
}

impl Target {
    /// The peer, to be resolved by the connector.
    #[inline]
    pub fn new(peer: PeerId) -> Self {
        Self { peer, address: None, timeout: None, more: None }
    }

    /// Adds an address to try, after those added before.
    #[must_use]
    pub fn address(mut self, address: impl Into<Address>) -> Self {
        let address = address.into();
        match &self.address {
            None => self.address = Some(address),
            Some(first) => {
                let all = &mut Arc::make_mut(self.more.get_or_insert_default()).addresses;
                if all.is_empty() {
                    all.push(first.clone());
                }
                all.push(address);
            }
        }
        self
    }

    /// Opaque data for the connector. A caller that joins a dial under way does not change its
    /// data.
    #[must_use]
    pub fn data(mut self, data: TargetData) -> Self {
        Arc::make_mut(self.more.get_or_insert_default()).data = Some(data);
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
        match &self.more {
            Some(more) if !more.addresses.is_empty() => &more.addresses,
            _ => self.address.as_slice(),
        }
    }

    /// What the connector is given.
    pub(crate) fn connector_data(&self) -> Option<TargetData> {
        self.more.as_ref()?.data.clone()
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
    #[inline]
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
    use std::slice;

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

    #[test]
    fn data_and_addresses_do_not_replace_each_other_and_a_clone_is_its_own() {
        let [first, second] =
            [1, 2].map(|port| Address::from(SocketAddr::from(([127, 0, 0, 1], port))));
        let data = |target: &Target| {
            target.connector_data().and_then(|data| data.downcast_ref::<u8>().copied())
        };
        let one = Target::new(PeerId::from_bytes([7; 32])).address(first.clone());
        let with_data = one.clone().data(Arc::new(5_u8));
        assert_eq!((data(&one), data(&with_data)), (None, Some(5)));
        assert_eq!(with_data.addresses(), slice::from_ref(&first));
        let two = with_data.clone().address(second.clone());
        assert_eq!((data(&two), two.addresses()), (Some(5), &[first.clone(), second][..]));
        let other = two.clone().data(Arc::new(6_u8));
        assert_eq!((data(&two), data(&other)), (Some(5), Some(6)));
        assert_eq!(other.addresses(), two.addresses());
        assert_eq!(with_data.addresses(), [first]);
    }
}
