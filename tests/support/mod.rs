//! What the tests of the public pool share: nodes, an in-memory network, and gates on its streams.
//!
//! Nothing here leaves the process or 127.0.0.1.
#![allow(dead_code, reason = "each test binary uses a part of it")]

#[path = "../../src/verify/net/mod.rs"]
pub(crate) mod net;
pub(crate) mod raw;
pub(crate) mod talk;

use std::net::{Ipv4Addr, SocketAddr};
use std::task::Poll;
use std::time::Duration;

use noise_pool::snapshot::SessionState;
use noise_pool::{Config, Hooks, Identity, Inbox, Target};
// What `net` knows of the crate.
use noise_pool::io::{BoxFuture, BoxedStream, Stream, TargetData};
use noise_pool::{Address, Connector, PeerId, Pool, Role};

use net::Net;

/// A pool with its inbox and its TCP listener on 127.0.0.1.
pub(crate) struct Node {
    pub(crate) pool: Pool,
    pub(crate) inbox: Inbox,
    pub(crate) address: SocketAddr,
}

impl Node {
    /// A node with a fresh identity.
    pub(crate) async fn start(config: Config) -> Self {
        Self::start_as(Identity::generate(), config).await
    }

    pub(crate) async fn start_as(identity: Identity, config: Config) -> Self {
        let (pool, inbox) = Pool::builder(identity).config(config).build().unwrap();
        let address = pool.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        Self { pool, inbox, address }
    }

    pub(crate) fn id(&self) -> PeerId {
        self.pool.id()
    }

    /// How others reach it.
    pub(crate) fn target(&self) -> Target {
        Target::new(self.id()).address(self.address)
    }
}

pub(crate) struct NoHooks;

impl Hooks for NoHooks {}

impl Net {
    /// A pool on this network. Its connector resolves every pool that is on it.
    pub(crate) fn pool(&self, identity: Identity, config: Config) -> (Pool, Inbox) {
        self.pool_with(identity, config, NoHooks)
    }

    pub(crate) fn pool_with(
        &self,
        identity: Identity,
        config: Config,
        hooks: impl Hooks,
    ) -> (Pool, Inbox) {
        let port = self.port(identity.peer_id());
        let (pool, inbox) =
            Pool::builder(identity).config(config).connector(port).hooks(hooks).build().unwrap();
        self.join(&pool);
        (pool, inbox)
    }
}

/// An identity that is the same in every run.
pub(crate) fn identity(n: u8) -> Identity {
    Identity::from_secret([n.wrapping_add(1); 32])
}

/// Two identities, the one with the smaller peer id first.
pub(crate) fn ordered_identities() -> (Identity, Identity) {
    let (a, b) = (identity(1), identity(2));
    if a.peer_id() < b.peer_id() { (a, b) } else { (b, a) }
}

/// How many of `n` messages that the peer has received a report calls delivered: none on a wire that
/// does not count them.
pub(crate) fn confirmed(n: u64) -> u64 {
    if cfg!(noise_pool_plain_wire) { 0 } else { n }
}

/// How many of them it calls unknown.
pub(crate) fn unconfirmed(n: u64) -> u64 {
    n - confirmed(n)
}

/// Tasks of this runtime that have not ended.
pub(crate) fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Polls `future` a number of times, whenever it is woken, and then drops it. Its output, if it was
/// done before.
pub(crate) async fn cancelled_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = Box::pin(future);
    let mut left = polls;
    std::future::poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Waits until `condition` holds. For states that have no event to wait for; bounded, so that a
/// failure is a message and not a hang.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "never happened: {what}");
}

/// Waits for the future, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(60), future).await {
        Ok(value) => value,
        Err(_) => panic!("never finished: {what}"),
    }
}

/// The number of entries in the pool's map.
pub(crate) fn slots(pool: &Pool) -> usize {
    let text = format!("{pool:?}");
    let (_, rest) = text.split_once("slots: ").unwrap();
    rest.split(',').next().unwrap().parse().unwrap()
}

/// Waits until nothing is under way, and the map and the room hold the live sessions and no more.
pub(crate) async fn at_rest(pool: &Pool) {
    until("the pool is at rest", || {
        let snapshot = pool.snapshot();
        let live = snapshot.sessions.len();
        snapshot.dials.is_empty()
            && snapshot.sessions.iter().all(|s| s.state == SessionState::Ready)
            && snapshot.limits.sessions.held == live as u64
            && snapshot.limits.dials.held == 0
            && snapshot.limits.queued_dials.held == 0
            && slots(pool) == live
    })
    .await;
}
