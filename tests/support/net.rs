//! An in-memory network: addresses are names of pools, and every stream can be gated.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use noise_pool::{
    Address, BoxFuture, BoxedStream, Config, Connector, Hooks, Identity, Inbox, PeerId, Pool, Role,
    TargetData,
};

use super::gate::Gate;

/// The network: knows which pool answers at which peer id, and what to do with new streams.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    pools: HashMap<PeerId, Pool>,
    /// Gates of the streams that were opened, in order, with who dialled whom.
    streams: Vec<(PeerId, PeerId, Gate)>,
    /// New streams from these dialling peers begin with their gates closed.
    gated: bool,
    /// Connecting fails while set.
    refusing: bool,
    connects: u64,
}

/// One pool's way into the network.
struct Port {
    net: Net,
    own: PeerId,
}

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
        let own = identity.peer_id();
        let port = Port { net: self.clone(), own };
        let (pool, inbox) =
            Pool::builder(identity).config(config).connector(port).hooks(hooks).build().unwrap();
        self.0.lock().unwrap().pools.insert(own, pool.clone());
        (pool, inbox)
    }

    /// Whether streams that are opened from now on begin with their gates closed.
    pub(crate) fn gate_new_streams(&self, gated: bool) {
        self.0.lock().unwrap().gated = gated;
    }

    /// Whether connecting fails from now on.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.0.lock().unwrap().refusing = refusing;
    }

    /// How often a stream was asked for.
    pub(crate) fn connects(&self) -> u64 {
        self.0.lock().unwrap().connects
    }

    /// The gates of the streams that `from` opened to `to`, in order.
    pub(crate) fn gates(&self, from: PeerId, to: PeerId) -> Vec<Gate> {
        let state = self.0.lock().unwrap();
        state.streams.iter().filter(|s| s.0 == from && s.1 == to).map(|s| s.2.clone()).collect()
    }

    /// The gate of the `n`th stream (from 0) that `from` opens to `to`, when it is opened.
    pub(crate) async fn gate(&self, from: PeerId, to: PeerId, n: usize) -> Gate {
        super::until("a stream is opened", || self.gates(from, to).len() > n).await;
        self.gates(from, to)[n].clone()
    }

    /// Takes a pool off the network, so that the network does not keep it alive.
    pub(crate) fn remove(&self, peer: PeerId) -> Option<Pool> {
        self.0.lock().unwrap().pools.remove(&peer)
    }

    fn connect(&self, from: PeerId, to: PeerId) -> io::Result<BoxedStream> {
        let mut state = self.0.lock().unwrap();
        state.connects += 1;
        if state.refusing {
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
        }
        let Some(pool) = state.pools.get(&to).cloned() else {
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
        };
        let (gate, near, far) = if state.gated { Gate::closed() } else { Gate::open() };
        state.streams.push((from, to, gate));
        tokio::spawn(async move {
            let _ = pool.adopt(far, Role::Responder).await;
        });
        Ok(Box::new(near))
    }
}

impl Connector for Port {
    fn resolve<'a>(
        &'a self,
        peer: &'a PeerId,
        _data: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<Vec<Address>>> {
        Box::pin(async move {
            let host = peer.to_string();
            Ok(vec![format!("{host}:1").parse().map_err(io::Error::other)?])
        })
    }

    fn connect<'a>(
        &'a self,
        address: &'a Address,
        _data: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move {
            let text = address.to_string();
            let host = text.split(':').next().unwrap_or_default();
            let peer = host.parse().map_err(io::Error::other)?;
            self.net.connect(self.own, peer)
        })
    }
}

struct NoHooks;

impl Hooks for NoHooks {}
