//! Entry function for fuzzing the pool: real pools on a network whose behaviour is data.
//!
//! Owns three pools, the calls under way and what must hold: no limit is passed at any step, every
//! call ends, nothing is left at rest, and the reports tell the truth about every message; the network
//! between the pools is `verify::net`. Time is tokio's and must be paused: a call that hangs then meets a
//! deadline at once.

#![expect(clippy::expect_used, reason = "a failed assertion is the finding")]

use std::collections::{HashMap, HashSet};
use std::future::{pending, poll_fn};
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::AsyncWriteExt as _;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{sleep, timeout};

use crate::base::config::{Config, WhenFull};
use crate::base::environment::WallClock;
use crate::base::error::{CloseReason, SendToError};
use crate::base::event::{Events, PoolEvent};
use crate::base::id::{Origin, PeerId, SessionId};
use crate::base::identity::Identity;
use crate::base::io::BoxFuture;
use crate::base::metrics::{DialPhase, LimitUse, SessionReport, SessionState};
use crate::base::sync::{Mutex, lock};
use crate::pool::hooks::{Candidate, Hooks, SessionInfo};
use crate::pool::shutdown::{CloseMode, Disconnect};
use crate::pool::target::Target;
use crate::pool::{Pool, Role};
use crate::proto::slot::View;
use crate::session::{Inbox, Lease, Message};
use crate::verify::crypto::TestEntropy;
use crate::verify::fuzz::input::Input;
use crate::verify::net::{Fate, Line, Net, Plan, address};

/// Pools on the network. One more peer has a name and is never there.
const NODES: usize = 3;

static IDENTITIES: LazyLock<[Identity; NODES + 1]> =
    LazyLock::new(|| [1, 2, 3, 4].map(|secret| Identity::from_secret([secret; 32])));

/// No call may take longer, in virtual time: hundreds of dials, one after another.
const CALL: Duration = Duration::from_secs(24 * 3600);
/// The deadline that drains are given.
const DRAIN: Duration = Duration::from_secs(5);
/// What a drain may take beyond it: `drain_timeout`, `verdict_timeout` and a parting.
const AFTER_DRAIN: Duration = Duration::from_secs(10 + 3 + 2);
/// By then whatever is left to itself has ended: `stall_timeout`, `retire_timeout` and a drain.
const REST: Duration = Duration::from_secs(10 * 60);
const MAX_MESSAGE: usize = 4096;

/// Plays operations on three pools. Three bytes of settings, then operations: a byte that says what,
/// one that says who, and what the operation needs. Returns how many messages arrived, so that a test
/// can tell that anything happens at all.
///
/// # Panics
/// When something does not hold; and outside a tokio runtime of one thread whose time is paused.
pub async fn pool_ops(data: &[u8]) -> usize {
    let mut input = Input(data);
    let mut world = World::new(&mut input);
    while !input.is_empty() {
        world.step(&mut input).await;
        world.look();
    }
    world.end().await
}

/// What happens to one connection.
fn take_plan(input: &mut Input<'_>) -> Plan {
    let what = input.byte();
    let at = input.word() & 0x0fff;
    Plan {
        fate: match what & 7 {
            0 => Fate::Passes,
            1 => Fate::Refused,
            2 => Fate::Hangs,
            3 => Fate::Panics,
            4 => Fate::Elsewhere,
            5 => Fate::BreaksAt(at),
            6 => Fate::StallsAt(at),
            _ => Fate::FlipsAt(at),
        },
        piece: if what & 0x10 == 0 { u16::MAX } else { 7 },
        delay_ms: if what & 0x20 == 0 { 0 } else { 40 },
        to_responder: what & 0x08 == 0,
    }
}

/// A node's checks answer as they are told to.
#[derive(Default)]
struct Checks(AtomicU8);

impl Checks {
    fn answer(&self) -> BoxFuture<'static, bool> {
        match self.0.load(Ordering::Relaxed) & 3 {
            0 => Box::pin(async { true }),
            1 => Box::pin(async { false }),
            2 => Box::pin(pending()),
            _ => Box::pin(async { std::panic::resume_unwind(Box::new("as planned")) }),
        }
    }
}

struct Asked(Arc<Checks>);

impl Hooks for Asked {
    fn authorise<'a>(&'a self, _: &'a PeerId, _: Origin) -> BoxFuture<'a, bool> {
        self.0.answer()
    }

    fn ready<'a>(&'a self, _: &'a Candidate) -> BoxFuture<'a, bool> {
        self.0.answer()
    }

    fn health(&self, _: SessionInfo) -> Option<BoxFuture<'static, bool>> {
        Some(self.0.answer())
    }
}

struct Still;

impl WallClock for Still {
    fn unix_seconds(&self) -> u64 {
        1_700_000_000
    }
}

struct Node {
    pool: Pool,
    inbox: Inbox,
    events: Events,
    checks: Arc<Checks>,
}

/// What calls under way share with the world.
#[derive(Default)]
struct Shared {
    /// Leases in hand, with the node that holds them.
    leases: Vec<(usize, Lease)>,
    /// Whether leases are dropped as soon as they are had.
    closing: bool,
    /// Messages that were accepted: from which node, to whom, and whether at the moment at which they
    /// got their number.
    accepted: HashMap<u64, (usize, PeerId, bool)>,
    /// Messages that were in flight with a handshake that broke.
    in_doubt: HashMap<u64, (usize, PeerId)>,
    next_message: u64,
}

struct World {
    net: Net,
    nodes: Vec<Node>,
    shared: Arc<Mutex<Shared>>,
    calls: Vec<JoinHandle<()>>,
    /// Calls that send: cut short, nobody could say whether the message was accepted.
    sends: Vec<JoinHandle<()>>,
    /// What came in: by which node, from whom.
    received: HashMap<u64, (usize, PeerId)>,
    /// The last message of each session that was accepted at once.
    last: HashMap<SessionId, u64>,
    max_leases: Option<NonZeroU32>,
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let [limits, waits, times] = [input.byte(), input.byte(), input.byte()];
        let net = Net::new(Line::Planned(Plan::SMOOTH));
        let max_leases = NonZeroU32::new(u32::from(limits >> 2 & 3));
        let node = |seed: usize| {
            let config = Config::default()
                .entropy(TestEntropy::new(seed as u64))
                .hasher_seed(1)
                .wall_clock(Still)
                .max_message_size(MAX_MESSAGE)
                .min_queue(64)
                .max_queue(2 * MAX_MESSAGE)
                .max_buffered_bytes(3 * MAX_MESSAGE)
                .max_undelivered(2 * MAX_MESSAGE)
                .inbox_bytes(3 * MAX_MESSAGE)
                .rekey_after_bytes(if limits & 0x80 == 0 { 1 << 30 } else { 1000 })
                .max_sessions(1 + usize::from(limits & 3))
                .max_leases(max_leases)
                .max_draining(1 + usize::from(limits >> 4 & 3))
                .max_concurrent_dials(1 + usize::from(waits & 3))
                .max_queued_dials(usize::from(waits >> 2 & 3))
                .max_pending_handshakes(1 + usize::from(waits >> 4 & 3))
                .max_discarding(usize::from(waits >> 6 & 1))
                .when_full(if waits & 0x80 == 0 { WhenFull::Wait } else { WhenFull::Fail })
                .max_idle([None, Some(2), Some(60), Some(300)][usize::from(times & 3)].map(secs))
                .max_age(
                    [None, Some(300), Some(600), Some(900)][usize::from(times >> 2 & 3)].map(secs),
                )
                .retire_timeout(secs(20))
                .initial_backoff(Duration::from_millis(200))
                .max_backoff(secs(30))
                .event_capacity(1 << 14);
            let config = match times >> 4 & 3 {
                0 => config,
                3 => config.max_inbound(0),
                max => config.max_inbound(usize::from(max.min(1 + (limits & 3)))),
            };
            let checks = Arc::new(Checks::default());
            let (pool, inbox) = Pool::builder(IDENTITIES[seed].clone())
                .config(config)
                .connector(net.port(IDENTITIES[seed].peer_id()))
                .hooks(Asked(checks.clone()))
                .build()
                .expect("the configuration is sound");
            let events = pool.subscribe();
            Node { pool, inbox, events, checks }
        };
        let nodes: Vec<Node> = (0..NODES).map(node).collect();
        nodes.iter().for_each(|node| net.join(&node.pool));
        let (shared, calls, sends, received, last) = Default::default();
        Self { net, nodes, shared, calls, sends, received, last, max_leases }
    }

    // ---- operations ----------------------------------------------------------------------------

    async fn step(&mut self, input: &mut Input<'_>) {
        let (what, who) = (input.byte(), input.byte());
        let (from, to) = (usize::from(who & 3) % NODES, usize::from(who >> 2 & 3));
        let pool = self.nodes[from].pool.clone();
        let peer = IDENTITIES[to].peer_id();
        let shared = self.shared.clone();
        match what & 15 {
            0 | 1 => {
                let target = self.target(to, input.byte());
                self.call(async move {
                    if let Ok(lease) = pool.get_or_dial(target).await {
                        keep(&shared, from, lease);
                    }
                });
            }
            2 => {
                let target = self.target(to, input.byte());
                self.call(async move {
                    if let Ok(lease) = pool.get_exclusive(target).await {
                        offer(&shared, from, &lease, 100);
                        sleep(secs(1)).await;
                    }
                });
            }
            3 => {
                let taken = take(&self.shared, who);
                match taken {
                    Some((_, lease)) if what & 0x10 != 0 => lease.discard(),
                    taken => drop(taken),
                }
            }
            4 => {
                let length = usize::from(input.word()) % (MAX_MESSAGE + 100);
                if let Some((node, lease)) = take(&self.shared, who) {
                    offer(&self.shared, node, &lease, length);
                    keep(&self.shared, node, lease);
                }
            }
            5 => {
                let length = usize::from(input.word()) % MAX_MESSAGE;
                let target = self.target(to, input.byte());
                let (number, message) = number(&self.shared, from, peer, length, false);
                self.sends.push(tokio::spawn(async move {
                    if let Err(error) = pool.send(target, message).await {
                        let mut shared = lock(&shared);
                        let taken = shared.accepted.remove(&number);
                        if let (SendToError::Unknown { .. }, Some((from, to, _))) = (error, taken) {
                            shared.in_doubt.insert(number, (from, to));
                        }
                    }
                }));
            }
            6 => {
                if !self.calls.is_empty() {
                    let call = usize::from(who) % self.calls.len();
                    self.calls.swap_remove(call).abort();
                }
            }
            7 => {
                let mode = if what & 0x10 == 0 { CloseMode::Drain } else { CloseMode::Now };
                let refuse = input.byte();
                let mut disconnect = Disconnect::new(mode);
                if refuse != 0 {
                    disconnect = disconnect.refuse_for(100 * Duration::from_millis(refuse.into()));
                }
                pool.disconnect(&peer, disconnect);
            }
            8 => self.call(async move {
                let _ = pool.drain_peer(&peer, DRAIN).await;
            }),
            9 if what & 0x10 == 0 => pool.keep(peer),
            9 => {
                pool.unkeep(&peer);
            }
            10 => sleep(Duration::from_millis(1 << (input.byte() & 15))).await,
            11 => self.net.plan_next(take_plan(input)),
            12 => self.read(from, who >> 2),
            13 => self.nodes[from].checks.0.store(who >> 2, Ordering::Relaxed),
            14 => {
                // A stranger, or a peer over a stream that the caller brought.
                let (near, far) = self.net.pipe(take_plan(input));
                if what & 0x10 == 0 {
                    let bytes = input.piece().to_vec();
                    self.call(async move {
                        let _ = pool.adopt(far, Role::Responder).await;
                    });
                    tokio::spawn(async move {
                        let mut near = near;
                        let _ = near.write_all(&bytes).await;
                        sleep(secs(60)).await;
                    });
                } else {
                    if let Some(node) = self.nodes.get(to) {
                        let there = node.pool.clone();
                        self.call(async move {
                            let _ = there.adopt(far, Role::Responder).await;
                        });
                    }
                    self.call(async move {
                        if let Ok(lease) = pool.adopt(near, Role::Initiator { peer }).await {
                            keep(&shared, from, lease);
                        }
                    });
                }
            }
            _ if what & 0xf0 == 0x50 => self.call(async move {
                let _ = pool.drain(DRAIN).await;
            }),
            _ if what & 0xf0 == 0xa0 => self.call(async move { pool.close().await }),
            _ => {
                if let Some((node, lease)) = take(&self.shared, who) {
                    self.call(async move {
                        let _ = lease.ping().await;
                        let _ = lease.flush().await;
                        keep(&shared, node, lease);
                    });
                }
            }
        }
        for _ in 0..what >> 6 {
            yield_now().await;
        }
    }

    fn target(&self, to: usize, how: u8) -> Target {
        let peer = IDENTITIES[to].peer_id();
        let mut target = Target::new(peer);
        for port in 0..how & 3 {
            target = target.address(address(peer, port.into()));
        }
        match how >> 2 {
            0 => target,
            tenths => target.timeout(Duration::from_millis(100 * u64::from(tenths))),
        }
    }

    fn call(&mut self, call: impl Future<Output = ()> + Send + 'static) {
        self.calls.push(tokio::spawn(call));
    }

    /// Takes up to `max` messages from a node's inbox.
    fn read(&mut self, node: usize, max: u8) {
        for _ in 0..max {
            let Some(message) = self.nodes[node].inbox.try_recv() else { return };
            self.came(node, message);
        }
    }

    /// A message came in: one that was sent, from who sent it, to who should have it, once, and in
    /// its session's order.
    fn came(&mut self, node: usize, message: Message) {
        let number = (&message.body[..8]).get_u64();
        let (from, to, at_once) = {
            let shared = lock(&self.shared);
            let in_doubt = || shared.in_doubt.get(&number).map(|&(from, to)| (from, to, false));
            let sent = shared.accepted.get(&number).copied();
            sent.or_else(in_doubt).expect("it was sent, or may have been")
        };
        let peer = message.peer;
        assert_eq!((IDENTITIES[from].peer_id(), to), (peer, IDENTITIES[node].peer_id()));
        assert!(self.received.insert(number, (node, peer)).is_none(), "delivered twice");
        if at_once && let Some(last) = self.last.insert(message.session, number) {
            assert!(last < number, "{last} came before {number}");
        }
    }

    // ---- what must hold ------------------------------------------------------------------------

    /// What holds at every step.
    fn look(&self) {
        for Node { pool, .. } in &self.nodes {
            let seen = pool.snapshot();
            let limits = seen.limits;
            // A pool that drains puts all its sessions there, and cuts none for want of room.
            let draining = if pool.state().lifecycle.is_open() {
                limits.draining
            } else {
                LimitUse::default()
            };
            // Sessions that end hold what has come of them, up to a second bound.
            let ending = limits.inbox_bytes.limit + limits.buffered_bytes.limit;
            for LimitUse { held, high_water, limit } in [
                limits.sessions,
                limits.inbound,
                draining,
                limits.dials,
                limits.queued_dials,
                limits.pending_handshakes,
                limits.discarding,
                limits.buffered_bytes,
                LimitUse { limit: ending, ..limits.inbox_bytes },
            ] {
                assert!(held <= high_water && high_water <= limit, "{limits:?}");
            }
            let mut peers = HashSet::new();
            let mut ready = 0;
            for session in seen.sessions.iter().filter(|s| s.state == SessionState::Ready) {
                ready += 1;
                assert!(peers.insert(session.peer), "two sessions with one peer");
                if let Some(max) = self.max_leases {
                    assert!(session.leases <= max.get(), "{} leases", session.leases);
                }
            }
            assert!(ready <= limits.sessions.held, "a session without room");
            let entries = pool.state().sessions.slots.len();
            let others = pool.state().sessions.slots.collect(|_, slot| {
                let awaits = matches!(slot.view(), View::Vacant);
                assert!(!awaits || slot.superseded().len() > 0, "an entry that holds nothing");
                (awaits || matches!(slot.view(), View::Dialing { .. })).then_some(awaits)
            });
            let dials = others.iter().filter(|awaits| !**awaits).count();
            let awaited = seen.dials.iter().filter(|dial| dial.phase == DialPhase::Superseded);
            assert_eq!(dials, seen.dials.len() - awaited.count());
            // A slot's session may have left its ready state and not its slot yet.
            assert!(entries >= others.len() + usize::try_from(ready).expect("few"));
        }
    }

    /// Lets everything come to rest, then ends it; both must be clean.
    async fn end(mut self) -> usize {
        self.net.forget_plans();
        for node in &self.nodes {
            node.checks.0.store(0, Ordering::Relaxed);
            for identity in IDENTITIES.iter() {
                node.pool.unkeep(&identity.peer_id());
            }
        }
        let leases = {
            let mut shared = lock(&self.shared);
            shared.closing = true;
            std::mem::take(&mut shared.leases)
        };
        drop(leases);

        let mut calls = std::mem::take(&mut self.calls);
        calls.append(&mut self.sends);
        let waiting = async {
            for call in calls {
                if let Err(error) = call.await {
                    assert!(error.is_cancelled(), "a call panicked");
                }
            }
        };
        let ended = self.while_reading(timeout(CALL, waiting)).await;
        assert!(ended.is_ok(), "a call never ended");
        self.while_reading(sleep(REST)).await;
        self.look();
        for Node { pool, .. } in &self.nodes {
            let seen = pool.snapshot();
            let sessions = seen.sessions.len();
            let idle = |used: LimitUse| used.held == 0;
            assert_eq!(pool.state().sessions.slots.len(), sessions, "an entry without a session");
            assert_eq!(usize::try_from(seen.limits.sessions.held), Ok(sessions), "room is lost");
            assert!(seen.dials.is_empty() && idle(seen.limits.dials), "a dial is left");
            assert!(idle(seen.limits.queued_dials), "a queued dial is left");
            assert!(idle(seen.limits.draining), "a session drains for ever");
            assert!(idle(seen.limits.pending_handshakes), "a handshake is left");
            assert!(idle(seen.limits.discarding), "a stranger is left");
            assert!(seen.sessions.iter().all(|session| session.leases == 0), "a lease is left");
        }

        let pools: Vec<Pool> = self.nodes.iter().map(|node| node.pool.clone()).collect();
        let drains = async {
            futures_util::future::join_all(pools.iter().map(|pool| pool.drain(DRAIN))).await
        };
        let drained = self.while_reading(timeout(DRAIN + AFTER_DRAIN, drains)).await;
        assert!(drained.is_ok(), "a drain never ended");
        self.account().await;
        self.net.end();
        self.received.len()
    }

    /// Runs `work` while all inboxes are read.
    async fn while_reading<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            for node in 0..NODES {
                // Polled anew each time: an inbox that has ended says so at once, and wakes nobody.
                loop {
                    let next = pin!(self.nodes[node].inbox.recv()).poll(cx);
                    let Poll::Ready(Some(message)) = next else { break };
                    self.came(node, message);
                }
            }
            work.as_mut().poll(cx)
        })
        .await
    }

    /// After the end: nothing is held, and the reports are true.
    async fn account(&mut self) {
        let mut totals = [SessionReport::default(); NODES];
        for (node, total) in totals.iter_mut().enumerate() {
            while let Some(message) = self.nodes[node].inbox.recv().await {
                self.came(node, message);
            }
            let events = &mut self.nodes[node].events;
            let (mut opened, mut closed, mut carried, mut given_up) = (0, 0, 0, 0);
            while let Some(event) = events.recv().await {
                match event.expect("no event is lost") {
                    PoolEvent::Opened { .. } => opened += 1,
                    PoolEvent::Closed { reason, report, .. } => {
                        closed += 1;
                        assert_ne!(reason, CloseReason::Internal);
                        assert_eq!(
                            report.accepted + report.carried,
                            report.delivered + report.unknown + report.unsent + report.expired
                        );
                        *total += report;
                    }
                    PoolEvent::CarriedOver { messages, .. } => carried += messages,
                    PoolEvent::Unsent { messages, .. } => given_up += messages,
                    _ => {}
                }
            }
            assert_eq!(opened, closed, "a session that opened has closed");
            assert_eq!(total.carried, carried, "what was carried over was told");
            assert_eq!(total.unsent, carried + given_up, "what was left was carried over, or told");
            let pool = &self.nodes[node].pool;
            let limits = pool.snapshot().limits;
            assert_eq!(pool.state().sessions.slots.len(), 0);
            for used in [
                limits.sessions,
                limits.inbound,
                limits.draining,
                limits.dials,
                limits.queued_dials,
                limits.pending_handshakes,
                limits.discarding,
                limits.buffered_bytes,
                limits.inbox_bytes,
            ] {
                assert_eq!(used.held, 0, "{limits:?}");
            }
            let came = self.received.values().filter(|(to, _)| *to == node).count();
            assert_eq!(total.received, came as u64);
        }
        let shared = lock(&self.shared);
        for (node, total) in totals.iter().enumerate() {
            let from_here = |(from, _): &&(usize, PeerId)| *from == node;
            let sent = shared.accepted.values().filter(|(from, ..)| *from == node).count() as u64;
            // Those in doubt may have found a session whose verdict came after their callers had gone.
            let in_doubt = shared.in_doubt.values().filter(from_here).count() as u64;
            let is_reported = (sent..=sent + in_doubt).contains(&total.accepted);
            assert!(is_reported, "{sent} accepted, {in_doubt} in doubt: {total:?}");
            let name = IDENTITIES[node].peer_id();
            let came = || self.received.iter().filter(|(_, (_, from))| *from == name);
            let there = came().count() as u64;
            let known = came().filter(|(n, _)| !shared.in_doubt.contains_key(n)).count() as u64;
            assert!(total.delivered <= there && known <= sent, "{total:?}, {there} came");
        }
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Keeps a lease for later operations.
fn keep(shared: &Mutex<Shared>, node: usize, lease: Lease) {
    let mut shared = lock(shared);
    if !shared.closing {
        shared.leases.push((node, lease));
        return;
    }
    drop(shared);
    drop(lease);
}

/// Takes one of the leases in hand.
fn take(shared: &Mutex<Shared>, who: u8) -> Option<(usize, Lease)> {
    let leases = &mut lock(shared).leases;
    (!leases.is_empty()).then(|| leases.swap_remove(usize::from(who) % leases.len()))
}

/// A message with a number of its own, which counts as accepted.
fn number(
    shared: &Mutex<Shared>,
    from: usize,
    to: PeerId,
    length: usize,
    at_once: bool,
) -> (u64, Bytes) {
    let mut shared = lock(shared);
    let number = shared.next_message;
    shared.next_message += 1;
    shared.accepted.insert(number, (from, to, at_once));
    let mut body = BytesMut::with_capacity(length.max(8));
    body.put_u64(number);
    body.resize(length.max(8), 0);
    (number, body.freeze())
}

/// Offers a message to a lease's session.
fn offer(shared: &Mutex<Shared>, from: usize, lease: &Lease, length: usize) {
    let (number, message) = number(shared, from, lease.peer(), length, true);
    if lease.try_send(message).is_err() {
        lock(shared).accepted.remove(&number);
    }
}
