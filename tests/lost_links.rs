//! Links that go away without a word, and machines that were suspended: a session in doubt, the one that
//! takes its place, and the probe before a session is handed out that nobody has heard of.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use noise_pool::config::WallClock;
use noise_pool::error::CloseReason;
use noise_pool::event::{Events, PoolEvent};
use noise_pool::{Config, Inbox, Lease, Pool};
use tokio::time::Instant;

use support::net::gate::Gate;
use support::net::{Line, Net};
use support::{identity, soon, until};

const SECOND: Duration = Duration::from_secs(1);

/// A message that fills a good part of a frame.
fn message(n: u32) -> Bytes {
    let mut body = vec![0; 10_000];
    body[..4].copy_from_slice(&n.to_be_bytes());
    body.into()
}

fn number(body: &[u8]) -> u32 {
    u32::from_be_bytes(*body.first_chunk().unwrap())
}

/// A wall clock that is put ahead by hand.
#[derive(Clone, Default)]
struct Clock(Arc<AtomicU64>);

impl WallClock for Clock {
    fn unix_seconds(&self) -> u64 {
        1_800_000_000 + self.0.load(Ordering::Relaxed)
    }
}

/// Two pools on one in-memory network.
struct Pair {
    net: Net,
    clock: Clock,
    a: Pool,
    _a_inbox: Inbox,
    b: Pool,
    b_inbox: Inbox,
    events: Events,
}

impl Pair {
    fn new() -> Self {
        let net = Net::default();
        let clock = Clock::default();
        let (a, a_inbox) = net.pool(identity(1), Config::default().wall_clock(clock.clone()));
        let (b, b_inbox) = net.pool(identity(2), Config::default().wall_clock(clock.clone()));
        let events = a.subscribe();
        Self { net, clock, a, _a_inbox: a_inbox, b, b_inbox, events }
    }

    /// A lease of a session whose link is known.
    async fn known_lease(&self) -> Lease {
        let lease = self.lease().await;
        tokio::time::sleep(11 * SECOND).await;
        lease
    }

    async fn lease(&self) -> Lease {
        soon("a lease", self.a.get_or_dial(self.b.id())).await.unwrap()
    }

    fn gate(&self) -> Gate {
        self.net.gates(self.a.id(), self.b.id()).last().unwrap().clone()
    }

    fn session(&self) -> Option<noise_pool::SessionId> {
        self.a.get(&self.b.id()).map(|lease| lease.session_id())
    }

    /// Why the next session of `a` to end has ended, and when.
    async fn next_end(&mut self) -> (CloseReason, Instant) {
        loop {
            let event = self.events.recv().await.unwrap().unwrap();
            if let PoolEvent::Closed { reason, .. } = event {
                return (reason, Instant::now());
            }
        }
    }

    /// All that has arrived.
    fn received(&mut self) -> Vec<u32> {
        let next = || self.b_inbox.try_recv().map(|message| number(&message.body));
        std::iter::from_fn(next).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_dialled_anew_and_the_old_session_leaves_all_that_it_has() {
    let mut pair = Pair::new();
    let old = pair.known_lease().await;
    let began = Instant::now();
    pair.gate().freeze();
    for n in 0..40 {
        old.send(message(n)).await.unwrap();
    }
    tokio::time::sleep(5 * SECOND - SECOND / 100).await;
    assert_eq!(pair.session(), Some(old.session_id()));
    until("it is in doubt", || pair.session().is_none()).await;
    assert_eq!(began.elapsed().as_secs(), 5);
    assert!(old.send(message(99)).await.is_err());

    let new = pair.lease().await;
    assert_ne!(new.session_id(), old.session_id());
    for n in 100..110 {
        new.send(message(n)).await.unwrap();
    }
    new.flush().await.unwrap();
    until("all arrive", || pair.b.stats().messages_in >= 30).await;
    let received = pair.received();
    let first = received[0];
    assert!(first < 14, "what the connection held is lost: {first}");
    assert!(received.into_iter().eq((first..40).chain(100..110)), "first, in order, and once");
    assert_eq!(pair.a.stats().ping_failed, 1);
    let (reason, at) = pair.next_end().await;
    assert_eq!((reason, (at - began).as_secs()), (CloseReason::DrainTimeout, 15));
    assert_eq!(pair.a.stats().messages_unsent, 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_in_doubt_that_recovers_sends_all_and_ends_in_order() {
    let mut pair = Pair::new();
    let lease = pair.known_lease().await;
    let gate = pair.gate();
    gate.freeze();
    for n in 0..40 {
        lease.send(message(n)).await.unwrap();
    }
    until("it is in doubt", || pair.session().is_none()).await;
    tokio::time::sleep(2 * SECOND).await;
    gate.open_all();
    let (reason, _) = pair.next_end().await;
    assert_eq!(reason, CloseReason::InDoubt);
    assert!(pair.received().into_iter().eq(0..40));
    assert_eq!((pair.a.stats().messages_carried, pair.a.stats().messages_unsent), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_kept_peer_is_dialled_anew_without_a_caller() {
    let pair = Pair::new();
    pair.a.keep(pair.b.id());
    until("it is connected", || pair.session().is_some()).await;
    let first = pair.session();
    pair.a.get(&pair.b.id()).unwrap().send(message(1)).await.unwrap();
    tokio::time::sleep(11 * SECOND).await;
    pair.gate().freeze();
    pair.a.get(&pair.b.id()).unwrap().send(message(2)).await.unwrap();
    let began = Instant::now();
    until("it is connected anew", || pair.session().is_some_and(|now| Some(now) != first)).await;
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_we_cannot_open_anew_is_not_doubted() {
    let mut pair = Pair::new();
    let theirs = soon("a dial", pair.b.get_or_dial(pair.a.id())).await.unwrap();
    let ours = pair.a.get(&pair.b.id()).unwrap();
    pair.net.gates(pair.b.id(), pair.a.id())[0].freeze();
    let began = Instant::now();
    ours.send(message(1)).await.unwrap();
    let (reason, at) = pair.next_end().await;
    assert_eq!((reason, (at - began).as_secs()), (CloseReason::PingTimeout, 15));
    drop(theirs);
}

#[tokio::test(start_paused = true)]
async fn a_lost_peer_is_looked_for_without_growing_pauses() {
    let mut pair = Pair::new();
    let lease = pair.lease().await;
    pair.net.default_line(Line::SILENT);
    pair.gate().freeze();
    lease.send(message(1)).await.unwrap();
    drop(lease);
    let _ = pair.next_end().await;
    pair.a.keep(pair.b.id());
    let began = Instant::now();
    tokio::time::sleep(1_800 * SECOND).await;
    let (dials, spent) = (pair.a.stats().dials, began.elapsed().as_secs());
    // A dial takes ten seconds to fail, and the pause after it a second at most.
    assert!(dials >= spent / 11, "{dials} dials in {spent} s");
    pair.net.default_line(Line::Smooth);
    let back = Instant::now();
    until("it is connected anew", || pair.session().is_some()).await;
    assert!(back.elapsed() <= 11 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn after_a_suspension_a_session_is_probed_before_it_is_handed_out() {
    let pair = Pair::new();
    let first = pair.lease().await.session_id();
    // It is there.
    tokio::time::sleep(3 * SECOND).await;
    pair.clock.0.fetch_add(7_200, Ordering::Relaxed);
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(pair.lease().await.session_id(), first);
    let is_probed = || pair.a.snapshot().sessions[0].last_ping.is_some();
    assert!(is_probed(), "it was asked for a sign of life");
    // It has gone.
    tokio::time::sleep(3 * SECOND).await;
    pair.gate().freeze();
    pair.clock.0.fetch_add(7_200, Ordering::Relaxed);
    tokio::time::sleep(3 * SECOND).await;
    assert_ne!(pair.lease().await.session_id(), first);
}

#[tokio::test(start_paused = true)]
async fn after_a_suspension_kept_peers_are_probed_at_once() {
    let pair = Pair::new();
    pair.a.keep(pair.b.id());
    until("it is connected", || pair.session().is_some()).await;
    let first = pair.session();
    tokio::time::sleep(3 * SECOND).await;
    pair.gate().freeze();
    pair.clock.0.fetch_add(60, Ordering::Relaxed);
    let began = Instant::now();
    until("it is connected anew", || pair.session().is_some_and(|now| Some(now) != first)).await;
    assert!(began.elapsed() <= 8 * SECOND, "2 s to notice, 5 s without an answer, and a dial");
}

/// A wall clock that panics at every fifth look, once it has begun to.
#[derive(Clone, Default)]
struct Faulty {
    clock: Clock,
    looks: Arc<AtomicU64>,
}

impl WallClock for Faulty {
    fn unix_seconds(&self) -> u64 {
        // Handshakes look as well; they are over by then.
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        assert!(looks < 1_000 || !looks.is_multiple_of(5), "as the test wants it");
        self.clock.unix_seconds()
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_panics_now_and_then_still_tells_of_a_suspension() {
    let net = Net::default();
    let faulty = Faulty::default();
    let (a, _a_inbox) = net.pool(identity(1), Config::default().wall_clock(faulty.clone()));
    let (b, _b_inbox) = net.pool(identity(2), Config::default().wall_clock(faulty.clock.clone()));
    drop(soon("a lease", a.get_or_dial(b.id())).await.unwrap());
    faulty.looks.store(1_000, Ordering::Relaxed);
    tokio::time::sleep(5 * SECOND).await;
    faulty.clock.0.fetch_add(7_200, Ordering::Relaxed);
    // Whichever of its looks it misses, the next one tells.
    tokio::time::sleep(7 * SECOND).await;
    drop(soon("a lease", a.get_or_dial(b.id())).await.unwrap());
    assert!(a.snapshot().sessions[0].last_ping.is_some(), "it was probed");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_corrected_costs_no_probe() {
    let pair = Pair::new();
    let _lease = pair.lease().await;
    for _ in 0..100 {
        pair.clock.0.fetch_add(4, Ordering::Relaxed);
        tokio::time::sleep(3 * SECOND).await;
    }
    drop(pair.lease().await);
    assert!(pair.a.snapshot().sessions[0].last_ping.is_none_or(|ping| ping >= SECOND));
}
