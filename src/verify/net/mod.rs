//! A network in memory: pools reach each other on it by their names, and what each connection meets is
//! data.
//!
//! Owns which pools are there, what waits for the connections to come, and what became of those that
//! were. A stream is cut, slowed, broken or held here, and never understood. It is part of the fuzz
//! harness and of the integration tests, which include it as a file of their own: it knows the crate by
//! its public names alone, and its parent gives it those.
#![allow(dead_code, unused_imports, reason = "each of those who include it uses a part")]

mod by_byte;
pub(crate) mod gate;
mod pipe;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::pending;
use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::duplex;
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub(crate) use self::by_byte::{ByByte, Steps};
pub(crate) use self::pipe::{Fate, Plan, pipe};

use self::gate::Gate;
use super::{Address, BoxFuture, BoxedStream, Connector, PeerId, Pool, Role, Stream, TargetData};

/// Bytes that a stream without a gate or a plan holds.
const SMOOTH: usize = 1 << 12;

/// What a connection meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A stream with nothing in its middle.
    Smooth,
    /// A stream whose gate is open.
    Open,
    /// A stream whose gate is closed.
    Gated,
    /// A stream that moves a byte at a time.
    ByByte,
    /// What the plan says.
    Planned(Plan),
}

impl Line {
    /// A refusal.
    pub(crate) const REFUSES: Self = Self::Planned(Plan { fate: Fate::Refused, ..Plan::SMOOTH });
    /// Nothing, ever: connecting does not end.
    pub(crate) const SILENT: Self = Self::Planned(Plan { fate: Fate::Hangs, ..Plan::SMOOTH });
}

/// An address of a pool on the network; a pool has as many as there are ports.
pub(crate) fn address(peer: PeerId, port: u16) -> Address {
    let socket = format!("{peer}:{port}").parse();
    socket.unwrap_or_else(|_| unreachable!("a peer id is a host name"))
}

/// The network: knows which pool answers to which name, and what to do with new streams.
#[derive(Clone)]
pub(crate) struct Net(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// The pace of the streams that move by bytes.
    steps: Arc<Steps>,
}

struct State {
    /// In the order in which they came.
    pools: Vec<Pool>,
    /// What the next connections meet: of one pool to another, and of whichever is next.
    plans: BTreeMap<Option<(PeerId, PeerId)>, VecDeque<Plan>>,
    /// What connections to one address meet.
    lines: HashMap<Address, Line>,
    /// What all others meet.
    line: Line,
    /// What peers resolve to, if not to port 1; without addresses, resolving never ends.
    resolved: HashMap<PeerId, Vec<Address>>,
    /// Every address that was tried: by which pool, and when.
    tried: Vec<(PeerId, Address, Instant)>,
    /// Gates of the streams that were opened, in order, with the dialling pool and the address.
    gates: Vec<(PeerId, Address, Gate)>,
    /// The tasks that have not ended, and perhaps others.
    tasks: Vec<AbortHandle>,
}

impl Default for Net {
    /// A network whose streams have gates, which are open.
    fn default() -> Self {
        Self::new(Line::Open)
    }
}

impl Net {
    /// A network whose connections meet `line`, where nothing else is said.
    pub(crate) fn new(line: Line) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                pools: Vec::new(),
                plans: BTreeMap::new(),
                lines: HashMap::new(),
                line,
                resolved: HashMap::new(),
                tried: Vec::new(),
                gates: Vec::new(),
                tasks: Vec::new(),
            }),
            steps: Arc::default(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    // ---- who is there --------------------------------------------------------------------------

    /// The connector of the pool with this name.
    pub(crate) fn port(&self, own: PeerId) -> impl Connector + use<> {
        Port { net: self.clone(), own }
    }

    /// Puts a pool on the network, so that others reach it, in the place of one with its name.
    pub(crate) fn join(&self, pool: &Pool) {
        let mut state = self.state();
        let known = state.pools.iter_mut().find(|known| known.id() == pool.id());
        let _before = match known {
            Some(known) => Some(mem::replace(known, pool.clone())),
            None => {
                state.pools.push(pool.clone());
                None
            }
        };
        drop(state);
    }

    /// Takes a pool off the network, so that the network does not keep it alive.
    pub(crate) fn remove(&self, peer: PeerId) -> Option<Pool> {
        let mut state = self.state();
        let place = state.pools.iter().position(|pool| pool.id() == peer)?;
        Some(state.pools.remove(place))
    }

    /// Ends the network: it holds no pool and has no task any more.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        let pools = mem::take(&mut state.pools);
        state.tasks.drain(..).for_each(|task| task.abort());
        drop(state);
        drop(pools);
    }

    // ---- what connections meet -----------------------------------------------------------------

    /// What connections meet from now on, where nothing else is said.
    pub(crate) fn default_line(&self, line: Line) {
        self.state().line = line;
    }

    /// What connections to this address meet from now on.
    pub(crate) fn line(&self, address: &Address, line: Line) {
        self.state().lines.insert(address.clone(), line);
    }

    /// What the next connection of one pool to another meets, behind those that have a plan already.
    pub(crate) fn plan(&self, from: PeerId, to: PeerId, plan: Plan) {
        self.state().plans.entry(Some((from, to))).or_default().push_back(plan);
    }

    /// What the next connection of all meets, behind those that have a plan already.
    pub(crate) fn plan_next(&self, plan: Plan) {
        self.state().plans.entry(None).or_default().push_back(plan);
    }

    /// Forgets the plans for connections between these two.
    pub(crate) fn mend(&self, one: PeerId, other: PeerId) {
        let mut state = self.state();
        state.plans.remove(&Some((one, other)));
        state.plans.remove(&Some((other, one)));
    }

    /// Forgets all plans.
    pub(crate) fn forget_plans(&self) {
        self.state().plans.clear();
    }

    /// What the peer resolves to from now on; nothing: resolving it never ends.
    pub(crate) fn resolves_to(&self, peer: PeerId, addresses: &[Address]) {
        self.state().resolved.insert(peer, addresses.to_vec());
    }

    /// Looking `peer` up never ends from now on.
    pub(crate) fn never_resolve(&self, peer: PeerId) {
        self.resolves_to(peer, &[]);
    }

    /// How the streams that move by bytes do so.
    pub(crate) fn steps(&self) -> &Arc<Steps> {
        &self.0.steps
    }

    // ---- what became of them -------------------------------------------------------------------

    /// How often a stream was asked for.
    pub(crate) fn connects(&self) -> u64 {
        self.state().tried.len() as u64
    }

    /// How often one pool asked for a stream to another.
    pub(crate) fn connects_between(&self, from: PeerId, to: PeerId) -> u64 {
        let state = self.state();
        state.tried.iter().filter(|(by, at, _)| (*by, name(at)) == (from, Some(to))).count() as u64
    }

    /// Which addresses were tried, in order, and when.
    pub(crate) fn tried(&self) -> Vec<(Address, Instant)> {
        self.state().tried.iter().map(|(_, address, when)| (address.clone(), *when)).collect()
    }

    /// The gate of the last stream that was opened to this address, when there is one.
    pub(crate) async fn gate_at(&self, address: &Address) -> Gate {
        opened(|| self.state().gates.iter().rev().find(|g| g.1 == *address).map(|g| g.2.clone()))
            .await
    }

    /// The gates of the streams that `from` opened to `to`, in order.
    pub(crate) fn gates(&self, from: PeerId, to: PeerId) -> Vec<Gate> {
        let state = self.state();
        let between = state.gates.iter().filter(|g| (g.0, name(&g.1)) == (from, Some(to)));
        between.map(|g| g.2.clone()).collect()
    }

    /// The gates of all streams, in the order in which they were opened.
    pub(crate) fn all_gates(&self) -> Vec<Gate> {
        self.state().gates.iter().map(|g| g.2.clone()).collect()
    }

    /// The gate of the `n`th stream (from 0) that `from` opens to `to`, when it is opened.
    pub(crate) async fn gate(&self, from: PeerId, to: PeerId, n: usize) -> Gate {
        opened(|| self.gates(from, to).get(n).cloned()).await
    }

    // ---- connections ---------------------------------------------------------------------------

    /// The stream of one pool to an address, as its connector gives it.
    ///
    /// # Errors
    /// If the line refuses, or no pool has this address.
    ///
    /// # Panics
    /// If that is what the connection meets.
    pub(crate) async fn connect(&self, from: PeerId, address: &Address) -> io::Result<BoxedStream> {
        let (line, pool) = self.state().meets(from, address);
        let fate = match line {
            Line::Planned(plan) => plan.fate,
            _ => Fate::Passes,
        };
        match fate {
            Fate::Refused => return Err(io::ErrorKind::ConnectionRefused.into()),
            Fate::Hangs => pending().await,
            // Without the panic hook: this panic is meant, and others are findings.
            Fate::Panics => std::panic::resume_unwind(Box::new("as planned")),
            _ => {}
        }
        let pool = pool.ok_or(io::ErrorKind::ConnectionRefused)?;
        Ok(match line {
            Line::Smooth => self.answered(pool, duplex(SMOOTH)),
            Line::Open | Line::Gated => {
                let (gate, near, far) =
                    if line == Line::Open { Gate::open() } else { Gate::closed() };
                self.state().gates.push((from, address.clone(), gate));
                self.answered(pool, (near, far))
            }
            Line::ByByte => self.answered(pool, ByByte::pair(self.steps())),
            Line::Planned(plan) => {
                let (near, far) = self.pipe(plan);
                self.answered(pool, (near, far))
            }
        })
    }

    /// The ends of a stream with this plan, and of no pool: the initiator's, the responder's.
    pub(crate) fn pipe(&self, plan: Plan) -> (impl Stream + use<>, impl Stream + use<>) {
        let (near, far, work) = pipe(plan);
        self.spawn(work);
        (near, far)
    }

    /// Hands the far end to the pool.
    fn answered(&self, pool: Pool, (near, far): (impl Stream, impl Stream)) -> BoxedStream {
        self.spawn(async move { drop(pool.adopt(far, Role::Responder).await) });
        Box::new(near)
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(work).abort_handle();
        let mut state = self.state();
        state.tasks.retain(|task| !task.is_finished());
        state.tasks.push(task);
    }
}

impl State {
    /// What this connection meets, and the pool that it leads to.
    fn meets(&mut self, from: PeerId, address: &Address) -> (Line, Option<Pool>) {
        self.tried.push((from, address.clone(), Instant::now()));
        let to = name(address);
        let mut next = |key| self.plans.get_mut(&key).and_then(VecDeque::pop_front);
        let planned = to.and_then(|to| next(Some((from, to)))).or_else(|| next(None));
        let line = match planned {
            Some(plan) => Line::Planned(plan),
            None => self.lines.get(address).copied().unwrap_or(self.line),
        };
        let mut place = self.pools.iter().position(|pool| Some(pool.id()) == to);
        if matches!(line, Line::Planned(Plan { fate: Fate::Elsewhere, .. })) {
            place = Some((place.unwrap_or(self.pools.len()) + 1) % self.pools.len().max(1));
        }
        (line, place.and_then(|place| self.pools.get(place)).cloned())
    }
}

/// Whoever panicked meanwhile: it is a finding of its own.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The peer whose address this is.
fn name(address: &Address) -> Option<PeerId> {
    match address {
        Address::Host { host, .. } => host.parse().ok(),
        _ => None,
    }
}

/// Waits for a stream that is about to be opened; bounded, so that a failure is a message and not a
/// hang.
async fn opened(look: impl Fn() -> Option<Gate>) -> Gate {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            match look() {
                Some(gate) => return gate,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never happened: a stream is opened"))
}

/// One pool's way into the network.
struct Port {
    net: Net,
    own: PeerId,
}

impl Connector for Port {
    fn resolve<'a>(
        &'a self,
        peer: &'a PeerId,
        _: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<Vec<Address>>> {
        Box::pin(async move {
            let resolved = self.net.state().resolved.get(peer).cloned();
            match resolved {
                None => Ok(vec![address(*peer, 1)]),
                Some(addresses) if addresses.is_empty() => pending().await,
                Some(addresses) => Ok(addresses),
            }
        })
    }

    fn connect<'a>(
        &'a self,
        address: &'a Address,
        _: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(self.net.connect(self.own, address))
    }
}
