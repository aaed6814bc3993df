//! Room in a full pool: who makes room for whom, who waits, and what wakes those who wait.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helper may panic")]

mod support;

use std::time::Duration;

use noise_pool::error::{DialError, Limit};
use noise_pool::event::PoolEvent;
use noise_pool::{CloseMode, Config, Disconnect, Identity, Inbox, Lease, PeerId, Pool, Target};
use support::net::gate::{Gate, Way};
use support::net::{Line, Net};
use support::{at_rest, identity, slots, soon, until};
use tokio::io::duplex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// Longer than any tick of the clock by which idleness is compared.
const LATER: Duration = Duration::from_secs(10);

/// A pool with room for `limit`, and peers around it.
struct Town {
    net: Net,
    hub: Pool,
    _inbox: Inbox,
    peers: Vec<(Pool, Inbox)>,
}

impl Town {
    fn new(config: Config, peers: u8) -> Self {
        let net = Net::default();
        let (hub, inbox) = net.pool(identity(0), config);
        let peers = (1..=peers).map(|n| net.pool(identity(n), Config::default())).collect();
        Self { net, hub, _inbox: inbox, peers }
    }

    fn id(&self, n: usize) -> PeerId {
        self.peers[n].0.id()
    }

    /// The hub dials the peer.
    async fn lease(&self, n: usize) -> Lease {
        soon("a dial of the hub", self.hub.get_or_dial(self.id(n))).await.unwrap()
    }

    /// The peer dials the hub.
    async fn inbound(&self, n: usize) -> Result<Lease, DialError> {
        soon("a dial of a peer", self.peers[n].0.get_or_dial(self.hub.id())).await
    }

    /// The hub dials the peer, and the dial waits for room.
    async fn waiting(&self, n: usize) -> JoinHandle<Lease> {
        let before = self.hub.stats().waits;
        let (hub, id) = (self.hub.clone(), self.id(n));
        let dial = tokio::spawn(async move { hub.get_or_dial(id).await.unwrap() });
        until("it waits", || self.hub.stats().waits > before).await;
        dial
    }

    fn connected(&self) -> Vec<bool> {
        self.peers.iter().map(|(peer, _)| self.hub.contains(&peer.id())).collect()
    }
}

fn room_for(limit: usize) -> Config {
    Config::default().max_sessions(limit).max_inbound(limit)
}

/// The dial that waits gets its session now: something woke it, and not a timer.
async fn at_once(dial: JoinHandle<Lease>) -> Lease {
    let began = Instant::now();
    let lease = soon("the dial that waits", dial).await.unwrap();
    assert!(began.elapsed() < SECOND / 10, "woken after {:?} only", began.elapsed());
    lease
}

#[tokio::test(start_paused = true)]
async fn a_dial_displaces_the_session_that_was_idle_longest() {
    for max_idle in [Some(300 * SECOND), None] {
        let town = Town::new(room_for(3).max_idle(max_idle), 5);
        let mut events = town.hub.subscribe();
        for n in 0..3 {
            drop(town.lease(n).await);
            sleep(LATER).await;
        }
        // A mere checkout is a use.
        drop(town.lease(0).await);
        sleep(LATER).await;
        drop(town.lease(3).await);
        assert_eq!(town.connected(), [true, false, true, true, false]);
        drop(town.lease(4).await);
        assert_eq!(town.connected(), [true, false, false, true, true]);
        assert_eq!((town.hub.stats().evicted, town.hub.stats().waits), (2, 0));
        let mut evicted = Vec::new();
        while let Some(Ok(event)) = events.try_recv() {
            if let PoolEvent::Evicted { peer, .. } = event {
                evicted.push(peer);
            }
        }
        assert_eq!(evicted, [town.id(1), town.id(2)]);
        at_rest(&town.hub).await;
        assert_eq!(town.hub.snapshot().limits.sessions.high_water, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn traffic_counts_as_use() {
    let mut town = Town::new(room_for(2), 3);
    let first = town.lease(0).await;
    sleep(LATER).await;
    drop(town.lease(1).await);
    sleep(LATER).await;
    drop(first);
    sleep(LATER).await;
    // The peer speaks on the second: now the first is the one idle longest.
    let hub = town.hub.id();
    town.peers[1].0.send(hub, "hello".into()).await.unwrap();
    soon("the message", town._inbox.recv()).await.unwrap();
    drop(town.lease(2).await);
    assert_eq!(town.connected(), [false, true, true]);
    town.peers.clear();
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs refusals that say why")]
async fn an_inbound_newcomer_displaces_an_idle_inbound_session_only() {
    let town = Town::new(room_for(2), 4);
    drop(town.lease(0).await);
    sleep(LATER).await;
    drop(town.inbound(1).await.unwrap());
    sleep(LATER).await;
    drop(town.inbound(2).await.unwrap());
    assert_eq!(town.connected(), [true, false, true, false]);

    let busy = town.hub.get(&town.id(2)).unwrap();
    let error = town.inbound(3).await.unwrap_err();
    assert!(matches!(error.cause(), DialError::Rejected { .. }), "{error:?}");
    assert_eq!(town.connected(), [true, false, true, false]);
    assert_eq!(town.hub.stats().rejected_by_us.full, 1);
    drop(busy);
    // A dial of ours may displace either; the outbound session was idle for longer.
    drop(town.lease(3).await);
    assert_eq!(town.connected(), [false, false, true, true]);
    at_rest(&town.hub).await;
}

#[tokio::test(start_paused = true)]
async fn a_stranger_does_not_displace_a_peer_that_we_dialled_while_it_dialled_us() {
    let town = Town::new(Config::default().max_sessions(3).max_inbound(1), 3);
    // Our dial is under way when the peer's arrives and takes its place, and its room.
    town.net.default_line(Line::Gated);
    let (hub, id) = (town.hub.clone(), town.id(0));
    let dial = tokio::spawn(async move { hub.get_or_dial(id).await.unwrap() });
    town.net.gate(town.hub.id(), id, 0).await;
    town.net.default_line(Line::Open);
    drop(town.inbound(0).await.unwrap());
    drop(soon("our own call", dial).await.unwrap());
    assert_eq!(town.hub.stats().inbound_rows.uncommitted, 1);
    at_rest(&town.hub).await;

    sleep(LATER).await;
    drop(town.inbound(1).await.unwrap());
    let busy = town.hub.get(&town.id(1)).unwrap();
    assert!(town.inbound(2).await.is_err());
    assert_eq!(town.connected(), [true, true, false]);
    drop(busy);
    // When the hub has said to come back.
    sleep(2 * LATER).await;
    drop(town.inbound(2).await.unwrap());
    assert_eq!(town.connected(), [true, false, true]);
    assert_eq!(town.hub.stats().dial_failures.superseded, 1);
}

#[tokio::test(start_paused = true)]
async fn neither_a_kept_nor_a_leased_session_makes_room() {
    let town = Town::new(room_for(2), 3);
    town.hub.keep(town.id(0));
    until("the kept peer is there", || town.hub.contains(&town.id(0))).await;
    let lease = town.lease(1).await;
    sleep(LATER).await;
    let began = Instant::now();
    let impatient = Target::new(town.id(2)).timeout(3 * SECOND);
    let error = town.hub.get_or_dial(impatient).await.unwrap_err();
    assert!(matches!(error, DialError::Deadline), "{error:?}");
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert!(town.inbound(2).await.is_err(), "nor for an inbound newcomer");
    assert_eq!(town.connected(), [true, true, false]);
    drop(lease);
    drop(town.lease(2).await);
    assert_eq!(town.connected(), [true, false, true], "the kept one stays");
    assert!(town.hub.unkeep(&town.id(0)));
    sleep(LATER).await;
    drop(town.lease(1).await);
    assert_eq!(town.connected(), [false, true, true], "and is like any other then");
    at_rest(&town.hub).await;
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_room_are_served_in_order() {
    const WAITING: usize = 6;
    let town = Town::new(room_for(1), 1 + WAITING as u8);
    let held = town.lease(0).await;
    let (log, mut order) = mpsc::channel(WAITING);
    for n in 1..=WAITING {
        let dial = town.waiting(n).await;
        let log = log.clone();
        tokio::spawn(async move {
            let lease = dial.await.unwrap();
            log.send(n).await.unwrap();
            sleep(SECOND).await;
            drop(lease);
        });
    }
    assert_eq!(town.hub.snapshot().dials.len(), WAITING);
    sleep(5 * SECOND).await;
    drop(held);
    for n in 1..=WAITING {
        assert_eq!(soon("the next in line", order.recv()).await, Some(n));
    }
    at_rest(&town.hub).await;
    let stats = town.hub.stats();
    assert_eq!(stats.waits, WAITING as u64);
    // The first waited 5 s, each other one more than the one before it.
    let (min, max) = (44 * SECOND, 47 * SECOND);
    assert!((min..max).contains(&stats.wait_time), "{:?}", stats.wait_time);
    assert_eq!(town.hub.snapshot().limits.sessions.high_water, 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_was_given_up_is_counted_and_leaves_nothing() {
    let town = Town::new(room_for(1), 2);
    let held = town.lease(0).await;
    let impatient = Target::new(town.id(1)).timeout(7 * SECOND);
    assert!(matches!(town.hub.get_or_dial(impatient).await, Err(DialError::Deadline)));
    until("its time is counted", || town.hub.stats().wait_time >= 7 * SECOND).await;
    assert_eq!((town.hub.stats().waits, town.hub.stats().wait_time), (1, 7 * SECOND));
    drop(held);
    at_rest(&town.hub).await;
    assert_eq!(town.connected(), [true, false], "nobody waits, so nobody made room");
}

#[tokio::test(start_paused = true)]
async fn one_who_waits_displaces_one_session_and_not_all_that_fall_idle() {
    let town = Town::new(room_for(4), 6);
    let mut held = Vec::new();
    for n in 0..4 {
        held.push(town.lease(n).await);
        sleep(LATER).await;
    }
    let dials = [town.waiting(4).await, town.waiting(5).await];
    drop(held);
    for dial in dials {
        drop(at_once(dial).await);
    }
    at_rest(&town.hub).await;
    assert_eq!(town.hub.stats().evicted, 2, "two came, two went");
    assert_eq!(slots(&town.hub), 4);
}

#[tokio::test(start_paused = true)]
async fn a_returned_lease_wakes_one_who_waits() {
    let town = Town::new(room_for(1), 2);
    let held = [town.lease(0).await, town.lease(0).await];
    let dial = town.waiting(1).await;
    let [first, last] = held;
    drop(first);
    sleep(SECOND).await;
    assert!(!dial.is_finished(), "the session is still leased");
    drop(last);
    drop(at_once(dial).await);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_under_its_lease_wakes_one_who_waits() {
    let town = Town::new(room_for(1), 2);
    let held = town.lease(0).await;
    let dial = town.waiting(1).await;
    town.peers[0].0.close().await;
    drop(at_once(dial).await);
    drop(held);
    at_rest(&town.hub).await;
}

#[tokio::test(start_paused = true)]
async fn a_disconnected_session_wakes_one_who_waits() {
    for mode in [CloseMode::Drain, CloseMode::Now] {
        let town = Town::new(room_for(1), 2);
        let held = town.lease(0).await;
        let dial = town.waiting(1).await;
        assert!(town.hub.disconnect(&town.id(0), Disconnect::new(mode)));
        drop(at_once(dial).await);
        drop(held);
        at_rest(&town.hub).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_dial_wakes_one_who_waits() {
    let town = Town::new(room_for(1), 1);
    let (near, far) = duplex(1 << 10);
    let stranger = Identity::generate().peer_id();
    let hub = town.hub.clone();
    let failing =
        tokio::spawn(async move { hub.get_or_dial_with(stranger, || async { Ok(near) }).await });
    until("it has the room", || town.hub.snapshot().limits.sessions.held == 1).await;
    let dial = town.waiting(0).await;
    drop(far);
    drop(at_once(dial).await);
    assert!(failing.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_nobody_wants_any_more_wakes_one_who_waits() {
    let town = Town::new(room_for(1), 1);
    let (near, _far) = duplex(1 << 10);
    let stranger = Identity::generate().peer_id();
    let mut unwanted = Box::pin(town.hub.get_or_dial_with(stranger, || async { Ok(near) }));
    assert!(futures_util::poll!(&mut unwanted).is_pending());
    until("it has the room", || town.hub.snapshot().limits.sessions.held == 1).await;
    let dial = town.waiting(0).await;
    drop(unwanted);
    drop(at_once(dial).await);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_asks_for_any_more_wakes_one_who_waits() {
    let town = Town::new(room_for(1), 2);
    town.net.default_line(Line::Gated);
    let mut unwanted = Box::pin(town.hub.get_or_dial(town.id(0)));
    assert!(futures_util::poll!(&mut unwanted).is_pending());
    let gate = town.net.gate(town.hub.id(), town.id(0), 0).await;
    gate.pass(Way::ToResponder, 1);
    gate.pass(Way::ToInitiator, 1);
    soon("message 3", gate.arrived(Way::ToResponder, 2)).await;
    town.net.default_line(Line::Open);
    let dial = town.waiting(1).await;
    drop(unwanted);
    // The dial is committed, so it goes on, and its session is pooled with no lease.
    gate.open_all();
    drop(at_once(dial).await);
    at_rest(&town.hub).await;
    assert_eq!((town.hub.stats().dials_succeeded, town.hub.stats().evicted), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_leased_session_that_is_replaced_wakes_one_who_waits() {
    let town = Town::new(room_for(1), 2);
    let held = town.lease(0).await;
    let dial = town.waiting(1).await;
    // The peer loses the session without our noticing, and opens another, which nobody leases.
    town.net.gates(town.hub.id(), town.id(0)).iter().for_each(Gate::freeze);
    let peer = &town.peers[0].0;
    peer.disconnect(&town.hub.id(), Disconnect::now());
    // Ours makes room at once, so that the peer may find it gone and the hub full.
    let _ = town.inbound(0).await;
    drop(at_once(dial).await);
    assert_eq!((town.hub.stats().superseded, town.hub.stats().evicted), (1, 1));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_kept_no_longer_wakes_one_who_waits() {
    let town = Town::new(room_for(1), 2);
    town.hub.keep(town.id(0));
    until("the kept peer is there", || town.hub.contains(&town.id(0))).await;
    let dial = town.waiting(1).await;
    sleep(LATER).await;
    assert!(!dial.is_finished());
    assert!(town.hub.unkeep(&town.id(0)));
    drop(at_once(dial).await);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_pool_wakes_all_who_wait() {
    let town = Town::new(room_for(1), 4);
    let _held = town.lease(0).await;
    let dials: Vec<_> = (1..4)
        .map(|n| {
            let (hub, id) = (town.hub.clone(), town.id(n));
            tokio::spawn(async move { hub.get_or_dial(id).await.map(drop) })
        })
        .collect();
    until("all wait", || town.hub.stats().waits == 3).await;
    town.hub.close().await;
    for dial in dials {
        assert!(matches!(soon("a waiter", dial).await.unwrap(), Err(DialError::PoolClosed)));
    }
    let limits = town.hub.snapshot().limits;
    assert_eq!((slots(&town.hub), limits.sessions.held, limits.queued_dials.held), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_is_found_behind_any_number_of_leased_ones() {
    const LEASED: usize = 1_100;
    let town = Town::new(room_for(LEASED + 1).when_full(noise_pool::config::WhenFull::Fail), 2);
    let mut leases = Vec::with_capacity(LEASED);
    let mut strangers = Vec::with_capacity(LEASED);
    for _ in 0..LEASED {
        let (pool, inbox) = town.net.pool(Identity::generate(), Config::default());
        leases.push(soon("a dial", town.hub.get_or_dial(pool.id())).await.unwrap());
        strangers.push((pool, inbox));
    }
    drop(town.lease(0).await);
    match town.hub.get_or_dial(town.id(1)).await {
        Ok(lease) => drop(lease),
        Err(DialError::Limit(Limit::Sessions)) => panic!("an idle session was there"),
        Err(error) => panic!("{error:?}"),
    }
    assert_eq!(town.connected(), [false, true]);
}

/// Leases come and go on many threads while dials wait: every wake-up that is lost would leave a dial
/// waiting for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_lost_between_returns_and_waits() {
    let town = Town::new(room_for(2), 5);
    let (hub, ids): (_, Vec<PeerId>) = (town.hub.clone(), (0..5).map(|n| town.id(n)).collect());
    let tasks: Vec<_> = (0..5)
        .map(|n| {
            let (hub, ids) = (hub.clone(), ids.clone());
            tokio::spawn(async move {
                for round in 0..100 {
                    let lease = hub.get_or_dial(ids[(n + round) % ids.len()]).await.unwrap();
                    drop(lease);
                }
            })
        })
        .collect();
    for task in tasks {
        soon("a task", task).await.unwrap();
    }
    at_rest(&hub).await;
    let limits = hub.snapshot().limits;
    assert!(limits.sessions.high_water <= 2, "{limits:?}");
}
