//! The limits: concurrent maps of `Arc`s, with nothing around them.

use std::hash::BuildHasher;
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use noise_pool::PeerId;

use super::Connection;

/// A map with one entry per peer.
pub fn dashmap<S: BuildHasher + Clone + Default>(
    peers: &[PeerId],
) -> DashMap<PeerId, Arc<Connection>, S> {
    let numbers = peers.iter().zip(0..);
    dashmap_of(numbers.map(|(peer, number)| (*peer, Arc::new(Connection(number)))))
}

/// A map of `Arc`s that there are already.
pub fn dashmap_of<S: BuildHasher + Clone + Default>(
    entries: impl Iterator<Item = (PeerId, Arc<Connection>)>,
) -> DashMap<PeerId, Arc<Connection>, S> {
    let map = DashMap::with_hasher(S::default());
    entries.for_each(|(peer, connection)| drop(map.insert(peer, connection)));
    map
}

/// Get, `Arc` clone and drop.
#[inline]
pub fn hit<S: BuildHasher + Clone>(
    map: &DashMap<PeerId, Arc<Connection>, S>,
    peer: &PeerId,
) -> u64 {
    let held = map.get(peer).map(|entry| Arc::clone(entry.value()));
    held.map_or(u64::MAX, |held| held.0)
}

/// A map whose readers take no lock.
pub type Papaya<T> = papaya::HashMap<PeerId, T, foldhash::fast::RandomState>;

/// The same over papaya.
pub fn papaya(peers: &[PeerId]) -> Papaya<Arc<Connection>> {
    let map = Papaya::default();
    for (number, peer) in peers.iter().enumerate() {
        map.pin().insert(*peer, Arc::new(Connection(number as u64)));
    }
    map
}

/// Get, `Arc` clone and drop.
#[inline]
pub fn papaya_hit(map: &Papaya<Arc<Connection>>, peer: &PeerId) -> u64 {
    let held = map.pin().get(peer).map(Arc::clone);
    held.map_or(u64::MAX, |held| held.0)
}

/// As it would have to be in front of a pool's slots: what such a map has removed it drops some time
/// later, and a handle that is dropped late would keep a session from ending.
pub fn papaya_weak(held: &[(PeerId, Arc<Connection>)]) -> Papaya<Weak<Connection>> {
    let map = Papaya::default();
    for (peer, connection) in held {
        map.pin().insert(*peer, Arc::downgrade(connection));
    }
    map
}

/// Get, upgrade and drop.
#[inline]
pub fn papaya_weak_hit(map: &Papaya<Weak<Connection>>, peer: &PeerId) -> u64 {
    let held = map.pin().get(peer).and_then(Weak::upgrade);
    held.map_or(u64::MAX, |held| held.0)
}
