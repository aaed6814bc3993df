//! noise-pool, as its README says: two pools, one session, default configuration.

use std::io;
use std::net::SocketAddr;

use noise_pool::config::Suite;
use noise_pool::{Config, Identity, Inbox, Lease, Message, PeerId, Pool};

use super::{Check, Lane, Receiver, Sender, ended, other};

/// Messages that a reader takes at once.
const TAKEN: usize = 256;

/// A pool that listens, and what its application receives.
pub struct Router {
    pub pool: Pool,
    pub inbox: Inbox,
    pub address: SocketAddr,
}

impl Router {
    pub async fn new(suite: Suite) -> io::Result<Self> {
        let config = Config::default().suite(suite);
        let (pool, inbox) =
            Pool::builder(Identity::generate()).config(config).build().map_err(other)?;
        let address = pool.listen(([127, 0, 0, 1], 0).into()).await.map_err(other)?;
        Ok(Self { pool, inbox, address })
    }

    /// How others dial it.
    pub fn target(&self) -> (PeerId, SocketAddr) {
        (self.pool.id(), self.address)
    }
}

/// One end of a session: a lease to send with, and the inbox of its pool.
pub struct End {
    pub lease: Lease,
    inbox: Inbox,
    taken: Vec<Message>,
    _pool: Pool,
}

impl End {
    pub fn new(router: Router, lease: Lease) -> Self {
        Self { lease, inbox: router.inbox, taken: Vec::new(), _pool: router.pool }
    }
}

/// Both ends of a fresh session: the dialler's, and the other's.
pub async fn pair(suite: Suite) -> io::Result<(End, End)> {
    let (ours, theirs) = (Router::new(suite).await?, Router::new(suite).await?);
    let lease = ours.pool.get_or_dial(theirs.target()).await.map_err(other)?;
    let back = theirs.pool.get(&ours.pool.id()).ok_or_else(ended)?;
    Ok((End::new(ours, lease), End::new(theirs, back)))
}

impl Sender for Lease {
    async fn send(&mut self, lane: &Lane, at: u64) -> io::Result<()> {
        Lease::send(self, lane.body(at).clone()).await.map_err(other)
    }

    async fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sender for End {
    async fn send(&mut self, lane: &Lane, at: u64) -> io::Result<()> {
        self.lease.send(lane.body(at).clone()).await.map_err(other)
    }

    async fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Receiver for End {
    async fn receive(&mut self, check: &mut Check) -> io::Result<u64> {
        let count = self.inbox.recv_many(&mut self.taken, TAKEN).await;
        if count == 0 {
            return Err(ended());
        }
        for message in self.taken.drain(..) {
            check.message(&message.body);
        }
        Ok(count as u64)
    }
}
