//! Pools that all have a session with all of the other side, over TCP on loopback.
//!
//! A session takes two pools, and the keys of a side are few: so both ends of very many sessions fit
//! into a process, and what the pools cost by themselves is shared by many sessions.

use std::net::SocketAddr;

use noise_pool::{Config, Identity, Inbox, Pool, Target};
use tokio::task::JoinSet;

/// Dials at one time.
const AT_ONCE: usize = 32;

/// A pool, its inbox, and where it listens.
pub struct Node {
    pub pool: Pool,
    pub inbox: Inbox,
    pub address: SocketAddr,
}

impl Node {
    pub async fn start(config: Config) -> Self {
        let (pool, inbox) =
            Pool::builder(Identity::generate()).config(config).build().expect("the bounds hold");
        let address = pool.listen(([127, 0, 0, 1], 0).into()).await.expect("loopback is there");
        Self { pool, inbox, address }
    }

    pub fn target(&self) -> Target {
        Target::new(self.pool.id()).address(self.address)
    }
}

/// So many pools.
pub async fn nodes(count: usize, config: &Config) -> Vec<Node> {
    let mut nodes = Vec::with_capacity(count);
    for _ in 0..count {
        nodes.push(Node::start(config.clone()).await);
    }
    nodes
}

/// A session between each of `one` and each of `other`.
pub async fn connect(one: &[Node], other: &[Node]) {
    let mut dials = JoinSet::new();
    for near in one {
        for far in other {
            if dials.len() == AT_ONCE {
                arrive(dials.join_next().await);
            }
            let (pool, target) = (near.pool.clone(), far.target());
            dials.spawn(async move { pool.get_or_dial(target).await.map(drop) });
        }
    }
    while !dials.is_empty() {
        arrive(dials.join_next().await);
    }
}

fn arrive<T, E: std::fmt::Debug, J: std::fmt::Debug>(dialled: Option<Result<Result<T, E>, J>>) {
    dialled.expect("one is under way").expect("a dial does not panic").expect("the peer is there");
}
