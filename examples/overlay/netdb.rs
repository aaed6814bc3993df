//! The network database: who runs, where, and who is about to go.
//!
//! Owns the address book that all routers share, and resolves peers from it for their pools. A real
//! router asks a distributed hash table here; the shape of the seam is the same. It never remembers
//! an address that its router has withdrawn.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use noise_pool::io::{BoxFuture, BoxedStream, TargetData};
use noise_pool::{Address, Connector, PeerId, TcpConnector};
use rand::Rng;
use rand::seq::index;
use tokio::sync::watch;

/// What the network knows of one router.
#[derive(Clone, Copy, Debug)]
struct Entry {
    peer: PeerId,
    /// Where it listens; none while it is down.
    address: Option<SocketAddr>,
    /// Whether new paths may go through it. A router that is about to drain says no some time
    /// before it goes, so that what is under way through it can arrive.
    open: bool,
}

/// The address book; a clone is the same book.
///
/// It is small and read far more often than written, so one `watch` holds all of it: readers borrow,
/// and whoever waits for a router that is down waits for the next change.
#[derive(Clone)]
pub(crate) struct NetDb(Arc<watch::Sender<Vec<Entry>>>);

impl NetDb {
    /// A book with these routers in it, all of them down.
    pub(crate) fn new(peers: impl IntoIterator<Item = PeerId>) -> Self {
        let entries = peers.into_iter().map(|peer| Entry { peer, address: None, open: false });
        Self(Arc::new(watch::Sender::new(entries.collect())))
    }

    /// `peer` listens on `address`, and paths may go through it.
    pub(crate) fn publish(&self, peer: &PeerId, address: SocketAddr) {
        self.change(peer, |entry| {
            entry.address = Some(address);
            entry.open = true;
        });
    }

    /// No new paths through `peer`; it can still be reached.
    pub(crate) fn announce_leave(&self, peer: &PeerId) {
        self.change(peer, |entry| entry.open = false);
    }

    /// `peer` can no longer be reached.
    pub(crate) fn withdraw(&self, peer: &PeerId) {
        self.change(peer, |entry| {
            entry.address = None;
            entry.open = false;
        });
    }

    /// Whether paths may go through all of these.
    pub(crate) fn all_open(&self, path: &[PeerId]) -> bool {
        let entries = self.0.borrow();
        path.iter().all(|peer| entries.iter().any(|e| e.peer == *peer && e.open))
    }

    /// A random path from `source` over `hops` other routers, none of them twice; none while too few
    /// are open.
    pub(crate) fn path(
        &self,
        source: &PeerId,
        hops: usize,
        rng: &mut impl Rng,
    ) -> Option<Vec<PeerId>> {
        let open: Vec<PeerId> = (self.0.borrow().iter())
            .filter(|entry| entry.open && entry.peer != *source)
            .map(|entry| entry.peer)
            .collect();
        (open.len() >= hops).then(|| {
            let chosen = index::sample(rng, open.len(), hops);
            chosen.into_iter().map(|i| open[i]).collect()
        })
    }

    /// Tells of changes from now on.
    pub(crate) fn changes(&self) -> Changes {
        Changes(self.0.subscribe())
    }

    fn change(&self, peer: &PeerId, change: impl FnOnce(&mut Entry)) {
        self.0.send_modify(|entries| {
            if let Some(entry) = entries.iter_mut().find(|entry| entry.peer == *peer) {
                change(entry);
            }
        });
    }
}

/// A wait for changes of the book.
pub(crate) struct Changes(watch::Receiver<Vec<Entry>>);

impl Changes {
    /// Counts what has changed so far as seen.
    ///
    /// Call it before an attempt, not after: a change between the attempt's failure and the wait
    /// would be missed.
    pub(crate) fn mark_seen(&mut self) {
        self.0.mark_unchanged();
    }

    /// Resolves at the next change that is not seen.
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The book is gone, and with it the run: nothing changes any more.
            std::future::pending::<()>().await;
        }
    }
}

/// Pools resolve their peers here; how to connect is the library's own TCP connector's business.
impl Connector for NetDb {
    fn resolve<'a>(
        &'a self,
        peer: &'a PeerId,
        _data: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<Vec<Address>>> {
        let entries = self.0.borrow();
        let address =
            (entries.iter()).find(|entry| entry.peer == *peer).and_then(|entry| entry.address);
        Box::pin(async move { Ok(address.map(Address::Socket).into_iter().collect()) })
    }

    fn connect<'a>(
        &'a self,
        address: &'a Address,
        data: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move { TcpConnector::default().connect(address, data).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use noise_pool::Identity;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn book(routers: u8) -> (NetDb, Vec<PeerId>) {
        let peers: Vec<PeerId> =
            (1..=routers).map(|n| Identity::from_secret([n; 32]).peer_id()).collect();
        let book = NetDb::new(peers.iter().copied());
        for (port, peer) in (1..).zip(&peers) {
            book.publish(peer, SocketAddr::from(([127, 0, 0, 1], port)));
        }
        (book, peers)
    }

    #[test]
    fn paths_avoid_the_source_repeats_and_routers_that_leave() {
        let (book, peers) = book(5);
        book.announce_leave(&peers[4]);
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..100 {
            let path = book.path(&peers[0], 3, &mut rng).expect("three are open");
            let mut sorted = path.clone();
            sorted.sort();
            sorted.dedup();
            assert_eq!(sorted.len(), 3);
            assert!(!path.contains(&peers[0]) && !path.contains(&peers[4]));
            assert!(book.all_open(&path));
        }
        assert_eq!(book.path(&peers[0], 4, &mut rng), None);
    }

    #[tokio::test]
    async fn a_leaving_router_resolves_until_it_withdraws() {
        let (book, peers) = book(2);
        book.announce_leave(&peers[1]);
        assert_eq!(book.resolve(&peers[1], None).await.expect("known").len(), 1);
        assert!(!book.all_open(&peers[1..]));
        book.withdraw(&peers[1]);
        assert_eq!(book.resolve(&peers[1], None).await.expect("known").len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_after_the_mark_wakes_the_wait() {
        let (book, peers) = book(2);
        let mut changes = book.changes();
        changes.mark_seen();
        book.withdraw(&peers[0]);
        changes.next().await;
        let idle = tokio::time::timeout(std::time::Duration::from_secs(1), changes.next());
        assert!(idle.await.is_err());
    }
}
