//! The limits: concurrent maps of `Arc`s, with nothing around them.

use std::hash::BuildHasher;
use std::sync::Arc;

use dashmap::DashMap;
use noise_pool::PeerId;

use super::Connection;

/// A map with one entry per peer.
pub fn dashmap<S: BuildHasher + Clone + Default>(
    peers: &[PeerId],
) -> DashMap<PeerId, Arc<Connection>, S> {
    let map = DashMap::with_hasher(S::default());
    for (number, peer) in peers.iter().enumerate() {
        map.insert(*peer, Arc::new(Connection(number as u64)));
    }
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

/// The same over papaya, whose readers take no lock.
pub fn papaya(
    peers: &[PeerId],
) -> papaya::HashMap<PeerId, Arc<Connection>, foldhash::fast::RandomState> {
    let map = papaya::HashMap::default();
    for (number, peer) in peers.iter().enumerate() {
        map.pin().insert(*peer, Arc::new(Connection(number as u64)));
    }
    map
}

/// Get, `Arc` clone and drop.
#[inline]
pub fn papaya_hit(
    map: &papaya::HashMap<PeerId, Arc<Connection>, foldhash::fast::RandomState>,
    peer: &PeerId,
) -> u64 {
    let held = map.pin().get(peer).map(Arc::clone);
    held.map_or(u64::MAX, |held| held.0)
}
