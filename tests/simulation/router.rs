//! One router of a run: a pool on turmoil's TCP, its accept loops, and what it is told to do.
//!
//! Everything that a pool takes from outside (randomness, wall clock, hasher seed, network) comes
//! from the run's seed or from simulated time, so that one seed is one run.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use noise_pool::config::{Entropy, WallClock};
use noise_pool::error::Limit;
use noise_pool::event::PoolEvent;
use noise_pool::io::BoxFuture;
use noise_pool::snapshot::{SessionState, Stats};
use noise_pool::{
    CloseMode, Config, Disconnect, Hooks, Identity, Inbox, PeerId, Pool, Role, SessionInfo,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use turmoil::net::TcpListener;

use crate::book::Book;
use crate::line::{Line, Mishap, PORTS, SimulatedTcp};

/// More orders than a router ever has waiting.
const ORDERS: usize = 1_024;
/// How long a router that drains waits for leases.
const DRAIN: Duration = Duration::from_secs(1);

/// What a router is told to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Get a session and send messages on it.
    Talk(Talk),
    /// Disconnect a peer.
    Part { to: usize, mode: CloseMode },
    /// Find the session with a peer broken.
    Discard { to: usize },
    /// Drain the pool, and begin another under the same key.
    Drain,
    /// Close the pool, and begin another under the same key.
    Close,
    /// Tell the scenario what sessions there are.
    Look,
}

/// What a router has at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Nothing is under way: no dial, no drain, no handshake, no byte in a queue.
    pub(crate) at_rest: bool,
    /// By the number of the peer, the handshake hash of the session.
    pub(crate) sessions: BTreeMap<usize, Option<[u8; 32]>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Talk {
    pub(crate) to: usize,
    pub(crate) messages: u32,
    /// Length of each message in bytes, 8 at least.
    pub(crate) size: usize,
    pub(crate) gap: Duration,
    /// Waits no longer than this for a session.
    pub(crate) patience: Duration,
    /// Keeps the lease for so long afterwards.
    pub(crate) hold: Duration,
}

/// What the scenario shares with a router across its lives.
pub(crate) struct Seat {
    pub(crate) number: usize,
    seed: u64,
    book: Book,
    config: Config,
    pub(crate) two_ports: bool,
    pub(crate) peers: Arc<[PeerId]>,
    lives: AtomicU64,
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    pool: Mutex<Option<Pool>>,
    /// Whether the application reads its inbox.
    pub(crate) reading: watch::Sender<bool>,
    /// What its health check says.
    pub(crate) healthy: AtomicBool,
    /// The next bytes that arrive have a bit flipped.
    pub(crate) flip: AtomicBool,
    /// By the number of the peer, what happens to the next connection that is opened to it.
    pub(crate) mishaps: Mutex<BTreeMap<usize, Mishap>>,
    seen: Mutex<Option<Seen>>,
    stats: Mutex<Vec<Stats>>,
}

/// The identity of a router, the same in every run.
pub(crate) fn identity(number: usize) -> Identity {
    Identity::from_secret([number as u8 + 1; 32])
}

pub(crate) fn name(number: usize) -> String {
    format!("r{number}")
}

impl Seat {
    pub(crate) fn new(
        number: usize,
        seed: u64,
        book: &Book,
        config: Config,
        two_ports: bool,
        peers: Arc<[PeerId]>,
    ) -> Arc<Self> {
        Arc::new(Self {
            number,
            seed,
            book: book.clone(),
            config,
            two_ports,
            peers,
            lives: AtomicU64::new(0),
            orders: Mutex::new(None),
            pool: Mutex::new(None),
            reading: watch::channel(true).0,
            healthy: AtomicBool::new(true),
            flip: AtomicBool::new(false),
            mishaps: Mutex::default(),
            seen: Mutex::default(),
            stats: Mutex::default(),
        })
    }

    /// Tells the router; one that is down does not hear.
    pub(crate) fn tell(&self, order: Order) {
        if let Some(orders) = &*self.orders.lock().unwrap() {
            assert!(
                !matches!(orders.try_send(order), Err(mpsc::error::TrySendError::Full(_))),
                "r{} hangs: it does not take orders",
                self.number
            );
        }
    }

    /// Keeps what the pool has counted, before the router is crashed.
    pub(crate) fn note_stats(&self) {
        if let Some(pool) = self.pool.lock().unwrap().take() {
            self.stats.lock().unwrap().push(pool.stats());
        }
    }

    pub(crate) fn stats(&self) -> Vec<Stats> {
        self.stats.lock().unwrap().clone()
    }

    /// What the router saw at its last look, if it has looked since the last time this was asked.
    pub(crate) fn seen(&self) -> Option<Seen> {
        self.seen.lock().unwrap().take()
    }

    fn look(&self, pool: &Pool) -> Seen {
        let snapshot = pool.snapshot();
        let limits = &snapshot.limits;
        let at_rest = snapshot.dials.is_empty()
            && snapshot.sessions.iter().all(|session| session.state == SessionState::Ready)
            && limits.sessions.held == snapshot.sessions.len() as u64
            && [
                limits.draining,
                limits.dials,
                limits.queued_dials,
                limits.pending_handshakes,
                limits.buffered_bytes,
                limits.inbox_bytes,
            ]
            .iter()
            .all(|limit| limit.held == 0);
        let mut sessions = BTreeMap::new();
        for session in &snapshot.sessions {
            let number = self.peers.iter().position(|peer| *peer == session.peer).unwrap();
            let hash = pool.get(&session.peer).map(|lease| *lease.handshake_hash());
            let twice = sessions.insert(number, hash);
            assert!(
                !at_rest || twice.is_none(),
                "r{} has two sessions with r{number}",
                self.number
            );
        }
        Seen { at_rest, sessions }
    }

    /// A router's life, until it is crashed: one pool after another.
    pub(crate) async fn live(self: Arc<Self>) -> turmoil::Result {
        for port in PORTS {
            let seat = self.clone();
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
            tokio::spawn(async move { seat.accept(listener).await });
        }
        loop {
            self.one_pool().await;
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let pool = self.pool.lock().unwrap().clone();
            if let Some(pool) = pool {
                let line = Line::accepted(stream, self.clone());
                tokio::spawn(async move {
                    let _ = pool.adopt(line, Role::Responder).await;
                });
            }
        }
    }

    async fn one_pool(self: &Arc<Self>) {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let config = self
            .config
            .clone()
            .entropy(SeededEntropy::new(self.seed ^ (life << 32) ^ ((self.number as u64) << 48)))
            .hasher_seed(self.seed)
            .wall_clock(SimulatedClock);
        let (pool, inbox) = Pool::builder(identity(self.number))
            .config(config)
            .connector(SimulatedTcp(self.clone()))
            .hooks(HealthCheck(self.clone()))
            .build()
            .unwrap();
        let mut events = pool.subscribe();
        let reading = tokio::spawn(self.clone().read(inbox));
        let logging = tokio::spawn({
            let seat = self.clone();
            async move {
                while let Some(event) = events.recv().await {
                    seat.heard(life, &event.expect("no event is lost"));
                }
            }
        });
        let (sender, mut orders) = mpsc::channel(ORDERS);
        *self.orders.lock().unwrap() = Some(sender);
        *self.pool.lock().unwrap() = Some(pool.clone());
        self.book.log(self.number, "begins");
        while let Some(order) = orders.recv().await {
            if !matches!(order, Order::Look) {
                self.book.log(self.number, &format!("{order:?}"));
            }
            match order {
                Order::Talk(talk) => {
                    tokio::spawn(self.clone().talk(pool.clone(), life, talk));
                }
                Order::Part { to, mode } => {
                    pool.disconnect(&self.peers[to], Disconnect::new(mode));
                }
                Order::Discard { to } => {
                    if let Some(lease) = pool.get(&self.peers[to]) {
                        lease.discard();
                    }
                }
                Order::Look => {
                    let seen = self.look(&pool);
                    *self.seen.lock().unwrap() = Some(seen);
                }
                Order::Drain => {
                    pool.drain(DRAIN).await;
                    break;
                }
                Order::Close => {
                    pool.close().await;
                    break;
                }
            }
        }
        self.orders.lock().unwrap().take();
        self.note_stats();
        logging.await.unwrap();
        reading.await.unwrap();
    }

    async fn talk(self: Arc<Self>, pool: Pool, life: u64, talk: Talk) {
        let got = timeout(talk.patience, pool.get_or_dial(self.peers[talk.to])).await;
        let lease = match got {
            Ok(Ok(lease)) => lease,
            Ok(Err(error)) => return self.book.log(self.number, &format!("no session: {error}")),
            Err(_) => return self.book.log(self.number, "gives up"),
        };
        for _ in 0..talk.messages {
            let message = self.book.sending((self.number, life, lease.session_id()), talk.to);
            let mut body = vec![0; talk.size.max(8)];
            body[..8].copy_from_slice(&message.to_be_bytes());
            let accepted = lease.send(Bytes::from(body)).await.is_ok();
            self.book.sent(message, accepted);
            sleep(talk.gap).await;
        }
        sleep(talk.hold).await;
    }

    async fn read(self: Arc<Self>, mut inbox: Inbox) {
        let mut reads = self.reading.subscribe();
        loop {
            let _ = reads.wait_for(|reads| *reads).await;
            let Some(message) = inbox.recv().await else { return };
            let number = u64::from_be_bytes(message.body[..8].try_into().unwrap());
            assert!(message.body[8..].iter().all(|&byte| byte == 0));
            self.book.arrived(self.number, number);
        }
    }

    fn heard(&self, life: u64, event: &PoolEvent) {
        self.book.log(self.number, &format!("{event:?}"));
        match event {
            PoolEvent::Closed { session, reason, report, .. } => {
                self.book.ended((self.number, life, *session), *reason, *report);
            }
            // One of the sessions that drain is cut, and nobody says whose.
            PoolEvent::LimitHit { limit: Limit::Draining, .. } => {
                (0..self.peers.len()).for_each(|peer| self.book.disturb(self.number, peer));
            }
            _ => {}
        }
    }
}

struct HealthCheck(Arc<Seat>);

impl Hooks for HealthCheck {
    fn health(&self, _session: SessionInfo) -> Option<BoxFuture<'static, bool>> {
        let healthy = self.0.healthy.load(Ordering::Relaxed);
        Some(Box::pin(std::future::ready(healthy)))
    }
}

struct SeededEntropy(Mutex<StdRng>);

impl SeededEntropy {
    fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, dest: &mut [u8]) {
        self.0.lock().unwrap().fill_bytes(dest);
    }
}

struct SimulatedClock;

impl WallClock for SimulatedClock {
    fn unix_seconds(&self) -> u64 {
        turmoil::since_epoch().unwrap_or_default().as_secs()
    }
}
