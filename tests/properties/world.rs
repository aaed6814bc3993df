//! The pools under test, and everything around them: the network, the callers, the readers.
//!
//! Owns the pools, the leases that callers have, the calls under way, and what the pools told. It does
//! what it is asked to, through the public API alone, and judges nothing; `play` plays a story's steps
//! on it, and `laws` says what must hold.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::{pending, poll_fn};
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use noise_pool::config::{Entropy, WallClock, WhenFull};
use noise_pool::error::{CloseReason, Limit, RejectReason, SendError};
use noise_pool::event::{DialFailure, Events, PoolEvent, RejectedBy};
use noise_pool::io::BoxFuture;
use noise_pool::snapshot::SessionReport;
use noise_pool::{
    Candidate, Config, ExclusiveLease, Hooks, Identity, Inbox, Lease, Origin, PeerId, Pool,
    SessionId, SessionInfo,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::book::{Book, Header};
use super::model::{LeaseNo, MAX_MESSAGE, NAMES, NODES, Pair, SessionNo};
use super::story::{Answer, Setup};
use super::support::net::{Line, Net};

/// How long a caller waits for a lease.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// No call may take longer, in virtual time.
const CALL: Duration = Duration::from_secs(3600);
/// The deadline that drains are given.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);
/// In this time a smooth network has carried all that it was given.
pub(crate) const MOMENT: Duration = Duration::from_millis(50);
/// More than `max_age`, `max_idle` and `retire_timeout` together.
pub(crate) const LONG: Duration = Duration::from_secs(150 * 60);

/// What all calls share.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) book: Mutex<Book>,
    pub(crate) leases: Mutex<BTreeMap<LeaseNo, Grip>>,
}

/// A lease in a caller's hand.
pub(crate) struct Grip {
    /// Whose.
    pub(crate) node: usize,
    hold: Hold,
}

enum Hold {
    Shared(Lease),
    Exclusive(ExclusiveLease),
}

impl Grip {
    pub(crate) fn shared(node: usize, lease: Lease) -> Self {
        Self { node, hold: Hold::Shared(lease) }
    }

    pub(crate) fn exclusive(node: usize, lease: ExclusiveLease) -> Self {
        Self { node, hold: Hold::Exclusive(lease) }
    }

    pub(crate) fn lease(&self) -> &Lease {
        match &self.hold {
            Hold::Shared(lease) => lease,
            Hold::Exclusive(lease) => lease,
        }
    }

    pub(crate) fn is_exclusive(&self) -> bool {
        matches!(self.hold, Hold::Exclusive(_))
    }

    /// Says that the session is broken, if it is a lease that can.
    pub(crate) fn discard(self) {
        if let Hold::Shared(lease) = self.hold {
            lease.discard();
        }
    }
}

/// What the pool's application says of each peer.
#[derive(Default)]
pub(crate) struct Checks(Mutex<BTreeMap<PeerId, Answer>>);

impl Checks {
    pub(crate) fn set(&self, peer: PeerId, answer: Answer) {
        self.0.lock().unwrap().insert(peer, answer);
    }

    fn answer(&self, peer: &PeerId) -> BoxFuture<'static, bool> {
        match self.0.lock().unwrap().get(peer).copied().unwrap_or_default() {
            Answer::Yes => Box::pin(async { true }),
            Answer::No => Box::pin(async { false }),
            Answer::Hangs => Box::pin(pending()),
            Answer::Panics => Box::pin(async { std::panic::resume_unwind(Box::new("as planned")) }),
        }
    }
}

struct Asked(Arc<Checks>);

impl Hooks for Asked {
    fn authorise<'a>(&'a self, peer: &'a PeerId, _: Origin) -> BoxFuture<'a, bool> {
        self.0.answer(peer)
    }

    fn ready<'a>(&'a self, candidate: &'a Candidate) -> BoxFuture<'a, bool> {
        self.0.answer(&candidate.peer)
    }

    fn health(&self, session: SessionInfo) -> Option<BoxFuture<'static, bool>> {
        Some(self.0.answer(&session.peer))
    }
}

struct Seeded(Mutex<StdRng>);

impl Entropy for Seeded {
    fn fill(&self, dest: &mut [u8]) {
        self.0.lock().unwrap().fill_bytes(dest);
    }
}

struct Still;

impl WallClock for Still {
    fn unix_seconds(&self) -> u64 {
        1_700_000_000
    }
}

/// What a pool told by its events, added up.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) opened: u64,
    pub(crate) dials: u64,
    /// By peer.
    pub(crate) dials_to: HashMap<PeerId, u64>,
    pub(crate) dials_succeeded: u64,
    pub(crate) dials_failed: HashMap<DialFailure, u64>,
    pub(crate) evicted: u64,
    pub(crate) superseded: u64,
    pub(crate) handshakes_failed: u64,
    pub(crate) shed: u64,
    pub(crate) rejected_by_us: u64,
    pub(crate) rejected_by_peer: u64,
    pub(crate) conflicts: u64,
    pub(crate) closed: HashMap<SessionId, (CloseReason, SessionReport)>,
}

pub(crate) struct Node {
    pub(crate) pool: Pool,
    inbox: Inbox,
    events: Events,
    pub(crate) checks: Arc<Checks>,
    pub(crate) told: Told,
}

/// The identities of the pools, and last that of a peer that has a name and is never there.
static IDENTITIES: LazyLock<[Identity; NAMES]> =
    LazyLock::new(|| [1, 2, 3, 4, 5].map(|secret| Identity::from_secret([secret; 32])));

/// What the n-th pool is called.
pub(crate) fn name(node: usize) -> PeerId {
    IDENTITIES[node].peer_id()
}

/// Which pool has this name.
pub(crate) fn who(peer: PeerId) -> usize {
    IDENTITIES.iter().position(|identity| identity.peer_id() == peer).unwrap()
}

/// A call that goes on while others are made.
struct Background {
    ends: Pair,
    task: JoinHandle<()>,
    /// One that sends may not be cut: nobody could say whether the message was accepted.
    sends: bool,
}

pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) nodes: Vec<Node>,
    pub(crate) shared: Arc<Shared>,
    background: Vec<Background>,
    /// The sessions of the model, as each end numbers them.
    pub(crate) known: HashMap<(usize, SessionNo), SessionId>,
    /// Known sessions whose messages have not all been accounted for, with the ends' numbers.
    pub(crate) accounts: BTreeMap<SessionNo, [(usize, SessionId); 2]>,
    /// Sessions of which a lease was discarded.
    pub(crate) discarded: HashSet<SessionId>,
    /// What the pools told since it was last judged.
    pub(crate) heard: Vec<(usize, PoolEvent)>,
    /// Sessions of which a lease was out before the step, and where.
    pub(crate) held_before: BTreeSet<(usize, SessionId)>,
}

impl World {
    pub(crate) fn new(setup: &Setup) -> Self {
        let net = Net::new(Line::Smooth);
        let nodes: Vec<Node> = (0..NODES).map(|node| Node::new(node, setup, &net)).collect();
        nodes.iter().for_each(|node| net.join(&node.pool));
        Self {
            net,
            nodes,
            shared: Arc::default(),
            background: Vec::new(),
            known: HashMap::new(),
            accounts: BTreeMap::new(),
            discarded: HashSet::new(),
            heard: Vec::new(),
            held_before: BTreeSet::new(),
        }
    }

    pub(crate) fn pool(&self, node: usize) -> Pool {
        self.nodes[node].pool.clone()
    }

    // ---- calls ---------------------------------------------------------------------------------

    /// Does this while all that arrives is read. It must end.
    pub(crate) async fn meanwhile<T>(&mut self, what: &str, work: impl Future<Output = T>) -> T {
        self.reading(timeout(CALL, work)).await.unwrap_or_else(|_| panic!("{what} never ended"))
    }

    /// Reads all inboxes, and what comes to the holders of exclusive leases, until `work` is done.
    async fn reading<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            for (node, Node { inbox, .. }) in self.nodes.iter_mut().enumerate() {
                // Polled anew each time: an inbox that has ended says so at once, and wakes nobody.
                loop {
                    let next = pin!(inbox.recv()).poll(cx);
                    let Poll::Ready(Some(message)) = next else { break };
                    let mut book = self.shared.book.lock().unwrap();
                    book.came(node, who(message.peer), message.session, message.body);
                }
            }
            for Grip { node, hold } in self.shared.leases.lock().unwrap().values_mut() {
                let Hold::Exclusive(lease) = hold else { continue };
                let (from, session) = (lease.peer(), lease.session_id());
                loop {
                    let next = pin!(lease.recv()).poll(cx);
                    let Poll::Ready(Some(body)) = next else { break };
                    self.shared.book.lock().unwrap().came(*node, who(from), session, body);
                }
            }
            work.as_mut().poll(cx)
        })
        .await
    }

    /// Lets a call go on while others are made.
    pub(crate) fn leave(&mut self, ends: Pair, sends: bool, call: JoinHandle<()>) {
        self.background.push(Background { ends, task: call, sends });
    }

    /// Ends calls between these pools that may be cut.
    pub(crate) async fn recall_cuttable(&mut self, pairs: &[Pair]) {
        for call in self.background.iter().filter(|call| !call.sends && pairs.contains(&call.ends))
        {
            call.task.abort();
        }
        self.meanwhile("a cut", tokio::task::yield_now()).await;
    }

    /// Ends calls between these pools that may be cut, and waits for the others.
    pub(crate) async fn recall(&mut self, which: impl Fn(Pair) -> bool) {
        let calls = std::mem::take(&mut self.background);
        let (ending, staying) = calls.into_iter().partition(|call| which(call.ends));
        self.background = staying;
        let ending: Vec<Background> = ending;
        ending.iter().filter(|call| !call.sends).for_each(|call| call.task.abort());
        self.meanwhile("a call", async {
            for call in ending {
                if let Err(error) = call.task.await {
                    assert!(error.is_cancelled(), "a call panicked");
                }
            }
        })
        .await;
    }

    /// Looks at calls that have ended.
    pub(crate) async fn reap(&mut self) {
        let calls = std::mem::take(&mut self.background);
        for call in calls {
            if !call.task.is_finished() {
                self.background.push(call);
            } else if let Err(error) = call.task.await {
                assert!(error.is_cancelled(), "a call panicked");
            }
        }
    }

    /// Drops the leases that nobody is to have any more.
    pub(crate) fn drop_leases(&self, keep: impl Fn(LeaseNo) -> bool) {
        let mut leases = self.shared.leases.lock().unwrap();
        let (kept, gone) = std::mem::take(&mut *leases).into_iter().partition(|(no, _)| keep(*no));
        *leases = kept;
        drop(leases);
        let gone: BTreeMap<LeaseNo, Grip> = gone;
        drop(gone);
    }

    /// The sessions of which a lease is out, and where.
    pub(crate) fn held(&self) -> BTreeSet<(usize, SessionId)> {
        let leases = self.shared.leases.lock().unwrap();
        leases.values().map(|grip| (grip.node, grip.lease().session_id())).collect()
    }

    /// Reads the events so far.
    pub(crate) fn listen(&mut self) {
        for (number, Node { events, told, .. }) in self.nodes.iter_mut().enumerate() {
            while let Some(event) = events.try_recv() {
                let event = event.expect("no event is lost");
                told.note(&event);
                self.heard.push((number, event));
            }
        }
    }
}

impl Shared {
    /// Offers a message on a lease, and writes into the book what became of it.
    pub(crate) fn offer(
        &self,
        from: usize,
        lease: &Lease,
        holder: Option<LeaseNo>,
        length: usize,
    ) -> Result<(), SendError> {
        let (to, session) = (who(lease.peer()), Some(lease.session_id()));
        let header = Header { from, to, session, holder };
        let (number, message) = self.book.lock().unwrap().write(header, length);
        let outcome = lease.try_send(message);
        if outcome.is_err() {
            self.book.lock().unwrap().given_back(number);
        }
        outcome
    }

    /// A message whose session the pool will choose.
    pub(crate) fn write(&self, from: usize, to: usize, length: usize) -> (u64, Bytes) {
        let header = Header { from, to, session: None, holder: None };
        self.book.lock().unwrap().write(header, length)
    }
}

impl Node {
    fn new(number: usize, setup: &Setup, net: &Net) -> Self {
        let minutes = |on: bool, minutes: u64| on.then(|| Duration::from_secs(60 * minutes));
        let config = Config::default()
            .entropy(Seeded(Mutex::new(StdRng::seed_from_u64(number as u64))))
            .hasher_seed(1)
            .wall_clock(Still)
            .max_message_size(MAX_MESSAGE.into())
            .rekey_after_bytes(if setup.rekeys { 2000 } else { 1 << 30 })
            .max_sessions(setup.max_sessions.into())
            .max_inbound(setup.max_inbound.into())
            .max_leases(setup.max_leases.and_then(|max| NonZeroU32::new(max.into())))
            .when_full(if setup.waits { WhenFull::Wait } else { WhenFull::Fail })
            .max_concurrent_dials(setup.max_concurrent_dials.into())
            .max_queued_dials(setup.max_queued_dials.into())
            .max_pending_handshakes(setup.max_pending_handshakes.into())
            .max_discarding(setup.max_discarding.into())
            .max_draining(setup.max_draining.into())
            .max_idle(minutes(setup.idles, 40))
            .max_age(minutes(setup.ages, 90))
            .retire_timeout(Duration::from_secs(20))
            .keepalive(Duration::from_secs(300))
            .stall_timeout(Duration::from_secs(150))
            .initial_backoff(Duration::from_secs(10))
            .max_backoff(Duration::from_secs(30))
            .max_refusal(Duration::from_secs(20))
            .event_capacity(1 << 12);
        let config = if setup.small_queues {
            let max = usize::from(MAX_MESSAGE);
            config
                .min_queue(2000)
                .max_queue(2 * max)
                .max_buffered_bytes(3 * max)
                .max_undelivered(2 * max)
                .inbox_bytes(3 * max)
        } else {
            config
        };
        let checks = Arc::new(Checks::default());
        let (pool, inbox) = Pool::builder(IDENTITIES[number].clone())
            .config(config)
            .connector(net.port(name(number)))
            .hooks(Asked(Arc::clone(&checks)))
            .build()
            .unwrap();
        assert_eq!(pool.id(), name(number));
        let events = pool.subscribe();
        Self { pool, inbox, events, checks, told: Told::default() }
    }

    /// The session to a peer that is handed out.
    pub(crate) fn ready_session(&self, peer: usize) -> Option<SessionId> {
        let sessions = self.pool.snapshot().sessions;
        let ready = noise_pool::snapshot::SessionState::Ready;
        sessions.iter().find(|s| s.peer == name(peer) && s.state == ready).map(|s| s.session)
    }
}

impl Told {
    fn note(&mut self, event: &PoolEvent) {
        match event {
            PoolEvent::Opened { .. } => self.opened += 1,
            PoolEvent::Closed { session, reason, report, .. } => {
                let before = self.closed.insert(*session, (*reason, *report));
                assert!(before.is_none(), "{session} closed twice");
            }
            PoolEvent::DialStarted { peer, .. } => {
                self.dials += 1;
                *self.dials_to.entry(*peer).or_default() += 1;
            }
            PoolEvent::DialSucceeded { .. } => self.dials_succeeded += 1,
            PoolEvent::DialFailed { cause, .. } => {
                *self.dials_failed.entry(*cause).or_default() += 1;
            }
            PoolEvent::Rejected { reason, by, .. } => {
                // Every reason that this version gives has a counter of its own.
                assert!(!matches!(reason, RejectReason::Other(_)));
                match by {
                    RejectedBy::Us => self.rejected_by_us += 1,
                    RejectedBy::Peer => self.rejected_by_peer += 1,
                }
            }
            PoolEvent::Evicted { .. } => self.evicted += 1,
            PoolEvent::Superseded { .. } => self.superseded += 1,
            PoolEvent::HandshakeFailed { .. } => self.handshakes_failed += 1,
            PoolEvent::LimitHit { limit: Limit::PendingHandshakes, .. } => self.shed += 1,
            PoolEvent::IdentityConflict { .. } => self.conflicts += 1,
            _ => {}
        }
    }

    /// What became of all messages of the sessions that have closed.
    pub(crate) fn reports(&self) -> SessionReport {
        let mut sum = SessionReport::default();
        self.closed.values().for_each(|(_, report)| sum += *report);
        sum
    }
}
