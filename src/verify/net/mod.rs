//! An in-memory network: addresses are names of pools, and every stream can be gated.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use noise_pool::{
    Address, BoxFuture, BoxedStream, Config, Connector, Hooks, Identity, Inbox, PeerId, Pool, Role,
    TargetData,
};

use tokio::time::Instant;

use super::gate::Gate;

/// What a connection to one address meets, whatever holds for the whole network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A stream whose gate is open.
    Open,
    /// A stream whose gate is closed.
    Gated,
    /// A refusal.
    Refuses,
    /// Nothing, ever: connecting does not end.
    Silent,
}

/// An address of a pool on the network; a pool has as many as there are ports.
pub(crate) fn address(peer: PeerId, port: u16) -> Address {
    format!("{peer}:{port}").parse().unwrap()
}

/// The network: knows which pool answers at which peer id, and what to do with new streams.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    pools: HashMap<PeerId, Pool>,
    /// Gates of the streams that were opened, in order, with who dialled whom.
    streams: Vec<(PeerId, PeerId, Gate)>,
    /// Addresses that differ from the rest of the network.
    lines: HashMap<Address, Line>,
    /// The gate of the last stream to an address.
    gates: HashMap<Address, Gate>,
    /// What peers resolve to, if not to port 1; without addresses, resolving never ends.
    resolved: HashMap<PeerId, Vec<Address>>,
    /// Every address that was tried, and when.
    tried: Vec<(Address, Instant)>,
    /// New streams from these dialling peers begin with their gates closed.
    gated: bool,
    /// Connecting fails while set.
    refusing: bool,
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
        let port = self.port(identity.peer_id());
        let (pool, inbox) =
            Pool::builder(identity).config(config).connector(port).hooks(hooks).build().unwrap();
        self.join(&pool);
        (pool, inbox)
    }

    /// The connector of the pool with this identity.
    pub(crate) fn port(&self, own: PeerId) -> impl Connector {
        Port { net: self.clone(), own }
    }

    /// Puts a pool on the network, so that others reach it.
    pub(crate) fn join(&self, pool: &Pool) {
        self.0.lock().unwrap().pools.insert(pool.id(), pool.clone());
    }

    /// Whether streams that are opened from now on begin with their gates closed.
    pub(crate) fn gate_new_streams(&self, gated: bool) {
        self.0.lock().unwrap().gated = gated;
    }

    /// Whether connecting fails from now on.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.0.lock().unwrap().refusing = refusing;
    }

    /// Looking `peer` up never ends from now on.
    pub(crate) fn never_resolve(&self, peer: PeerId) {
        self.resolves_to(peer, &[]);
    }

    /// How often a stream was asked for.
    pub(crate) fn connects(&self) -> u64 {
        self.0.lock().unwrap().tried.len() as u64
    }

    /// Which addresses were tried, in order, and when.
    pub(crate) fn tried(&self) -> Vec<(Address, Instant)> {
        self.0.lock().unwrap().tried.clone()
    }

    /// What connections to this address meet from now on.
    pub(crate) fn line(&self, address: &Address, line: Line) {
        self.0.lock().unwrap().lines.insert(address.clone(), line);
    }

    /// What the peer resolves to from now on; nothing: resolving it never ends.
    pub(crate) fn resolves_to(&self, peer: PeerId, addresses: &[Address]) {
        self.0.lock().unwrap().resolved.insert(peer, addresses.to_vec());
    }

    /// The gate of the last stream that was opened to this address, when there is one.
    pub(crate) async fn gate_at(&self, address: &Address) -> Gate {
        let gate = || self.0.lock().unwrap().gates.get(address).cloned();
        super::until("a stream is opened", || gate().is_some()).await;
        gate().unwrap()
    }

    /// The gates of the streams that `from` opened to `to`, in order.
    pub(crate) fn gates(&self, from: PeerId, to: PeerId) -> Vec<Gate> {
        let state = self.0.lock().unwrap();
        state.streams.iter().filter(|s| s.0 == from && s.1 == to).map(|s| s.2.clone()).collect()
    }

    /// The gates of all streams, in the order in which they were opened.
    pub(crate) fn all_gates(&self) -> Vec<Gate> {
        self.0.lock().unwrap().streams.iter().map(|s| s.2.clone()).collect()
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

    /// The stream to an address; `None`: it never comes.
    fn connect(&self, from: PeerId, address: &Address) -> io::Result<Option<BoxedStream>> {
        let text = address.to_string();
        let host = text.split(':').next().unwrap_or_default();
        let to: PeerId = host.parse().map_err(io::Error::other)?;
        let mut state = self.0.lock().unwrap();
        state.tried.push((address.clone(), Instant::now()));
        let line = match state.lines.get(address) {
            Some(line) => *line,
            None if state.refusing => Line::Refuses,
            None if state.gated => Line::Gated,
            None => Line::Open,
        };
        let pool = state.pools.get(&to).cloned().filter(|_| line != Line::Refuses);
        let (gate, near, far) = match (line, &pool) {
            (Line::Silent, _) => return Ok(None),
            (_, None) => return Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
            (Line::Gated, _) => Gate::closed(),
            _ => Gate::open(),
        };
        state.streams.push((from, to, gate.clone()));
        state.gates.insert(address.clone(), gate);
        if let Some(pool) = pool {
            tokio::spawn(async move {
                let _ = pool.adopt(far, Role::Responder).await;
            });
        }
        Ok(Some(Box::new(near)))
    }
}

impl Connector for Port {
    fn resolve<'a>(
        &'a self,
        peer: &'a PeerId,
        _data: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<Vec<Address>>> {
        Box::pin(async move {
            let resolved = self.net.0.lock().unwrap().resolved.get(peer).cloned();
            match resolved {
                None => Ok(vec![address(*peer, 1)]),
                Some(addresses) if addresses.is_empty() => std::future::pending().await,
                Some(addresses) => Ok(addresses),
            }
        })
    }

    fn connect<'a>(
        &'a self,
        address: &'a Address,
        _data: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move {
            match self.net.connect(self.own, address)? {
                Some(stream) => Ok(stream),
                None => std::future::pending().await,
            }
        })
    }
}

pub(crate) struct NoHooks;

impl Hooks for NoHooks {}
