//! Limits: none is ever passed, and whatever ends gives its room back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helper may panic")]

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use noise_pool::config::WhenFull;
use noise_pool::error::{AdoptError, CloseReason, DialError, Limit, RejectReason, Retry};
use noise_pool::event::PoolEvent;
use noise_pool::snapshot::DialPhase;
use noise_pool::{Config, Disconnect, Identity, Inbox, PeerId, Pool, Target};
use support::net::gate::{Gate, Way};
use support::net::{Line, Net};
use support::{at_rest, identity, ordered_identities, slots, soon, until};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::Barrier;
use tokio::time::Instant;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Failures are forgotten at once: these tests come back to the same peers.
fn forgetful() -> Config {
    Config::default().initial_backoff(MS).max_backoff(MS).max_refusal(MS)
}

/// Ends our side of a session without the peer noticing: the stream stands still.
async fn lose(net: &Net, pool: &Pool, peer: PeerId) {
    let both = [net.gates(pool.id(), peer), net.gates(peer, pool.id())].concat();
    both.iter().for_each(Gate::freeze);
    assert!(pool.disconnect(&peer, Disconnect::now()));
    until("our side has forgotten it", || pool.snapshot().sessions.is_empty()).await;
}

fn a_stranger() -> PeerId {
    Identity::generate().peer_id()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn crossing_dials_between_many_pools_never_pass_the_limit() {
    const POOLS: usize = 8;
    const TASKS: usize = 4;
    const LIMIT: usize = 3;
    let net = Net::default();
    let config = || forgetful().max_sessions(LIMIT).max_inbound(LIMIT - 1);
    let pools: Vec<(Pool, Inbox)> =
        (0..POOLS).map(|n| net.pool(identity(n as u8), config())).collect();
    let ids: Vec<PeerId> = pools.iter().map(|(pool, _)| pool.id()).collect();
    let together = Arc::new(Barrier::new(POOLS * TASKS));
    let tasks: Vec<_> = (0..POOLS * TASKS)
        .map(|n| {
            let (pool, ids, together) = (pools[n % POOLS].0.clone(), ids.clone(), together.clone());
            tokio::spawn(async move {
                let mut had = 0;
                for round in 0..8 {
                    together.wait().await;
                    let other = (n + 1 + (n / POOLS + round) % (POOLS - 1)) % POOLS;
                    let target = Target::new(ids[other]).timeout(200 * MS);
                    if let Ok(lease) = pool.get_or_dial(target).await {
                        had += 1;
                        let _ = lease.try_send(Bytes::from_static(b"hello"));
                    }
                }
                had
            })
        })
        .collect();
    let mut had = 0;
    for task in tasks {
        had += soon("a task", task).await.unwrap();
    }
    assert!(had > POOLS, "only {had} leases were had");
    for (pool, _) in &pools {
        at_rest(pool).await;
        let limits = pool.snapshot().limits;
        assert!(limits.sessions.high_water <= LIMIT as u64, "{limits:?}");
        assert!(limits.inbound.high_water < LIMIT as u64, "{limits:?}");
        assert!(slots(pool) <= LIMIT);
    }
}

#[tokio::test(start_paused = true)]
async fn at_limit_one_two_pools_that_dial_each_other_share_one_session() {
    for committed in [false, true] {
        for _ in 0..20 {
            let net = Net::default();
            let (small, large) = ordered_identities();
            let (a, _in_a) = net.pool(small, forgetful().max_sessions(1));
            let (b, _in_b) = net.pool(large, forgetful().max_sessions(1));
            net.default_line(Line::Gated);
            let dial = |from: &Pool, to: &Pool| {
                let (from, to) = (from.clone(), to.id());
                tokio::spawn(async move { from.get_or_dial(to).await })
            };
            let (from_a, from_b) = (dial(&a, &b), dial(&b, &a));
            let gates = [net.gate(a.id(), b.id(), 0).await, net.gate(b.id(), a.id(), 0).await];
            if committed {
                for gate in &gates {
                    gate.pass(Way::ToResponder, 1);
                    gate.pass(Way::ToInitiator, 1);
                }
                for gate in &gates {
                    soon("message 3", gate.arrived(Way::ToResponder, 2)).await;
                }
            }
            gates.iter().for_each(Gate::open_all);
            let at_a = soon("a's lease", from_a).await.unwrap().unwrap();
            let at_b = soon("b's lease", from_b).await.unwrap().unwrap();
            assert_eq!(at_a.handshake_hash(), at_b.handshake_hash());
            drop((at_a, at_b));
            for pool in [&a, &b] {
                at_rest(pool).await;
                let snapshot = pool.snapshot();
                assert_eq!(snapshot.limits.sessions.high_water, 1);
                assert_eq!(snapshot.sessions.len(), 1);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn at_limit_one_a_peer_that_restarts_takes_its_own_old_place() {
    let net = Net::default();
    let (a, _in_a) = net.pool(identity(1), forgetful().max_sessions(1));
    for round in 0..20 {
        // The old process is gone without a word: its streams stand still.
        net.gates(identity(2).peer_id(), a.id()).iter().for_each(Gate::freeze);
        let (b, _in_b) = net.pool(identity(2), forgetful());
        let lease = soon("the restarted peer's session", b.get_or_dial(a.id())).await.unwrap();
        let ours = soon("our lease", a.get_or_dial(b.id())).await.unwrap();
        assert_eq!(ours.handshake_hash(), lease.handshake_hash());
        assert_eq!(a.stats().superseded, round);
    }
    at_rest_but_draining(&a).await;
    let limits = a.snapshot().limits;
    assert_eq!((limits.sessions.high_water, limits.inbound.high_water), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn at_limit_one_a_peer_that_dials_again_takes_its_own_old_place() {
    let net = Net::default();
    let (a, _in_a) = net.pool(identity(1), forgetful().max_sessions(1));
    let (b, _in_b) = net.pool(identity(2), forgetful());
    // Ours first, so that a session of our own choice is replaced too.
    drop(soon("our dial", a.get_or_dial(b.id())).await.unwrap());
    for round in 1..=20 {
        lose(&net, &b, a.id()).await;
        let lease = soon("the peer's new session", b.get_or_dial(a.id())).await.unwrap();
        let ours = soon("our lease", a.get_or_dial(b.id())).await.unwrap();
        assert_eq!(ours.handshake_hash(), lease.handshake_hash());
        assert_eq!(a.stats().superseded, round);
    }
    at_rest_but_draining(&a).await;
    assert_eq!(a.snapshot().limits.sessions.high_water, 1);
}

/// One session in the map, and nothing else but what still drains.
async fn at_rest_but_draining(pool: &Pool) {
    until("nothing is under way", || {
        let snapshot = pool.snapshot();
        snapshot.dials.is_empty() && snapshot.limits.sessions.held == 1 && slots(pool) == 1
    })
    .await;
}

/// A dial of each kind that cannot end well, at a pool with room for one.
async fn unlucky(pool: &Pool, kind: usize) {
    let peer = a_stranger();
    type Silent = io::Result<DuplexStream>;
    let panicked = |error: DialError| matches!(error.cause(), DialError::Panicked);
    match kind {
        0 => {
            let refused = || async { Silent::Err(io::ErrorKind::ConnectionRefused.into()) };
            let error = pool.get_or_dial_with(peer, refused).await.unwrap_err();
            assert!(matches!(error.cause(), DialError::Open { .. }), "{error:?}");
        }
        1 => {
            let open = || std::future::poll_fn(|_| -> Poll<Silent> { panic!("in the future") });
            assert!(panicked(pool.get_or_dial_with(peer, open).await.unwrap_err()));
        }
        2 => {
            let open = || -> std::future::Ready<Silent> { panic!("before the future") };
            assert!(panicked(pool.get_or_dial_with(peer, open).await.unwrap_err()));
        }
        3 => {
            // Dropped before its task has run.
            let mut dial = Box::pin(pool.get_or_dial_with(peer, std::future::pending::<Silent>));
            assert!(futures_util::poll!(&mut dial).is_pending());
        }
        4 => {
            // Dropped while the peer is silent.
            let (near, far) = duplex(1 << 10);
            let mut dial = Box::pin(pool.get_or_dial_with(peer, || async { Ok(near) }));
            assert!(futures_util::poll!(&mut dial).is_pending());
            until("message 1 is out", || {
                pool.snapshot().dials.iter().any(|dial| dial.phase == DialPhase::Connecting)
            })
            .await;
            drop((dial, far));
        }
        5 => {
            let (near, _far) = duplex(1 << 10);
            let target = Target::new(peer).timeout(20 * MS);
            let error = pool.get_or_dial_with(target, || async { Ok(near) }).await.unwrap_err();
            assert!(matches!(error, DialError::Deadline), "{error:?}");
        }
        6 => {
            let (near, far) = duplex(1 << 10);
            drop(far);
            let error = pool.get_or_dial_with(peer, || async { Ok(near) }).await.unwrap_err();
            assert!(matches!(error.cause(), DialError::Handshake(_)), "{error:?}");
        }
        _ => {
            let (near, _far) = duplex(1 << 10);
            let dialling = pool.clone();
            let dial = tokio::spawn(async move {
                dialling.get_or_dial_with(peer, || async { Ok(near) }).await.map(drop)
            });
            until("it has begun", || slots(pool) == 1).await;
            assert!(pool.disconnect(&peer, Disconnect::drain()));
            let error = dial.await.unwrap().unwrap_err();
            assert!(matches!(error, DialError::Disconnected), "{error:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_failed_panicked_and_cancelled_dials_leave_the_only_room_free() {
    let net = Net::default();
    let (pool, _inbox) = net.pool(identity(1), Config::default().max_sessions(1));
    let (peer, _peers_inbox) = net.pool(identity(2), Config::default());
    for n in 0..100 {
        soon("an unlucky dial", unlucky(&pool, n % 8)).await;
    }
    at_rest(&pool).await;
    let lease = soon("the lucky dial", pool.get_or_dial(peer.id())).await.unwrap();
    let snapshot = pool.snapshot();
    assert_eq!(snapshot.limits.sessions.high_water, 1);
    assert_eq!((slots(&pool), snapshot.limits.sessions.held), (1, 1));
    drop(lease);
    let (stats, failures) = (pool.stats(), pool.stats().dial_failures);
    assert_eq!((stats.dials, stats.dials_succeeded), (101, 1));
    let causes = [
        failures.connect,
        failures.panicked,
        failures.cancelled,
        failures.no_answer + failures.handshake,
        failures.disconnected,
    ];
    assert_eq!(causes.iter().sum::<u64>(), 100, "every dial ended in one way: {failures:?}");
    assert_eq!(failures.panicked, 26);
    assert_eq!(failures.cancelled, 37);
    assert_eq!(failures.disconnected, 12);
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_wait_is_told_which_limit_it_was() {
    let net = Net::default();
    let config = Config::default().max_sessions(1).when_full(WhenFull::Fail);
    let (pool, _inbox) = net.pool(identity(1), config);
    let (peer, _peers_inbox) = net.pool(identity(2), Config::default());
    let lease = pool.get_or_dial(peer.id()).await.unwrap();
    let mut events = pool.subscribe();
    let error = pool.get_or_dial(a_stranger()).await.unwrap_err();
    assert!(matches!(error, DialError::Limit(Limit::Sessions)), "{error:?}");
    assert_eq!(error.retry(), Retry::Now);
    let mut told = false;
    while let Some(Ok(event)) = events.try_recv() {
        told |= matches!(event, PoolEvent::LimitHit { limit: Limit::Sessions, .. });
    }
    assert!(told);
    assert_eq!(pool.stats().dial_failures.limit, 1);
    assert_eq!(pool.stats().waits, 0);
    drop(lease);
    at_rest(&pool).await;
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs refusals that say why")]
async fn a_full_peer_says_so_and_when_to_come_back() {
    let net = Net::default();
    let (full, _inbox) = net.pool(identity(1), Config::default().max_sessions(4).max_inbound(1));
    let (first, _in_first) = net.pool(identity(2), Config::default());
    let (second, _in_second) = net.pool(identity(3), Config::default());
    drop(first.get_or_dial(full.id()).await.unwrap());
    let busy = full.get(&first.id()).unwrap();

    let began = Instant::now();
    let error = second.get_or_dial(full.id()).await.unwrap_err();
    let refused = DialError::Rejected { reason: RejectReason::Full };
    assert_eq!(error.cause().to_string(), refused.to_string());
    let Retry::At(until) = error.retry() else { panic!("{error:?}") };
    assert!(until - began.into_std() >= 5 * SECOND, "the peer asked for time");
    let connects = net.connects();
    assert!(second.get_or_dial(full.id()).await.is_err());
    assert_eq!(net.connects(), connects, "no connection within the backoff");
    assert_eq!(full.stats().rejected_by_us.full, 1);
    assert_eq!(second.stats().rejected_by_peer.full, 1);
    assert_eq!(full.snapshot().limits.inbound.high_water, 1);

    // Our own dials have the rest of the room; the share is of inbound sessions.
    let (third, _in_third) = net.pool(identity(4), Config::default());
    drop(full.get_or_dial(third.id()).await.unwrap());
    drop(busy);
    tokio::time::sleep_until(until.into()).await;
    drop(soon("the second try", second.get_or_dial(full.id())).await.unwrap());
    assert!(full.contains(&third.id()), "an inbound newcomer does not displace our own choice");
    assert_eq!(full.snapshot().limits.inbound.high_water, 1);
    at_rest(&full).await;
}

#[tokio::test(start_paused = true)]
async fn an_adopted_stream_meets_the_same_limits() {
    let net = Net::default();
    let (full, _inbox) = net.pool(identity(1), Config::default().max_sessions(1));
    let (first, _in_first) = net.pool(identity(2), Config::default());
    let (second, _in_second) = net.pool(identity(3), Config::default());
    let _busy = full.get_or_dial(first.id()).await.unwrap();
    let (near, far) = duplex(1 << 16);
    let dial = tokio::spawn({
        let (second, full) = (second.clone(), full.id());
        async move { second.adopt(near, noise_pool::Role::Initiator { peer: full }).await }
    });
    let error = soon("the responder", full.adopt(far, noise_pool::Role::Responder)).await;
    match error {
        Err(AdoptError::Rejected { peer, reason: RejectReason::Full }) => {
            assert_eq!(peer, second.id());
        }
        other => panic!("{other:?}"),
    }
    assert!(soon("the initiator", dial).await.unwrap().is_err());
    assert_eq!(full.snapshot().limits.sessions.high_water, 1);
}

#[tokio::test(start_paused = true)]
async fn dials_take_turns_and_a_full_queue_says_no() {
    const TURNS: usize = 2;
    const QUEUE: usize = 3;
    let net = Net::default();
    let config = Config::default()
        .max_concurrent_dials(TURNS)
        .max_queued_dials(QUEUE)
        .dial_timeout(20 * SECOND);
    let (pool, _inbox) = net.pool(identity(1), config);
    let peers: Vec<_> = (2..8).map(|n| net.pool(identity(n), Config::default())).collect();
    net.default_line(Line::Gated);
    // All at once, before any dial's task has run.
    let mut dials: Vec<_> = peers.iter().map(|(p, _)| Box::pin(pool.get_or_dial(p.id()))).collect();
    for dial in &mut dials[..TURNS + QUEUE] {
        assert!(futures_util::poll!(dial).is_pending());
    }
    match futures_util::poll!(&mut dials[TURNS + QUEUE]) {
        Poll::Ready(Err(DialError::Limit(Limit::QueuedDials))) => {}
        other => panic!("{other:?}"),
    }
    until("the first have their turn", || net.connects() == TURNS as u64).await;
    let limits = pool.snapshot().limits;
    assert_eq!((limits.dials.held, limits.queued_dials.held), (TURNS as u64, QUEUE as u64));

    net.default_line(Line::Open);
    for (peer, _) in &peers[..TURNS] {
        net.gate(pool.id(), peer.id(), 0).await.open_all();
    }
    dials.truncate(TURNS + QUEUE);
    for dial in dials {
        drop(soon("a dial in its turn", dial).await.unwrap());
    }
    let limits = pool.snapshot().limits;
    assert_eq!((limits.dials.high_water, limits.queued_dials.high_water), (2, 3));
    at_rest(&pool).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_queue_a_dial_begins_while_there_are_turns() {
    let net = Net::default();
    let config = Config::default().max_concurrent_dials(1).max_queued_dials(0);
    let (pool, _inbox) = net.pool(identity(1), config);
    let (peer, _peers_inbox) = net.pool(identity(2), Config::default());
    net.default_line(Line::Gated);
    let mut dial = Box::pin(pool.get_or_dial(peer.id()));
    assert!(futures_util::poll!(&mut dial).is_pending());
    let error = pool.get_or_dial(a_stranger()).await.unwrap_err();
    assert!(matches!(error, DialError::Limit(Limit::QueuedDials)), "{error:?}");
    net.gate(pool.id(), peer.id(), 0).await.open_all();
    drop(soon("the only dial", dial).await.unwrap());
}

/// Sessions that drain and cannot end, since their streams stand still.
async fn stuck_in_drain(net: &Net, pool: &Pool, peer: PeerId) {
    drop(soon("a dial", pool.get_or_dial(peer)).await.unwrap());
    net.gates(pool.id(), peer).iter().for_each(Gate::freeze);
    assert!(pool.disconnect(&peer, Disconnect::drain()));
}

#[tokio::test(start_paused = true)]
async fn the_session_that_drains_longest_is_cut_when_too_many_drain() {
    const MAX: usize = 3;
    let net = Net::default();
    let (pool, _inbox) = net.pool(identity(1), Config::default().max_draining(MAX));
    let peers: Vec<_> = (2..7).map(|n| net.pool(identity(n), Config::default())).collect();
    let mut events = pool.subscribe();
    for (peer, _) in &peers {
        stuck_in_drain(&net, &pool, peer.id()).await;
    }
    assert_eq!(cut_in_order(&mut events, 2).await, [peers[0].0.id(), peers[1].0.id()]);
    let draining = pool.snapshot().limits.draining;
    assert_eq!((draining.held, draining.high_water, draining.limit), (3, 3, MAX as u64));
    // The others end by their own bound, and nothing remains.
    tokio::time::sleep(11 * SECOND).await;
    at_rest(&pool).await;
    assert_eq!((slots(&pool), pool.snapshot().limits.draining.held), (0, 0));
    assert_eq!((pool.stats().opened, pool.stats().closed), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn one_peer_has_few_sessions_that_drain() {
    let net = Net::default();
    let (pool, _inbox) = net.pool(identity(1), Config::default());
    let (peer, _peers_inbox) = net.pool(identity(2), Config::default());
    for _ in 0..12 {
        stuck_in_drain(&net, &pool, peer.id()).await;
        assert!(pool.snapshot().limits.draining.held <= 4);
    }
    until("the rest is cut", || pool.stats().closed == 8).await;
}

/// Who was cut for others, in order, until `count` were.
async fn cut_in_order(events: &mut noise_pool::event::Events, count: usize) -> Vec<PeerId> {
    let mut cut = Vec::new();
    while cut.len() < count {
        if let Some(Ok(PoolEvent::Closed { peer, reason: CloseReason::DrainingFull, .. })) =
            soon("a session is cut", events.recv()).await
        {
            cut.push(peer);
        }
    }
    cut
}

/// An error of the application that looks at the pool when it is dropped.
#[derive(Debug)]
struct Curious {
    pool: Pool,
    peer: PeerId,
    dropped: Arc<AtomicU64>,
}

impl std::fmt::Display for Curious {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("curious")
    }
}

impl std::error::Error for Curious {}

impl Drop for Curious {
    fn drop(&mut self) {
        assert!(!self.pool.contains(&self.peer));
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// A lock that is taken twice blocks its thread for ever, where no timeout of the runtime is heard:
/// the test has a thread of its own.
#[test]
fn errors_of_the_application_are_dropped_where_no_lock_is_held() {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let dropped = Arc::new(AtomicU64::new(0));
        runtime.block_on(async {
            let config = Config::default().initial_backoff(MS).backoff_table(2);
            let (pool, _inbox) = Net::default().pool(identity(1), config);
            let peers = [a_stranger(), a_stranger(), a_stranger()];
            // Failures in a row, then others that push the first out of the table.
            for peer in [peers[0], peers[0], peers[1], peers[2]] {
                let (pool, dropped) = (pool.clone(), dropped.clone());
                let error = io::Error::other(Curious { pool: pool.clone(), peer, dropped });
                let open = || async { io::Result::<DuplexStream>::Err(error) };
                drop(soon("a dial", pool.get_or_dial_with(peer, open)).await.unwrap_err());
                tokio::time::sleep(10 * MS).await;
            }
            pool.close().await;
        });
        done.send(dropped.load(Ordering::Relaxed)).unwrap();
    });
    let dropped = ended.recv_timeout(60 * SECOND).expect("a lock was held");
    assert_eq!(dropped, 2);
}
