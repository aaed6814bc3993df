//! deadpool and bb8: pools without keys, so that a router has one per peer, in a map.

use std::convert::Infallible;

use dashmap::DashMap;
use deadpool::managed;
use noise_pool::PeerId;
use tokio::runtime::Runtime;

use super::{Connection, waiting_case};
use crate::harness::Case;

/// Makes the connection of one peer, and finds it well.
#[derive(Debug)]
struct Manager(u64);

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = Infallible;

    async fn create(&self) -> Result<Connection, Infallible> {
        Ok(Connection(self.0))
    }

    async fn recycle(
        &self,
        _: &mut Connection,
        _: &managed::Metrics,
    ) -> managed::RecycleResult<Infallible> {
        Ok(())
    }
}

impl bb8::ManageConnection for Manager {
    type Connection = Connection;
    type Error = Infallible;

    async fn connect(&self) -> Result<Connection, Infallible> {
        Ok(Connection(self.0))
    }

    async fn is_valid(&self, _: &mut Connection) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Connection) -> bool {
        false
    }
}

/// deadpool: a pool indexed directly, and pools in a map.
pub fn deadpool<'a>(runtime: &'a Runtime, peers: &'a [PeerId]) -> [Case<'a>; 2] {
    let pool = |at: usize| {
        let pool = managed::Pool::<Manager>::builder(Manager(at as u64)).max_size(1).build();
        pool.expect("no time-out is set")
    };
    let alone: Vec<_> = (0..peers.len()).map(pool).collect();
    let map: DashMap<PeerId, managed::Pool<Manager>> =
        peers.iter().enumerate().map(|(at, peer)| (*peer, pool(at))).collect();
    [
        waiting_case("deadpool alone", runtime, peers.len(), async move |at| {
            alone[at].get().await.map_or(u64::MAX, |held| held.0)
        }),
        waiting_case("deadpool in a DashMap", runtime, peers.len(), async move |at| {
            // Cloned, so that no guard is held while it waits.
            let Some(pool) = map.get(&peers[at]).map(|pool| pool.clone()) else { return u64::MAX };
            pool.get().await.map_or(u64::MAX, |held| held.0)
        }),
    ]
}

/// bb8: a pool indexed directly, and pools in a map; with its check at each checkout, which is its
/// default, and without.
pub fn bb8<'a>(runtime: &'a Runtime, peers: &'a [PeerId]) -> [Case<'a>; 3] {
    let pool = |at: usize, test: bool| {
        let built =
            bb8::Pool::builder().max_size(1).test_on_check_out(test).build(Manager(at as u64));
        match runtime.block_on(built) {
            Ok(pool) => pool,
            Err(never) => match never {},
        }
    };
    let alone: Vec<_> = (0..peers.len()).map(|at| pool(at, true)).collect();
    let in_map = |test: bool| -> DashMap<PeerId, bb8::Pool<Manager>> {
        peers.iter().enumerate().map(|(at, peer)| (*peer, pool(at, test))).collect()
    };
    let from_map = |name: &str, map: DashMap<PeerId, bb8::Pool<Manager>>| {
        waiting_case(name, runtime, peers.len(), async move |at| {
            let Some(pool) = map.get(&peers[at]).map(|pool| pool.clone()) else { return u64::MAX };
            pool.get().await.map_or(u64::MAX, |held| held.0)
        })
    };
    [
        waiting_case("bb8 alone", runtime, peers.len(), async move |at| {
            alone[at].get().await.map_or(u64::MAX, |held| held.0)
        }),
        from_map("bb8 in a DashMap", in_map(true)),
        from_map("bb8 in a DashMap, untested", in_map(false)),
    ]
}
