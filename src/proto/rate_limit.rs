//! How many handshakes one source of connections may begin.
//!
//! Owns a token bucket per source in a table of fixed size, checked before any elliptic-curve work. It
//! must not grow with the number of sources, and must take time as an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::base::config::Loopback;

/// Where a connection comes from, as far as one operator can be assumed behind it.
///
/// An IPv6 customer has a /64 at least and may use all its addresses at will. An IPv4 address that is
/// written as IPv6 is the IPv4 source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// A token bucket per source.
///
/// A bucket is kept as the one moment at which it will be full again (the generic cell rate
/// algorithm): 9 bytes of source and 16 of time, twice, in two ordered trees; no more than 128 bytes
/// per source.
pub(crate) struct RateLimiter {
    /// What one handshake takes from the bucket, in time to refill it.
    cost: Duration,
    /// The whole bucket less one handshake: how far ahead the moment of fullness may be.
    tolerance: Duration,
    capacity: usize,
    loopback: Loopback,
    full_at: BTreeMap<Source, Instant>,
    /// The same, by time: the next one to be full comes first.
    by_time: BTreeSet<(Instant, Source)>,
}

impl RateLimiter {
    /// `burst` handshakes at once and `rate` per second in the long run, for `capacity` sources.
    /// Numbers of zero count as one.
    pub(crate) fn new(burst: u32, rate: u32, capacity: usize, loopback: Loopback) -> Self {
        let cost = Duration::from_secs(1) / rate.max(1);
        Self {
            cost,
            tolerance: cost * burst.saturating_sub(1),
            capacity: capacity.max(1),
            loopback,
            full_at: BTreeMap::new(),
            by_time: BTreeSet::new(),
        }
    }

    /// Takes one handshake from the bucket of `address`: whether it was there.
    pub(crate) fn admit(&mut self, address: IpAddr, now: Instant) -> bool {
        if self.loopback == Loopback::Exempt && address.to_canonical().is_loopback() {
            return true;
        }
        let source = Source::of(address);
        let known = self.full_at.get(&source).copied();
        let full_at = known.map_or(now, |known| known.max(now));
        if full_at.duration_since(now) > self.tolerance {
            return false;
        }
        match known {
            Some(known) => {
                self.by_time.remove(&(known, source));
            }
            None if self.full_at.len() >= self.capacity => self.forget_one(),
            None => {}
        }
        let full_at = full_at + self.cost;
        self.full_at.insert(source, full_at);
        self.by_time.insert((full_at, source));
        true
    }

    /// Makes room: forgets the source whose bucket is full first. If it is full already nothing is
    /// lost; otherwise that source gets a full bucket early, which is the least that can be given.
    fn forget_one(&mut self) {
        if let Some((_, source)) = self.by_time.pop_first() {
            self.full_at.remove(&source);
        }
    }

    /// Sources remembered.
    #[cfg(test)]
    fn len(&self) -> usize {
        assert_eq!(self.full_at.len(), self.by_time.len());
        self.full_at.len()
    }
}

#[cfg(test)]
#[path = "../verify/proto/rate_limit.rs"]
mod tests;
