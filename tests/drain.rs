//! The end of a pool: what a drain promises, what a close cuts, and that nothing is left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use noise_pool::error::{
    AdoptError, CloseReason, DialError, ListenError, PingError, RejectReason, Retry, SendErrorKind,
};
use noise_pool::event::{Events, PoolEvent};
use noise_pool::io::BoxFuture;
use noise_pool::snapshot::{DialPhase, SessionReport, SessionState};
use noise_pool::{
    Candidate, CloseMode, Config, Disconnect, DrainReport, Hooks, Identity, Inbox, Lease, PeerId,
    Pool, Role, Target,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use support::net::gate::Way;
use support::net::{Line, Net};
use support::{Node, alive_tasks, confirmed, identity, soon, unconfirmed, until};

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3600);

fn bytes(n: u32) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

/// A message of an I2P tunnel's size, with a number.
fn tunnel_message(n: u32) -> Bytes {
    let mut body = vec![0; 1028];
    body[..4].copy_from_slice(&n.to_be_bytes());
    body.into()
}

fn number(body: &[u8]) -> u32 {
    u32::from_be_bytes(body[..4].try_into().unwrap())
}

/// All that an ended pool's inbox holds.
async fn rest(inbox: &mut Inbox) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some(message) = soon("a message, or the end", inbox.recv()).await {
        numbers.push(number(&message.body));
    }
    assert!(soon("the end again", inbox.recv()).await.is_none());
    numbers
}

/// What is in the inbox of a pool that lives on.
fn received(inbox: &mut Inbox) -> Vec<u32> {
    std::iter::from_fn(|| inbox.try_recv()).map(|message| number(&message.body)).collect()
}

/// In paused time only: lets all other tasks do what they can do without time passing.
async fn settle() {
    sleep(Duration::from_nanos(1)).await;
}

/// Why the sessions of a pool that has ended did, and what became of their messages.
async fn closed(mut events: Events) -> Vec<(CloseReason, SessionReport)> {
    let mut ends = Vec::new();
    while let Some(event) = soon("an event, or the end", events.recv()).await {
        if let PoolEvent::Closed { reason, report, .. } = event.unwrap() {
            ends.push((reason, report));
        }
    }
    ends
}

fn spawn_drain(pool: &Pool, deadline: Duration) -> JoinHandle<DrainReport> {
    let pool = pool.clone();
    tokio::spawn(async move { pool.drain(deadline).await })
}

fn spawn_dial(pool: &Pool, target: impl Into<Target>) -> JoinHandle<Result<Lease, DialError>> {
    let (pool, target) = (pool.clone(), target.into());
    tokio::spawn(async move { pool.get_or_dial(target).await })
}

/// Two pools on one in-memory network; virtual time passes only while nothing else can happen.
struct Pair {
    net: Net,
    a: Pool,
    a_inbox: Inbox,
    b: Pool,
    b_inbox: Inbox,
}

impl Pair {
    fn new(a_config: Config, b_config: Config) -> Self {
        let net = Net::default();
        let (a, a_inbox) = net.pool(identity(1), a_config);
        let (b, b_inbox) = net.pool(identity(2), b_config);
        Self { net, a, a_inbox, b, b_inbox }
    }

    async fn connected() -> (Self, Lease) {
        let pair = Self::new(Config::default(), Config::default());
        let lease = pair.lease().await;
        (pair, lease)
    }

    async fn lease(&self) -> Lease {
        soon("a lease", self.a.get_or_dial(self.b.id())).await.unwrap()
    }

    async fn back(&self) -> Lease {
        soon("the way back", self.b.get_or_dial(self.a.id())).await.unwrap()
    }
}

// ---- leases ------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_the_moment_when_the_last_lease_returns() {
    let (mut pair, first) = Pair::connected().await;
    let second = pair.lease().await;
    let drain = spawn_drain(&pair.a, LONG);
    sleep(10 * SECOND).await;
    assert!(pair.a.get(&pair.b.id()).is_none());
    assert_eq!(pair.a.snapshot().sessions[0].state, SessionState::Retired);
    first.send(bytes(1)).await.unwrap();
    drop(first);
    sleep(10 * SECOND).await;
    assert!(!drain.is_finished(), "one lease is out");
    second.send(bytes(2)).await.unwrap();
    drop(second);
    let report = soon("the drain", drain).await.unwrap();
    assert_eq!(report.elapsed, 20 * SECOND, "not a moment later");
    assert_eq!((report.sessions, report.leases_remaining), (1, 0));
    assert_eq!((report.messages.accepted, report.messages.delivered), (2, confirmed(2)));
    assert_eq!(received(&mut pair.b_inbox), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn at_its_deadline_a_drain_says_how_many_leases_remained() {
    let net = Net::default();
    let (a, _a_inbox) = net.pool(identity(1), Config::default());
    let (b, mut b_inbox) = net.pool(identity(2), Config::default());
    let (c, _c_inbox) = net.pool(identity(3), Config::default());
    let mut held = Vec::new();
    for peer in [b.id(), b.id(), b.id(), c.id(), c.id()] {
        held.push(soon("a lease", a.get_or_dial(peer)).await.unwrap());
    }
    let drain = spawn_drain(&a, 5 * SECOND);
    sleep(4 * SECOND).await;
    held[0].send(bytes(1)).await.unwrap();
    let report = soon("the drain", drain).await.unwrap();
    assert_eq!(report.elapsed, 5 * SECOND, "the rest takes no time");
    assert_eq!((report.sessions, report.leases_remaining), (2, 5));
    assert_eq!((report.messages.accepted, report.messages.delivered), (1, confirmed(1)));
    assert_eq!(received(&mut b_inbox), [1]);
    for lease in held {
        assert_eq!(lease.closed().await, CloseReason::Drained);
        let refused = lease.send(bytes(2)).await.unwrap_err();
        assert_eq!(refused.kind, SendErrorKind::Closed(CloseReason::Drained));
        assert_eq!(refused.message, bytes(2));
        assert_eq!(lease.ping().await, Err(PingError::Closed(CloseReason::Drained)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_leases_until_its_own_deadline_and_no_other() {
    let pair = Pair::new(Config::default(), Config::default().max_idle(None).max_age(None));
    let lease = pair.lease().await;
    let (pool, peer) = (pair.a.clone(), pair.b.id());
    let of_one = tokio::spawn(async move { pool.drain_peer(&peer, LONG).await });
    settle().await;
    let of_all = spawn_drain(&pair.a, LONG);
    // `retire_timeout` is for sessions that nobody drains.
    sleep(20 * 60 * SECOND).await;
    assert!(!of_one.is_finished() && !of_all.is_finished());
    lease.send(bytes(1)).await.unwrap();
    drop(lease);
    let (of_one, of_all) = (soon("one", of_one).await.unwrap(), soon("all", of_all).await.unwrap());
    assert_eq!((of_one.leases_remaining, of_one.messages.delivered), (0, confirmed(1)));
    assert_eq!((of_all.leases_remaining, of_all.messages.delivered), (0, confirmed(1)));
}

#[tokio::test(start_paused = true)]
async fn a_pool_with_more_sessions_than_may_drain_at_a_time_loses_nothing() {
    let net = Net::default();
    let (a, mut a_inbox) = net.pool(identity(1), Config::default().max_draining(3));
    let events = a.subscribe();
    let mut others = Vec::new();
    for n in 2..22 {
        let (pool, inbox) = net.pool(identity(n), Config::default());
        let lease = soon("a lease", a.get_or_dial(pool.id())).await.unwrap();
        let back = soon("a lease", pool.get_or_dial(a.id())).await.unwrap();
        for n in 0..50 {
            lease.send(tunnel_message(n)).await.unwrap();
            back.send(tunnel_message(n)).await.unwrap();
        }
        others.push((pool, inbox));
    }
    let report = soon("the drain", a.drain(LONG)).await;
    assert_eq!((report.sessions, report.messages.delivered), (20, confirmed(1_000)));
    assert_eq!((report.messages.unknown, report.messages.received), (unconfirmed(1_000), 1_000));
    for (_, inbox) in &mut others {
        assert_eq!(received(inbox).len(), 50);
    }
    assert_eq!(rest(&mut a_inbox).await.len(), 1_000);
    assert!(closed(events).await.into_iter().all(|(reason, _)| reason == CloseReason::Drained));
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_lease_keeps_its_messages_and_holds_a_drain_up_like_any_other() {
    let mut pair = Pair::new(Config::default(), Config::default());
    let mut alone = soon("all leases", pair.a.get_exclusive(pair.b.id())).await.unwrap();
    let back = pair.back().await;
    for n in 0..4 {
        back.send(bytes(n)).await.unwrap();
    }
    let drain = spawn_drain(&pair.a, LONG);
    sleep(SECOND).await;
    assert_eq!(number(&soon("a message", alone.recv()).await.unwrap()), 0);
    alone.send(bytes(9)).await.unwrap();
    drop(alone);
    let report = soon("the drain", drain).await.unwrap();
    assert_eq!((report.elapsed, report.leases_remaining), (SECOND, 0));
    assert_eq!((report.messages.delivered, report.messages.received), (confirmed(1), 4));
    assert_eq!(rest(&mut pair.a_inbox).await, [1, 2, 3], "what it left, in order");
    assert_eq!(received(&mut pair.b_inbox), [9]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_has_nothing_to_wait_for_takes_no_time() {
    let net = Net::default();
    let (a, _inbox) = net.pool(identity(1), Config::default());
    let mut others = Vec::new();
    for n in 2..22 {
        let (pool, inbox) = net.pool(identity(n), Config::default());
        let lease = soon("a lease", a.get_or_dial(pool.id())).await.unwrap();
        for n in 0..100 {
            lease.send(tunnel_message(n)).await.unwrap();
        }
        others.push((pool, inbox));
    }
    let report = soon("the drain", a.drain(LONG)).await;
    assert_eq!(report.elapsed, Duration::ZERO, "by events alone");
    assert_eq!((report.sessions, report.messages.delivered), (20, confirmed(2_000)));
    for (_, inbox) in &mut others {
        assert_eq!(received(inbox).len(), 100);
    }
    let (empty, _inbox) = Pool::builder(Identity::generate()).build().unwrap();
    assert_eq!(soon("the drain", empty.drain(LONG)).await, DrainReport::default());
}

#[tokio::test(start_paused = true)]
async fn a_drain_may_have_all_the_time_in_the_world() {
    let (pair, lease) = Pair::connected().await;
    let drain = spawn_drain(&pair.a, Duration::MAX);
    let one = pair.b.clone();
    let peer = pair.a.id();
    let of_one = tokio::spawn(async move { one.drain_peer(&peer, Duration::MAX).await });
    sleep(SECOND).await;
    drop(lease);
    assert_eq!(soon("the drain", drain).await.unwrap().leases_remaining, 0);
    assert_eq!(soon("the other", of_one).await.unwrap().leases_remaining, 0);
    let forever = Target::new(pair.a.id()).timeout(Duration::MAX);
    assert!(soon("a dial", pair.b.get_or_dial(forever.clone())).await.is_err());
    assert!(soon("a dial", pair.b.get_exclusive(forever)).await.is_err());
}

// ---- delivery ----------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_accepted_is_delivered_and_the_report_counts_what_the_peer_received() {
    const TASKS: u32 = 4;
    const EACH: u32 = 1_000;
    let mut a = Node::start(Config::default()).await;
    let b = Node::start(Config::default()).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (pool, target) = (a.pool.clone(), b.target());
            tokio::spawn(async move {
                let lease = pool.get_or_dial(target).await.unwrap();
                for n in 0..EACH {
                    lease.send(tunnel_message(task * EACH + n)).await.unwrap();
                }
            })
        })
        .collect();
    let back = soon("the way back", async {
        until("connected", || b.pool.contains(&a.id())).await;
        b.pool.get(&a.id()).unwrap()
    })
    .await;
    for n in 0..100 {
        back.send(tunnel_message(n)).await.unwrap();
    }
    for task in tasks {
        soon("it has sent", task).await.unwrap();
    }
    // Most of it is still queued, more than the peer's inbox takes from one session.
    let sent = u64::from(TASKS * EACH);
    let reading = tokio::spawn(async move {
        let mut b = b;
        let mut numbers = Vec::new();
        while numbers.len() < sent as usize {
            numbers.push(number(&b.inbox.recv().await.unwrap().body));
        }
        (b, numbers)
    });
    let report = soon("the drain", a.pool.drain(LONG)).await;
    assert_eq!((report.messages.accepted, report.messages.delivered), (sent, confirmed(sent)));
    assert_eq!((report.messages.unknown, report.messages.received), (unconfirmed(sent), 100));
    let (mut b, mut numbers) = soon("the reader", reading).await.unwrap();
    assert_eq!(received(&mut b.inbox), [], "and nothing twice");
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..TASKS * EACH), "each exactly once");
    assert!(rest(&mut a.inbox).await.into_iter().eq(0..100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_pools_that_drain_at_the_same_moment_lose_nothing() {
    for round in 0..30 {
        let mut a = Node::start(Config::default()).await;
        let mut b = Node::start(Config::default()).await;
        let lease = soon("a lease", a.pool.get_or_dial(b.target())).await.unwrap();
        until("connected", || b.pool.contains(&a.id())).await;
        let back = b.pool.get(&a.id()).unwrap();
        for n in 0..20 + round {
            lease.send(tunnel_message(n)).await.unwrap();
            back.send(tunnel_message(n)).await.unwrap();
        }
        drop((lease, back));
        let (a_events, b_events) = (a.pool.subscribe(), b.pool.subscribe());
        let both = async { tokio::join!(a.pool.drain(LONG), b.pool.drain(LONG)) };
        let (of_a, of_b) = soon("both drains", both).await;
        for (report, events, inbox) in
            [(of_a, a_events, &mut b.inbox), (of_b, b_events, &mut a.inbox)]
        {
            let ends = closed(events).await;
            assert_eq!(ends.len(), 1);
            let (messages, all) = (ends[0].1, u64::from(20 + round));
            assert_eq!((messages.delivered, messages.unknown), (confirmed(all), unconfirmed(all)));
            // On many threads one may be done before the other has begun.
            assert!(report.sessions == 0 || report.messages == messages, "{report:?}, {ends:?}");
            assert!(rest(inbox).await.into_iter().eq(0..20 + round));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_pools_that_drain_at_the_same_moment_need_no_time() {
    let (mut pair, lease) = Pair::connected().await;
    let back = pair.back().await;
    for n in 0..500 {
        lease.send(tunnel_message(n)).await.unwrap();
        back.send(tunnel_message(n)).await.unwrap();
    }
    drop((lease, back));
    let both = async { tokio::join!(pair.a.drain(LONG), pair.b.drain(LONG)) };
    let (of_a, of_b) = soon("both drains", both).await;
    assert_eq!((of_a.elapsed, of_b.elapsed), (Duration::ZERO, Duration::ZERO));
    assert_eq!(
        (of_a.messages.delivered, of_b.messages.delivered),
        (confirmed(500), confirmed(500))
    );
    assert!(rest(&mut pair.a_inbox).await.into_iter().eq(0..500));
    assert!(rest(&mut pair.b_inbox).await.into_iter().eq(0..500));
}

/// Bounds that twenty messages fill.
fn small_inbox() -> Config {
    Config::default().max_message_size(2_000).max_undelivered(8_000).inbox_bytes(16_000)
}

#[tokio::test(start_paused = true)]
async fn the_task_that_drains_may_be_the_one_that_reads_the_inbox() {
    let mut pair = Pair::new(small_inbox(), Config::default());
    drop(pair.lease().await);
    let back = pair.back().await;
    for n in 0..2_000 {
        back.send(tunnel_message(n)).await.unwrap();
    }
    settle().await;
    let held = pair.a.snapshot().limits.inbox_bytes.held;
    assert!(held > 0 && held <= 16_000, "the inbox is full: {held}");
    let report = soon("the drain", pair.a.drain(LONG)).await;
    assert_eq!(report.elapsed, Duration::ZERO);
    assert_eq!(report.messages.received, 2_000);
    assert!(rest(&mut pair.a_inbox).await.into_iter().eq(0..2_000), "all, in order, then the end");
    assert!(matches!(soon("the end", back.closed()).await, CloseReason::Peer(_)));
}

#[tokio::test(start_paused = true)]
async fn many_peers_that_wait_for_a_full_inbox_are_all_read_out_by_a_drain() {
    let net = Net::default();
    let (a, mut a_inbox) = net.pool(identity(1), small_inbox());
    let mut others = Vec::new();
    for n in 2..12 {
        let (pool, inbox) = net.pool(identity(n), Config::default());
        let lease = soon("a lease", pool.get_or_dial(a.id())).await.unwrap();
        for n in 0..100 {
            lease.send(tunnel_message(n)).await.unwrap();
        }
        others.push((pool, inbox));
    }
    settle().await;
    let report = soon("the drain", a.drain(LONG)).await;
    assert_eq!((report.elapsed, report.messages.received), (Duration::ZERO, 1_000));
    assert_eq!(rest(&mut a_inbox).await.len(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_its_inbox_slowly_gets_all_before_the_drain_ends() {
    let mut pair = Pair::new(Config::default(), small_inbox());
    let lease = pair.lease().await;
    for n in 0..1_000 {
        lease.send(tunnel_message(n)).await.unwrap();
    }
    drop(lease);
    let drain = spawn_drain(&pair.a, LONG);
    for n in 0..1_000 {
        let message = soon("a message", pair.b_inbox.recv()).await.unwrap();
        assert_eq!(number(&message.body), n);
        sleep(Duration::from_millis(5)).await;
    }
    let report = soon("the drain", drain).await.unwrap();
    assert!(report.elapsed > 2 * SECOND, "it waited for the reader: {:?}", report.elapsed);
    assert_eq!(
        (report.messages.delivered, report.messages.unknown),
        (confirmed(1_000), unconfirmed(1_000))
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_bounds_the_drain_and_the_report_claims_nothing() {
    let mut pair = Pair::new(Config::default().drain_timeout(7 * SECOND), small_inbox());
    let lease = pair.lease().await;
    for n in 0..1_000 {
        lease.send(tunnel_message(n)).await.unwrap();
    }
    let mut events = pair.a.subscribe();
    drop(lease);
    let report = soon("the drain", pair.a.drain(LONG)).await;
    assert_eq!(report.elapsed, 7 * SECOND);
    assert_eq!((report.messages.accepted, report.messages.delivered), (1_000, 0));
    let (unknown, unsent) = (report.messages.unknown, report.messages.unsent);
    assert_eq!(unknown + unsent, 1_000, "the peer may have those that were written");
    assert!(unknown > 0 && unsent > 0, "{unknown} and {unsent}");
    match soon("its end", events.recv()).await.unwrap().unwrap() {
        PoolEvent::Closed { reason, .. } => assert_eq!(reason, CloseReason::DrainTimeout),
        other => panic!("{other:?}"),
    }
    assert!(!received(&mut pair.b_inbox).is_empty(), "what came is not taken back");
}

// ---- dials and waiters -------------------------------------------------------------------------

/// Hangs in the ready check of one peer.
struct Undecided(PeerId);

impl Hooks for Undecided {
    fn ready<'a>(&'a self, candidate: &'a Candidate) -> BoxFuture<'a, bool> {
        let hang = candidate.peer == self.0;
        Box::pin(async move { if hang { std::future::pending().await } else { true } })
    }
}

/// A pool with a dial in every phase, and those who wait for them.
struct Dialling {
    net: Net,
    pool: Pool,
    inbox: Inbox,
    committed: (Pool, Inbox),
    superseding: (Pool, Inbox),
    _others: Vec<(Pool, Inbox)>,
    waiters: Vec<JoinHandle<Result<Lease, DialError>>>,
}

impl Dialling {
    async fn start() -> Self {
        let mut identities: Vec<_> = (0..6).map(identity).collect();
        identities.sort_by_key(Identity::peer_id);
        // The smallest key: what it has committed is superseded by the peer's dial.
        let own = identities.remove(0);
        let ids: Vec<_> = identities.iter().map(Identity::peer_id).collect();
        let net = Net::default();
        let config = Config::default().max_concurrent_dials(5).hook_timeout(60 * SECOND);
        let (pool, inbox) = net.pool_with(own, config, Undecided(ids[2]));
        let mut others: Vec<_> =
            identities.into_iter().map(|other| net.pool(other, Config::default())).collect();
        net.never_resolve(ids[0]);
        net.default_line(Line::Gated);

        let mut waiters: Vec<_> = ids.iter().map(|peer| spawn_dial(&pool, *peer)).collect();
        // One that only connects holds its gate shut; the others come as far as they may.
        net.gate(pool.id(), ids[1], 0).await;
        for (n, frames) in [(2, 1), (3, 1), (4, 1)] {
            let gate = net.gate(pool.id(), ids[n], 0).await;
            gate.pass(Way::ToResponder, frames);
            gate.pass(Way::ToInitiator, frames);
        }
        // All places are taken: this one is queued.
        waiters.push(spawn_dial(&pool, Identity::generate().peer_id()));
        // More who wait for each of them.
        waiters.extend(ids.iter().map(|peer| spawn_dial(&pool, *peer)));
        net.gate(pool.id(), ids[3], 0).await.arrived(Way::ToResponder, 2).await;
        net.gate(pool.id(), ids[4], 0).await.arrived(Way::ToResponder, 2).await;

        let superseding = others.remove(4);
        let committed = others.remove(3);
        net.default_line(Line::Open);
        let back = soon("their dial", superseding.0.get_or_dial(pool.id())).await.unwrap();
        drop(back);
        settle().await;
        let mut phases: Vec<_> =
            pool.snapshot().dials.iter().map(|dial| (dial.phase, dial.waiters)).collect();
        phases.sort();
        assert_eq!(
            phases,
            [
                (DialPhase::Queued, 1),
                (DialPhase::Resolving, 2),
                (DialPhase::Connecting, 2),
                (DialPhase::Checking, 2),
                (DialPhase::Committed, 2),
                (DialPhase::Superseded, 0),
            ]
        );
        assert_eq!(pool.stats().inbound_rows.committed_larger, 1, "one is superseded");
        Self { net, pool, inbox, committed, superseding, _others: others, waiters }
    }

    /// Every waiter was told: those of the superseded dial got the session that won.
    async fn all_told(waiters: Vec<JoinHandle<Result<Lease, DialError>>>) {
        let mut sessions = 0;
        for waiter in waiters {
            match soon("a waiter is woken", waiter).await.unwrap() {
                Ok(_lease) => sessions += 1,
                Err(error) => {
                    assert!(matches!(error, DialError::PoolClosed), "{error:?}");
                    assert_eq!(error.retry(), Retry::Never);
                }
            }
        }
        assert_eq!(sessions, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_wakes_all_who_wait_for_dials_and_ends_when_no_verdict_comes() {
    let Dialling { pool, waiters, mut inbox, .. } = Dialling::start().await;
    let drain = spawn_drain(&pool, LONG);
    settle().await;
    for waiter in &waiters {
        assert!(waiter.is_finished(), "at once");
    }
    Dialling::all_told(waiters).await;
    let report = soon("the drain", drain).await.unwrap();
    assert!(report.elapsed <= 3 * SECOND, "verdict_timeout at most: {:?}", report.elapsed);
    assert_eq!(report.leases_remaining, 0);
    let snapshot = pool.snapshot();
    assert!(snapshot.sessions.is_empty() && snapshot.dials.is_empty());
    assert!(format!("{pool:?}").contains("slots: 0"), "{pool:?}");
    assert_eq!(rest(&mut inbox).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_committed_dial_that_is_accepted_during_a_drain_loses_no_message() {
    let Dialling { net, pool, waiters, mut inbox, committed, superseding, _others } =
        Dialling::start().await;
    let events = pool.subscribe();
    // The peer has something to say, and its own dial gets no further.
    net.never_resolve(pool.id());
    let sending = tokio::spawn({
        let (peer, own) = (committed.0.clone(), pool.id());
        async move {
            let lease = peer.get_or_dial(own).await.unwrap();
            (0..10).filter(|n| lease.try_send(bytes(*n)).is_ok()).count()
        }
    });
    settle().await;
    let drain = spawn_drain(&pool, LONG);
    settle().await;
    assert!(!drain.is_finished(), "verdicts are awaited");
    for peer in [&committed.0, &superseding.0] {
        net.gates(pool.id(), peer.id())[0].open_all();
    }
    Dialling::all_told(waiters).await;
    let report = soon("the drain", drain).await.unwrap();
    assert_eq!(soon("it has sent", sending).await.unwrap(), 10);
    assert!(rest(&mut inbox).await.into_iter().eq(0..10));
    assert_eq!(report.messages.received, 10);
    assert!(closed(events).await.into_iter().all(|(reason, _)| reason == CloseReason::Drained));
    assert!(report.elapsed < SECOND, "{:?}", report.elapsed);
}

#[tokio::test(start_paused = true)]
async fn a_close_wakes_all_who_wait_for_dials_and_awaits_no_verdict() {
    let Dialling { pool, waiters, mut inbox, .. } = Dialling::start().await;
    let began = Instant::now();
    soon("the close", pool.close()).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    Dialling::all_told(waiters).await;
    assert!(format!("{pool:?}").contains("slots: 0"), "{pool:?}");
    assert_eq!(rest(&mut inbox).await, []);
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_for_room_a_lease_or_the_queue_are_woken() {
    for close in [false, true] {
        let config = Config::default()
            .max_sessions(1)
            .max_inbound(0)
            .max_leases(NonZeroU32::new(1))
            .drain_timeout(5 * SECOND);
        let mut pair = Pair::new(config, Config::default());
        let (other, _inbox) = pair.net.pool(identity(3), Config::default());
        let lease = pair.lease().await;
        pair.net.gates(pair.a.id(), pair.b.id())[0].hold(Way::ToResponder);
        let for_room = spawn_dial(&pair.a, other.id());
        let for_a_lease = spawn_dial(&pair.a, pair.b.id());
        let (a, b) = (pair.a.clone(), pair.b.id());
        let for_all = tokio::spawn(async move { a.get_exclusive(b).await });
        let flood = tokio::spawn(async move {
            let big = Bytes::from(vec![7; 60_000]);
            loop {
                if let Err(error) = lease.send(big.clone()).await {
                    assert_eq!(error.message, big);
                    break error.kind;
                }
            }
        });
        settle().await;
        let why = if close {
            soon("the close", pair.a.close()).await;
            CloseReason::PoolClosed
        } else {
            let report = soon("the drain", pair.a.drain(SECOND)).await;
            assert_eq!(report.leases_remaining, 1);
            CloseReason::Drained
        };
        for waiter in [for_room, for_a_lease] {
            let error = soon("it is woken", waiter).await.unwrap().unwrap_err();
            assert!(matches!(error, DialError::PoolClosed), "{error:?}");
        }
        let error = soon("it is woken", for_all).await.unwrap().unwrap_err();
        assert!(matches!(error, DialError::PoolClosed), "{error:?}");
        let kind = soon("it is woken", flood).await.unwrap();
        assert!(
            kind == SendErrorKind::Retired(why) || kind == SendErrorKind::Closed(why),
            "{kind:?}"
        );
        assert_eq!(received(&mut pair.b_inbox), [], "it was held");
    }
}

// ---- again, and at the same time ---------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn closing_twice_and_draining_what_is_closed_is_fine() {
    let (mut pair, lease) = Pair::connected().await;
    let both = async { tokio::join!(pair.a.close(), pair.a.close()) };
    soon("both closes", both).await;
    soon("a third", pair.a.close()).await;
    let report = soon("a drain", pair.a.drain(LONG)).await;
    assert_eq!((report.elapsed, report.leases_remaining), (Duration::ZERO, 0));
    assert_eq!(lease.closed().await, CloseReason::PoolClosed);
    assert_eq!(rest(&mut pair.a_inbox).await, []);
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs frames of many messages")]
async fn the_inbox_of_a_closed_pool_ends_after_its_last_message_also_when_nobody_waits() {
    let mut pair = Pair::new(small_inbox(), Config::default());
    drop(pair.lease().await);
    let back = pair.back().await;
    for n in 0..100 {
        back.send(tunnel_message(n)).await.unwrap();
    }
    settle().await;
    let mut events = pair.a.subscribe();
    assert!(support::cancelled_after(1, pair.a.close()).await.is_none());
    // What had come and had found no room is there as well.
    let numbers = rest(&mut pair.a_inbox).await;
    assert!(numbers.len() > 15_000 / 1_092, "{}", numbers.len());
    assert!(numbers.iter().copied().eq(0..numbers.len() as u32));
    settle().await;
    assert!(pair.a_inbox.try_recv().is_none(), "the end was the end");
    while soon("the end of events", events.recv()).await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_close_ends_a_drain_that_waits_for_leases() {
    let (pair, lease) = Pair::connected().await;
    let drain = spawn_drain(&pair.a, LONG);
    sleep(3 * SECOND).await;
    soon("the close", pair.a.close()).await;
    let report = soon("the drain", drain).await.unwrap();
    assert_eq!(report.elapsed, 3 * SECOND);
    assert_eq!(report.sessions, 1);
    let refused = lease.send(bytes(1)).await.unwrap_err();
    assert_eq!(refused.kind, SendErrorKind::Closed(CloseReason::PoolClosed));
}

#[tokio::test(start_paused = true)]
async fn drains_at_the_same_time_end_together_and_agree() {
    let (pair, lease) = Pair::connected().await;
    lease.send(bytes(1)).await.unwrap();
    let first = spawn_drain(&pair.a, LONG);
    sleep(2 * SECOND).await;
    let second = spawn_drain(&pair.a, LONG);
    sleep(2 * SECOND).await;
    drop(lease);
    let first = soon("the first", first).await.unwrap();
    let second = soon("the second", second).await.unwrap();
    assert_eq!((first.elapsed, second.elapsed), (4 * SECOND, 2 * SECOND));
    assert_eq!((first.sessions, first.messages), (second.sessions, second.messages));
    assert_eq!(first.messages.delivered, confirmed(1));
    let third = soon("a third", pair.a.drain(LONG)).await;
    assert_eq!((third.elapsed, third.messages.delivered), (Duration::ZERO, confirmed(1)));
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_given_up_goes_on() {
    let (pair, lease) = Pair::connected().await;
    lease.send(bytes(1)).await.unwrap();
    assert!(support::cancelled_after(1, pair.a.drain(LONG)).await.is_none());
    assert!(matches!(
        soon("a dial", pair.a.get_or_dial(pair.b.id())).await,
        Err(DialError::PoolClosed)
    ));
    drop(lease);
    settle().await;
    assert!(pair.a.snapshot().sessions.is_empty(), "it drained by itself");
    let report = soon("the drain", pair.a.drain(LONG)).await;
    assert_eq!((report.elapsed, report.messages.delivered), (Duration::ZERO, confirmed(1)));
}

#[tokio::test]
async fn a_pool_that_has_ended_refuses_everything_and_says_so() {
    let node = Node::start(Config::default()).await;
    let other = Node::start(Config::default()).await;
    node.pool.keep(other.target());
    soon("a drain", node.pool.drain(LONG)).await;
    assert!(matches!(node.pool.get_or_dial(other.target()).await, Err(DialError::PoolClosed)));
    assert!(matches!(node.pool.get_exclusive(other.target()).await, Err(DialError::PoolClosed)));
    assert!(node.pool.send(other.target(), bytes(1)).await.is_err());
    assert!(matches!(node.pool.listen(node.address).await, Err(ListenError::PoolClosed)));
    for role in [Role::Responder, Role::Initiator { peer: other.id() }] {
        let (stream, _other_end) = tokio::io::duplex(1024);
        assert!(matches!(node.pool.adopt(stream, role).await, Err(AdoptError::PoolClosed)));
    }
    assert!(node.pool.get(&other.id()).is_none() && !node.pool.contains(&other.id()));
    assert!(node.pool.local_addrs().is_empty());
    // The address is free again.
    soon("a listener", other.pool.listen(node.address)).await.unwrap();
    // Kept peers are not dialled any more.
    node.pool.keep(other.target());
    assert!(node.pool.snapshot().dials.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_dials_a_pool_that_drains_has_no_session_and_may_come_back() {
    let (pair, lease) = Pair::connected().await;
    let (other, _inbox) = pair.net.pool(identity(3), Config::default());
    pair.net.default_line(Line::Gated);
    let dial = spawn_dial(&other, pair.a.id());
    let gate = pair.net.gate(other.id(), pair.a.id(), 0).await;
    gate.pass(Way::ToResponder, 1);
    gate.pass(Way::ToInitiator, 1);
    gate.arrived(Way::ToResponder, 2).await;
    let drain = spawn_drain(&pair.a, LONG);
    settle().await;
    gate.open_all();
    // In the handshake, or after it: no session, and no hang.
    let error = soon("an answer", dial).await.unwrap().unwrap_err();
    assert!(matches!(error.retry(), Retry::At(_)), "{error:?}");
    drop(lease);
    let report = soon("the drain", drain).await.unwrap();
    assert_eq!(report.sessions, 1);
    assert!(other.peers().is_empty());
}

/// Checks of peers that dial us take some seconds.
struct Thorough;

impl Hooks for Thorough {
    fn ready<'a>(&'a self, _candidate: &'a Candidate) -> BoxFuture<'a, bool> {
        Box::pin(async {
            sleep(2 * SECOND).await;
            true
        })
    }
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs refusals that say why")]
async fn who_has_shown_who_it_is_when_a_drain_begins_is_told_when_to_come_back() {
    let net = Net::default();
    let (host, _hosts_inbox) = net.pool_with(identity(1), Config::default(), Thorough);
    let (first, _firsts_inbox) = net.pool(identity(2), Config::default());
    let (late, _lates_inbox) = net.pool(identity(3), Config::default());
    drop(soon("a lease", first.get_or_dial(host.id())).await.unwrap());
    // The drain waits for it.
    let lease = host.get(&first.id()).unwrap();
    let began = Instant::now();
    let dial = spawn_dial(&late, host.id());
    sleep(SECOND).await;
    let drain = spawn_drain(&host, LONG);
    let error = soon("an answer", dial).await.unwrap().unwrap_err();
    assert_eq!(began.elapsed().as_secs(), 2, "once it is decided");
    let refused = DialError::Rejected { reason: RejectReason::Draining };
    assert_eq!(error.cause().to_string(), refused.to_string());
    let Retry::At(until) = error.retry() else { panic!("{error:?}") };
    assert!(until >= (began + 7 * SECOND).into_std(), "the host asked for five seconds");
    assert_eq!(host.stats().rejected_by_us.draining, 1);
    drop(lease);
    assert_eq!(soon("the drain", drain).await.unwrap().sessions, 1);
}

// ---- one peer ----------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn draining_one_peer_leaves_the_others_and_the_peer_may_come_back() {
    let net = Net::default();
    let (a, _a_inbox) = net.pool(identity(1), Config::default());
    let (b, mut b_inbox) = net.pool(identity(2), Config::default());
    let (c, _c_inbox) = net.pool(identity(3), Config::default());
    let lease = soon("a lease", a.get_or_dial(b.id())).await.unwrap();
    let other = soon("a lease", a.get_or_dial(c.id())).await.unwrap();
    let old = lease.session_id();
    for n in 0..50 {
        lease.send(bytes(n)).await.unwrap();
    }
    let (pool, peer) = (a.clone(), b.id());
    let drain = tokio::spawn(async move { pool.drain_peer(&peer, LONG).await });
    sleep(3 * SECOND).await;
    assert!(!drain.is_finished());
    drop(lease);
    let report = soon("the drain", drain).await.unwrap();
    assert_eq!((report.sessions, report.leases_remaining), (1, 0));
    assert_eq!((report.elapsed, report.messages.delivered), (3 * SECOND, confirmed(50)));
    assert_eq!(received(&mut b_inbox).len(), 50);
    assert!(a.get(&c.id()).is_some_and(|lease| lease.session_id() == other.session_id()));
    let again = soon("a lease", a.get_or_dial(b.id())).await.unwrap();
    assert_ne!(again.session_id(), old);

    let report = soon("a drain", a.drain_peer(&b.id(), SECOND)).await;
    assert_eq!((report.elapsed, report.leases_remaining), (SECOND, 1), "at the deadline");
    let nobody = soon("a drain", a.drain_peer(&identity(9).peer_id(), LONG)).await;
    assert_eq!(nobody, DrainReport::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_that_drains_fast_is_in_the_report_all_the_same() {
    let a = Node::start(Config::default()).await;
    let b = Node::start(Config::default()).await;
    for round in 0..200 {
        let lease = soon("a lease", a.pool.get_or_dial(b.target())).await.unwrap();
        lease.send(bytes(round)).await.unwrap();
        drop(lease);
        let report = soon("a drain", a.pool.drain_peer(&b.id(), LONG)).await;
        assert_eq!(
            (report.sessions, report.messages.delivered),
            (1, confirmed(1)),
            "round {round}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn draining_one_peer_waits_for_a_committed_dial_and_counts_older_sessions_too() {
    let patient = Config::default().max_idle(None).max_age(None);
    let mut pair = Pair::new(Config::default(), patient);
    let old = pair.lease().await;
    // Too old, but leased: it drains when the lease returns.
    old.send(bytes(1)).await.unwrap();
    sleep(31 * 60 * SECOND).await;
    assert!(old.is_retired() && pair.a.get(&pair.b.id()).is_none());
    pair.net.default_line(Line::Gated);
    let dial = spawn_dial(&pair.a, pair.b.id());
    let gate = pair.net.gate(pair.a.id(), pair.b.id(), 1).await;
    gate.pass(Way::ToResponder, 1);
    gate.pass(Way::ToInitiator, 1);
    gate.arrived(Way::ToResponder, 2).await;

    let (pool, peer) = (pair.a.clone(), pair.b.id());
    let drain = tokio::spawn(async move { pool.drain_peer(&peer, LONG).await });
    let error = soon("the waiter is told", dial).await.unwrap().unwrap_err();
    assert!(matches!(error, DialError::Disconnected), "{error:?}");
    sleep(SECOND).await;
    // The old session ends while the verdict is awaited.
    drop(old);
    sleep(SECOND).await;
    assert!(!drain.is_finished());
    gate.open_all();
    let report = soon("the drain", drain).await.unwrap();
    assert_eq!((report.sessions, report.elapsed), (2, 2 * SECOND));
    assert_eq!(report.messages.delivered, confirmed(1));
    assert_eq!(received(&mut pair.b_inbox), [1]);
    assert!(pair.a.snapshot().sessions.is_empty());
}

// ---- disconnect --------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_gentle_disconnect_delivers_and_a_sudden_one_cuts() {
    for mode in [CloseMode::Drain, CloseMode::Now] {
        let (mut pair, lease) = Pair::connected().await;
        let mut events = pair.a.subscribe();
        let back = pair.back().await;
        for n in 0..20 {
            lease.send(bytes(n)).await.unwrap();
            back.send(bytes(n)).await.unwrap();
        }
        assert!(pair.a.disconnect(&pair.b.id(), Disconnect::new(mode)));
        assert!(!pair.a.contains(&pair.b.id()));
        assert!(!pair.a.disconnect(&pair.b.id(), Disconnect::drain()), "there is nothing more");
        let refused = lease.send(bytes(99)).await.unwrap_err().kind;
        assert_eq!(lease.closed().await, CloseReason::Disconnected);
        let report = loop {
            match soon("its end", events.recv()).await.unwrap().unwrap() {
                PoolEvent::Closed { reason, report, .. } => {
                    assert_eq!(reason, CloseReason::Disconnected);
                    break report;
                }
                _ => continue,
            }
        };
        assert_eq!(report.accepted, 20);
        let why = soon("their end", back.closed()).await;
        match mode {
            CloseMode::Drain => {
                assert_eq!(refused, SendErrorKind::Retired(CloseReason::Disconnected));
                assert_eq!((report.delivered, report.received), (confirmed(20), 20));
                assert!(matches!(why, CloseReason::Peer(_)), "{why:?}");
                assert!(received(&mut pair.b_inbox).into_iter().eq(0..20));
                assert!(received(&mut pair.a_inbox).into_iter().eq(0..20));
            }
            CloseMode::Now => {
                assert_eq!(refused, SendErrorKind::Closed(CloseReason::Disconnected));
                assert_eq!((report.delivered, report.unknown + report.unsent), (0, 20));
                assert!(matches!(why, CloseReason::Truncated | CloseReason::Io(_)), "{why:?}");
            }
            other => panic!("{other:?} is not one of the two"),
        }
        // Not refused: it may come back at once.
        drop((lease, back));
        soon("a lease", pair.b.get_or_dial(pair.a.id())).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_sudden_disconnect_cuts_what_drains_already() {
    let (pair, lease) = Pair::connected().await;
    pair.net.gates(pair.a.id(), pair.b.id())[0].hold(Way::ToResponder);
    lease.send(bytes(1)).await.unwrap();
    pair.a.disconnect(&pair.b.id(), Disconnect::drain());
    sleep(SECOND).await;
    assert_eq!(pair.a.snapshot().sessions[0].state, SessionState::Draining);
    let began = Instant::now();
    pair.a.disconnect(&pair.b.id(), Disconnect::now());
    soon("its end", lease.closed()).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs refusals that say why")]
async fn a_peer_that_is_refused_for_a_time_neither_comes_nor_is_dialled_until_then() {
    let (pair, lease) = Pair::connected().await;
    drop(lease);
    pair.a.disconnect(&pair.b.id(), Disconnect::drain().refuse_for(60 * SECOND));
    let until = Instant::now() + 60 * SECOND;
    settle().await;
    let connects = pair.net.connects();
    let error = soon("a refusal", pair.a.get_or_dial(pair.b.id())).await.unwrap_err();
    assert!(matches!(error.cause(), DialError::Disconnected), "{error:?}");
    assert_eq!(error.retry(), Retry::At(until.into_std()));
    assert_eq!(pair.net.connects(), connects, "nobody is dialled");
    let error = soon("a refusal", pair.b.get_or_dial(pair.a.id())).await.unwrap_err();
    let reason = RejectReason::Refused;
    assert!(
        matches!(error.cause(), DialError::Rejected { reason: r } if *r == reason),
        "{error:?}"
    );
    sleep(61 * SECOND).await;
    soon("a lease", pair.a.get_or_dial(pair.b.id())).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_stops_an_open_dial_and_drains_a_committed_one() {
    for committed in [false, true] {
        let mut pair = Pair::new(Config::default(), Config::default());
        pair.net.default_line(Line::Gated);
        let dial = spawn_dial(&pair.a, pair.b.id());
        let gate = pair.net.gate(pair.a.id(), pair.b.id(), 0).await;
        gate.arrived(Way::ToResponder, 1).await;
        if committed {
            gate.pass(Way::ToResponder, 1);
            gate.pass(Way::ToInitiator, 1);
            gate.arrived(Way::ToResponder, 2).await;
        }
        assert!(pair.a.disconnect(&pair.b.id(), Disconnect::drain()));
        let error = soon("the waiter is told", dial).await.unwrap().unwrap_err();
        assert!(matches!(error, DialError::Disconnected), "{error:?}");
        gate.open_all();
        settle().await;
        assert_eq!(pair.a.stats().opened, u64::from(committed), "a session, to be drained");
        assert!(pair.a.snapshot().sessions.is_empty() && pair.b.snapshot().sessions.is_empty());
        assert!(format!("{:?}", pair.a).contains("slots: 0"));
        assert_eq!(received(&mut pair.a_inbox), []);
    }
}

// ---- nothing is left ---------------------------------------------------------------------------

/// Everything that a pool can have alive.
struct Alive {
    pool: Pool,
    inbox: Inbox,
    lease: Lease,
    alone: noise_pool::ExclusiveLease,
    events: Events,
    peers: Vec<Node>,
    waiters: Vec<JoinHandle<Result<Lease, DialError>>>,
}

impl Alive {
    async fn start() -> Self {
        let Node { pool, inbox, address } = Node::start(Config::default()).await;
        let mut peers = Vec::new();
        for _ in 0..4 {
            peers.push(Node::start(Config::default()).await);
        }
        let lease = pool.get_or_dial(peers[0].target()).await.unwrap();
        let alone = pool.get_exclusive(peers[1].target()).await.unwrap();
        let at = Target::new(pool.id()).address(address);
        peers[2].pool.send(at, bytes(1)).await.unwrap();
        until("it is there", || pool.snapshot().limits.inbox_bytes.held > 0).await;
        pool.keep(peers[3].target());
        until("it is kept", || pool.contains(&peers[3].id())).await;
        // A peer that is not there, and one that never answers.
        let closed = Node::start(Config::default()).await;
        pool.keep(closed.target());
        closed.pool.close().await;
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = Target::new(Identity::generate().peer_id());
        let target = nobody.address(silent.local_addr().unwrap());
        let waiters = vec![spawn_dial_weak(&pool, target.clone())];
        // Strangers in the handshake, and one that is read and discarded.
        let silent = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut wrong = tokio::net::TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut wrong, &[0; 200]).await.unwrap();
        until("they are there", || {
            let limits = pool.snapshot().limits;
            limits.pending_handshakes.held > 0 && limits.discarding.held > 0
        })
        .await;
        // They stay open while the pool ends.
        std::mem::forget((silent.into_std().unwrap(), wrong.into_std().unwrap()));
        let events = pool.subscribe();
        Self { pool, inbox, lease, alone, events, peers, waiters }
    }
}

/// A dial whose waiter does not keep the pool alive.
fn spawn_dial_weak(pool: &Pool, target: Target) -> JoinHandle<Result<Lease, DialError>> {
    let pool = pool.clone();
    tokio::spawn(async move {
        // Only the dial goes on; the caller and its handle leave.
        let dial = pool.get_or_dial(target.timeout(LONG));
        support::cancelled_after(1, dial).await;
        Err(DialError::Deadline)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_outlives_the_pool_and_leases_that_do_say_so() {
    for ending in ["drain", "close", "drop"] {
        let before = alive_tasks();
        let alive = soon("a pool at work", Alive::start()).await;
        let Alive { pool, mut inbox, lease, mut alone, mut events, peers, waiters } = alive;
        assert!(alive_tasks() > before);
        match ending {
            "drain" => {
                let report = soon(ending, pool.drain(Duration::ZERO)).await;
                assert_eq!(report.leases_remaining, 2);
            }
            "close" => soon(ending, pool.close()).await,
            _ => drop(pool),
        }
        let why = match ending {
            "drain" => CloseReason::Drained,
            _ => CloseReason::PoolClosed,
        };
        for lease in [&lease, &*alone] {
            assert_eq!(soon("the end", lease.closed()).await, why, "{ending}");
            let kind = lease.send(bytes(1)).await.unwrap_err().kind;
            assert_eq!(kind, SendErrorKind::Closed(why), "{ending}");
            assert_eq!(soon("ping", lease.ping()).await, Err(PingError::Closed(why)));
        }
        assert_eq!(soon("the end", alone.recv()).await, None);
        assert_eq!(rest(&mut inbox).await, [1], "{ending}: what was there, then the end");
        while soon("the end of events", events.recv()).await.is_some() {}
        for waiter in waiters {
            assert!(soon("a waiter", waiter).await.unwrap().is_err());
        }
        for node in &peers {
            soon("another pool", node.pool.close()).await;
        }
        until("all tasks have ended", || alive_tasks() == before).await;
        drop((lease, alone));
    }
}

#[tokio::test]
async fn when_close_returns_no_task_of_the_pool_is_left() {
    let before = alive_tasks();
    let (pool, inbox) = Pool::builder(Identity::generate()).build().unwrap();
    pool.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..200 {
        let target = Target::new(Identity::generate().peer_id());
        let target = target.address(silent.local_addr().unwrap());
        support::cancelled_after(1, pool.get_or_dial(target.clone())).await;
        pool.keep(target);
    }
    until("connections are under way", || {
        pool.snapshot().dials.iter().any(|dial| dial.phase == DialPhase::Connecting)
    })
    .await;
    soon("the close", pool.close()).await;
    assert_eq!(alive_tasks(), before);
    drop((pool, inbox));
}

#[tokio::test]
async fn a_pool_may_be_dropped_outside_its_runtime() {
    let (pool, mut inbox, lease, node) = {
        let node = Node::start(Config::default()).await;
        let (pool, inbox) = Pool::builder(Identity::generate()).build().unwrap();
        let lease = pool.get_or_dial(node.target()).await.unwrap();
        (pool, inbox, lease, node)
    };
    std::thread::spawn(move || drop(pool)).join().unwrap();
    assert_eq!(soon("the end", lease.closed()).await, CloseReason::PoolClosed);
    assert!(soon("the end", inbox.recv()).await.is_none());
    drop(node);
}

#[test]
fn leases_that_outlive_the_runtime_give_errors() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (pool, mut inbox, lease, _node) = runtime.block_on(async {
        let node = Node::start(Config::default()).await;
        let (pool, inbox) = Pool::builder(Identity::generate()).build().unwrap();
        let lease = pool.get_or_dial(node.target()).await.unwrap();
        (pool, inbox, lease, node)
    });
    drop(runtime);
    let kind = lease.try_send(bytes(1)).unwrap_err().kind;
    assert_eq!(kind, SendErrorKind::Closed(CloseReason::PoolClosed));
    assert!(lease.is_retired() && pool.get(&lease.peer()).is_none());
    assert!(pool.snapshot().sessions.is_empty());
    drop((pool, lease));
    assert!(inbox.try_recv().is_none());
}
