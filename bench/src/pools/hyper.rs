//! hyper-util's pools: the one inside its client, for connections that are shared (HTTP/2) and for
//! those that are not (HTTP/1), and the newer parts that are to replace it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::pool::{Config, Pool, Poolable, Reservation, Ver};
use hyper_util::client::pool::map::Map;
use hyper_util::client::pool::singleton::Singleton;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use noise_pool::PeerId;
use tokio::runtime::Runtime;
use tower_service::Service;

use super::{Connection, waiting_case};
use crate::harness::Case;

/// A handle of a connection; that of hyper is two `Arc`s and more.
#[derive(Clone, Debug)]
struct Handle(Arc<Connection>);

impl Poolable for Handle {
    fn is_open(&self) -> bool {
        true
    }

    fn reserve(self) -> Reservation<Self> {
        Reservation::Shared(self.clone(), self)
    }

    fn can_share(&self) -> bool {
        true
    }
}

/// A connection that one has to oneself.
#[derive(Debug)]
struct Whole(Connection);

impl Poolable for Whole {
    fn is_open(&self) -> bool {
        true
    }

    fn reserve(self) -> Reservation<Self> {
        Reservation::Unique(self)
    }

    fn can_share(&self) -> bool {
        false
    }
}

/// Its client's pool, with its client's defaults, that holds a connection per key.
fn filled<T: Poolable>(peers: &[PeerId], ver: Ver, make: impl Fn(u64) -> T) -> Pool<T, PeerId> {
    let config =
        Config { idle_timeout: Some(Duration::from_secs(90)), max_idle_per_host: usize::MAX };
    let pool = Pool::new(config, TokioExecutor::new(), None::<TokioTimer>);
    for (number, peer) in peers.iter().enumerate() {
        let connecting = pool.connecting(peer, ver).expect("nobody else connects");
        drop(pool.pooled(connecting, make(number as u64)));
    }
    pool
}

pub fn legacy<'a>(runtime: &'a Runtime, peers: &'a [PeerId]) -> [Case<'a>; 2] {
    let shared = filled(peers, Ver::Http2, |number| Handle(Arc::new(Connection(number))));
    // Unlike a shared one, a connection that was just made is pooled when its user drops it, and not
    // before there is a reference to the pool: so it is, once it has been checked out.
    let whole = filled(peers, Ver::Auto, |number| Whole(Connection(number)));
    [
        waiting_case("hyper-util, HTTP/2 shared", runtime, peers.len(), async move |at| {
            shared.checkout(peers[at]).await.map_or(u64::MAX, |held| held.0.0)
        }),
        waiting_case("hyper-util, HTTP/1", runtime, peers.len(), async move |at| {
            whole.checkout(peers[at]).await.map_or(u64::MAX, |held| held.0.0)
        }),
    ]
}

impl Service<()> for Handle {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(self.0.0))
    }
}

/// Makes the handle of one peer.
#[derive(Clone, Debug)]
struct Connect(u64);

impl Service<PeerId> for Connect {
    type Response = Handle;
    type Error = Infallible;
    type Future = Ready<Result<Handle, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: PeerId) -> Self::Future {
        ready(Ok(Handle(Arc::new(Connection(self.0)))))
    }
}

/// The newer parts: a singleton per key in its map, which needs a lock of its user's. They watch no
/// idle time, count nothing and forget nobody: a lock, a hash map, a lock and an `Arc`.
pub fn singletons<'a>(runtime: &'a Runtime, peers: &'a [PeerId]) -> Case<'a> {
    // The map makes a singleton when it first sees a key; it is told which key is which.
    let places: HashMap<PeerId, u64> =
        peers.iter().enumerate().map(|(at, peer)| (*peer, at as u64)).collect();
    let map = Mutex::new(
        Map::builder::<PeerId>()
            .keys(|peer: &PeerId| *peer)
            .values(move |peer: &PeerId| Singleton::new(Connect(places[peer])))
            .build(),
    );
    waiting_case("hyper-util, singletons in a map", runtime, peers.len(), async move |at| {
        let held = match map.lock() {
            Ok(mut map) => map.service(&peers[at]).call(peers[at]),
            Err(_) => return u64::MAX,
        };
        let Ok(mut held) = held.await else { return u64::MAX };
        let Ok(number) = held.call(()).await;
        number
    })
}
