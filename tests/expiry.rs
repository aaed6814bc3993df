//! What time does to sessions: idleness, age, probes, kept peers, and a pool that sleeps.
//!
//! All in virtual time: it passes only while nothing else can happen.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use noise_pool::config::WhenFull;
use noise_pool::error::{CloseReason, DialError, Limit, SendErrorKind};
use noise_pool::event::{Events, PoolEvent};
use noise_pool::io::BoxFuture;
use noise_pool::snapshot::SessionState;
use noise_pool::{Config, Disconnect, Hooks, Inbox, Lease, Pool, SessionId, SessionInfo, Target};
use tokio::time::{Instant, sleep, sleep_until};

use support::net::gate::{Gate, Way};
use support::net::{Line, Net};
use support::{identity, soon, until};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Use is noted in whole milliseconds.
const GRAIN: Duration = Duration::from_millis(1);

/// Expires nothing.
fn patient() -> Config {
    Config::default().max_idle(None).max_age(None)
}

/// Two pools; only `a` ends sessions for want of use or for age.
struct Pair {
    net: Net,
    a: Pool,
    b: Pool,
    b_inbox: Inbox,
    events: Events,
    _a_inbox: Inbox,
}

impl Pair {
    fn new(config: Config) -> Self {
        let net = Net::default();
        let (a, a_inbox) = net.pool(identity(1), config);
        Self::with(net, a, a_inbox)
    }

    fn with(net: Net, a: Pool, a_inbox: Inbox) -> Self {
        let (b, b_inbox) = net.pool(identity(2), patient());
        let events = a.subscribe();
        Self { net, a, b, b_inbox, events, _a_inbox: a_inbox }
    }

    async fn lease(&self) -> Lease {
        soon("a lease", self.a.get_or_dial(self.b.id())).await.unwrap()
    }

    async fn back(&self) -> Lease {
        soon("the way back", self.b.get_or_dial(self.a.id())).await.unwrap()
    }

    /// The newest stream between them.
    fn gate(&self) -> Gate {
        self.net.gates(self.a.id(), self.b.id()).pop().unwrap()
    }

    /// When the next session of `a` ends, which, and why.
    async fn next_end(&mut self) -> (Instant, SessionId, CloseReason) {
        next_end(&mut self.events).await
    }
}

async fn next_end(events: &mut Events) -> (Instant, SessionId, CloseReason) {
    loop {
        if let PoolEvent::Closed { session, reason, .. } = events.recv().await.unwrap().unwrap() {
            return (Instant::now(), session, reason);
        }
    }
}

/// Waits for what takes hours of virtual time.
async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(30 * 24 * HOUR, future).await {
        Ok(value) => value,
        Err(_) => panic!("never finished: {what}"),
    }
}

/// How often the runtime has gone to sleep: a pool that ticks wakes it.
fn parks() -> u64 {
    tokio::runtime::Handle::current().metrics().worker_park_count(0)
}

// ---- idleness ----------------------------------------------------------------------------------

fn idle_after_a_minute() -> Config {
    Config::default().max_idle(Some(MINUTE)).max_age(None)
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs a goodbye that says why")]
async fn a_session_ends_a_minute_after_its_last_message_either_way() {
    let mut pair = Pair::new(idle_after_a_minute());
    let lease = pair.lease().await;
    let id = lease.session_id();
    lease.send(Bytes::from_static(b"x")).await.unwrap();
    drop(lease);
    let back = pair.back().await;
    sleep(40 * SECOND).await;
    back.send(Bytes::from_static(b"x")).await.unwrap();
    back.flush().await.unwrap();
    let last = Instant::now();
    let (at, ended, why) = patiently("its end", pair.next_end()).await;
    assert_eq!((ended, why), (id, CloseReason::Idle));
    let idle = at - last;
    assert!(idle + GRAIN >= MINUTE && idle <= MINUTE + GRAIN, "{idle:?}");
    assert_eq!(pair.a.stats().expired_idle, 1);
    assert!(pair.a.snapshot().sessions.is_empty());
    // The peer was told why.
    assert_eq!(
        soon("the other end", back.closed()).await.to_string(),
        "the peer drained the session: idle"
    );
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs a ping")]
async fn a_leased_session_is_not_idle_and_a_returned_lease_counts_as_use() {
    let mut pair = Pair::new(idle_after_a_minute());
    let lease = pair.lease().await;
    let id = lease.session_id();
    sleep(HOUR).await;
    assert!(pair.a.contains(&pair.b.id()));
    soon("a ping", lease.ping()).await.unwrap();
    drop(lease);
    let returned = Instant::now();
    let (at, ended, why) = patiently("its end", pair.next_end()).await;
    assert_eq!((ended, why), (id, CloseReason::Idle));
    let idle = at - returned;
    // A use without data is noted by a clock that ticks 64 times per `max_idle`.
    assert!(idle >= MINUTE - MINUTE / 64 - GRAIN && idle <= MINUTE + GRAIN, "{idle:?}");
}

#[tokio::test(start_paused = true)]
async fn sessions_that_are_used_now_and_then_live_and_each_of_many_ends_on_its_own_time() {
    let net = Net::default();
    let (a, _inbox) = net.pool(identity(1), idle_after_a_minute());
    let mut events = a.subscribe();
    let (busy, _busy_inbox) = net.pool(identity(2), patient());
    let mut others = Vec::new();
    let mut due = Vec::new();
    for n in 0..8 {
        let (pool, inbox) = net.pool(identity(10 + n), patient());
        soon("sent", a.send(pool.id(), Bytes::new())).await.unwrap();
        soon("sent", a.send(busy.id(), Bytes::new())).await.unwrap();
        let id = a.get(&pool.id()).unwrap().session_id();
        due.push((id, Instant::now() + MINUTE));
        others.push((pool, inbox));
        sleep(7 * SECOND).await;
    }
    for (id, due) in due {
        let (at, ended, why) = patiently("an end", next_end(&mut events)).await;
        assert_eq!((ended, why), (id, CloseReason::Idle));
        // The look at its number was a use, too, by the coarse clock.
        assert!(at + MINUTE / 64 + GRAIN >= due && at <= due + GRAIN, "{:?}", due - at);
        soon("sent", a.send(busy.id(), Bytes::new())).await.unwrap();
    }
    assert_eq!(a.peers(), [busy.id()]);
}

#[tokio::test(start_paused = true)]
async fn sessions_that_fall_idle_together_all_part_in_good_order_and_on_time() {
    let net = Net::default();
    let config = idle_after_a_minute().max_draining(3);
    let (a, _inbox) = net.pool(identity(1), config);
    let mut events = a.subscribe();
    let mut others = Vec::new();
    for n in 0..30 {
        let (pool, inbox) = net.pool(identity(10 + n), patient());
        soon("sent", a.send(pool.id(), Bytes::new())).await.unwrap();
        others.push((pool, inbox));
    }
    let last = Instant::now();
    for _ in &others {
        let (at, _, why) = patiently("an end", next_end(&mut events)).await;
        assert_eq!(why, CloseReason::Idle, "none is cut because others drain");
        assert!(at - last <= MINUTE + GRAIN, "{:?}", at - last);
    }
    assert!(a.snapshot().limits.draining.high_water <= 3);
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs a ping")]
async fn pings_keep_a_session_alive_and_do_not_make_it_used() {
    let config = idle_after_a_minute().ping_after(2 * SECOND).keepalive(5 * SECOND);
    let mut pair = Pair::new(config);
    soon("sent", pair.a.send(pair.b.id(), Bytes::new())).await.unwrap();
    let last = Instant::now();
    sleep(58 * SECOND).await;
    let session = pair.a.snapshot().sessions.remove(0);
    assert!(session.last_ping.is_some_and(|ago| ago <= 5 * SECOND), "{session:?}");
    assert!(session.idle >= 57 * SECOND, "{:?}", session.idle);
    let (at, _, why) = patiently("its end", pair.next_end()).await;
    assert_eq!(why, CloseReason::Idle);
    assert!(at - last <= MINUTE + GRAIN);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_expires_is_replaced_by_the_next_call_and_loses_nothing() {
    let mut pair = Pair::new(idle_after_a_minute());
    for n in 0_u8..20 {
        // Around the moment of expiry, on both sides of it.
        let (a, b) = (pair.a.clone(), pair.b.id());
        soon("sent", a.send(b, Bytes::copy_from_slice(&[n]))).await.unwrap();
        let message = soon("it arrives", pair.b_inbox.recv()).await.unwrap();
        assert_eq!(message.body[..], [n]);
        sleep(MINUTE - 10 * GRAIN + u32::from(n) * GRAIN).await;
    }
    assert!(pair.net.connects() > 1, "some had expired");
}

// ---- age ---------------------------------------------------------------------------------------

fn old_after_an_hour() -> Config {
    Config::default().max_idle(None).max_age(Some(HOUR)).retire_timeout(10 * MINUTE)
}

#[tokio::test(start_paused = true)]
async fn sessions_that_began_together_end_at_their_age_but_not_together() {
    let net = Net::default();
    let (a, _inbox) = net.pool(identity(1), old_after_an_hour());
    let mut events = a.subscribe();
    let mut others = Vec::new();
    let began = Instant::now();
    for n in 0..50 {
        let (pool, inbox) = net.pool(identity(10 + n), patient());
        soon("sent", a.send(pool.id(), Bytes::new())).await.unwrap();
        others.push((pool, inbox));
    }
    let mut ages = Vec::new();
    for _ in &others {
        let (at, _, why) = patiently("an end", next_end(&mut events)).await;
        assert_eq!(why, CloseReason::Age);
        ages.push(at - began);
    }
    assert!(ages.iter().all(|age| *age >= HOUR * 9 / 10 && *age <= HOUR + GRAIN), "{ages:?}");
    let spread = *ages.last().unwrap() - ages[0];
    assert!(spread > 2 * MINUTE, "fifty draws from six minutes: {spread:?}");
    assert_eq!(a.stats().expired_age, 50);
}

#[tokio::test(start_paused = true)]
async fn at_its_age_a_session_is_not_handed_out_and_leases_in_hand_send_on() {
    let mut pair = Pair::new(old_after_an_hour());
    let lease = pair.lease().await;
    sleep(HOUR).await;
    assert!(lease.is_retired());
    assert!(pair.a.get(&pair.b.id()).is_none() && !pair.a.contains(&pair.b.id()));
    assert_eq!(pair.a.snapshot().sessions[0].state, SessionState::Retired);
    assert_eq!(pair.a.snapshot().limits.sessions.held, 0, "its room is free");
    for n in 0..5 {
        lease.send(Bytes::copy_from_slice(&[n])).await.unwrap();
        assert_eq!(soon("it arrives", pair.b_inbox.recv()).await.unwrap().body[..], [n]);
        sleep(MINUTE / 2).await;
    }
    drop(lease);
    let returned = Instant::now();
    let (at, _, why) = patiently("its end", pair.next_end()).await;
    assert_eq!((at, why), (returned, CloseReason::Age), "when its last lease returns");
}

#[tokio::test(start_paused = true)]
async fn max_leases_hold_an_old_session_up_for_retire_timeout_at() {
    let mut pair = Pair::new(old_after_an_hour());
    let lease = pair.lease().await;
    let began = Instant::now();
    let (at, _, why) = patiently("its end", pair.next_end()).await;
    assert_eq!(why, CloseReason::Age);
    let age = at - began;
    assert!(age >= HOUR * 9 / 10 + 10 * MINUTE && age <= HOUR + 10 * MINUTE + GRAIN, "{age:?}");
    let kind = lease.send(Bytes::new()).await.unwrap_err().kind;
    assert_eq!(kind, SendErrorKind::Closed(CloseReason::Age));
}

#[tokio::test(start_paused = true)]
async fn the_successor_of_an_old_session_is_dialled_on_the_next_call_and_no_message_is_lost() {
    let mut pair = Pair::new(old_after_an_hour());
    let old = pair.lease().await;
    sleep(HOUR).await;
    old.send(Bytes::from_static(b"on the old one")).await.unwrap();
    let connects = pair.net.connects();
    let (first, second) = tokio::join!(pair.lease(), pair.lease());
    assert_eq!(pair.net.connects(), connects + 1, "one dial for all who ask");
    assert_eq!(first.session_id(), second.session_id());
    assert_ne!(first.session_id(), old.session_id());
    // The peer has given the old one up for the new one: from then on it takes no more.
    let mut sent = vec![Bytes::from_static(b"on the old one")];
    for n in 0..10 {
        match old.send(Bytes::copy_from_slice(&[n])).await {
            Ok(()) => sent.push(Bytes::copy_from_slice(&[n])),
            Err(error) => {
                assert_eq!(error.message[..], [n], "given back");
                assert!(
                    matches!(error.kind, SendErrorKind::Retired(_) | SendErrorKind::Closed(_)),
                    "{:?}",
                    error.kind
                );
            }
        }
        tokio::task::yield_now().await;
    }
    first.send(Bytes::from_static(b"on the new one")).await.unwrap();
    sent.push(Bytes::from_static(b"on the new one"));
    let id = old.session_id();
    drop(old);
    let (at, ended, _) = patiently("the old one's end", pair.next_end()).await;
    assert_eq!((at, ended), (Instant::now(), id));
    let mut received = Vec::new();
    while received.len() < sent.len() {
        received.push(soon("a message", pair.b_inbox.recv()).await.unwrap().body);
    }
    // Order is promised within a session only.
    received.sort();
    sent.sort();
    assert_eq!(received, sent);
    assert!(pair.b_inbox.try_recv().is_none());
    assert_eq!(pair.a.snapshot().sessions.len(), 1);
}

// ---- an empty pool -----------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn nothing_ticks_in_a_pool_without_sessions() {
    let before = parks();
    sleep(YEAR).await;
    let without = parks() - before;

    let mut pair = Pair::new(idle_after_a_minute());
    tokio::task::yield_now().await;
    let before = parks();
    sleep(YEAR).await;
    let empty = parks() - before;
    assert!(empty <= without + 2, "a new pool: {empty} wake-ups in a year, {without} without it");

    soon("sent", pair.a.send(pair.b.id(), Bytes::new())).await.unwrap();
    let before = parks();
    sleep(MINUTE - SECOND).await;
    assert!(parks() - before > 30, "this would show a pool that ticks");
    patiently("its end", pair.next_end()).await;
    sleep(MINUTE).await;
    let before = parks();
    sleep(YEAR).await;
    let again = parks() - before;
    assert!(again <= without + 2, "a pool at rest: {again} wake-ups in a year");
}

// ---- kept peers --------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_kept_peer_is_dialled_at_once_and_not_expired_and_replaced_when_old() {
    let config = old_after_an_hour().max_idle(Some(MINUTE));
    let mut pair = Pair::new(config);
    pair.a.keep(pair.b.id());
    until("it is dialled", || pair.a.contains(&pair.b.id())).await;
    let first = pair.a.get(&pair.b.id()).unwrap().session_id();
    sleep(50 * MINUTE).await;
    assert_eq!(pair.a.get(&pair.b.id()).unwrap().session_id(), first, "idle, and kept");
    let (at, ended, why) = patiently("its end", pair.next_end()).await;
    assert_eq!((ended, why), (first, CloseReason::Age));
    until("it is replaced", || pair.a.contains(&pair.b.id())).await;
    assert!(at.elapsed() < SECOND, "without anybody asking");
    assert_ne!(pair.a.get(&pair.b.id()).unwrap().session_id(), first);

    assert!(pair.a.unkeep(&pair.b.id()));
    assert!(!pair.a.unkeep(&pair.b.id()), "it was not kept any more");
    assert!(pair.a.contains(&pair.b.id()), "its session stays");
    let used = Instant::now();
    let (at, _, why) = patiently("its end", pair.next_end()).await;
    assert_eq!(why, CloseReason::Idle);
    assert!(at - used <= MINUTE + GRAIN, "as any other: {:?}", at - used);
    sleep(HOUR).await;
    assert!(pair.a.snapshot().sessions.is_empty(), "and it is not dialled again");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_exists_already_is_kept_as_well() {
    let pair = Pair::new(idle_after_a_minute());
    let back = pair.back().await;
    pair.a.keep(pair.b.id());
    sleep(HOUR).await;
    assert_eq!(pair.net.connects(), 1);
    assert!(pair.a.contains(&pair.b.id()));
    drop(back);
}

#[tokio::test(start_paused = true)]
async fn a_kept_peer_that_is_lost_is_dialled_again_with_backoff() {
    let config = patient().initial_backoff(SECOND).max_backoff(MINUTE);
    let pair = Pair::new(config);
    // Twice for one peer is once.
    pair.a.keep(pair.b.id());
    pair.a.keep(pair.b.id());
    for lost in 1..4 {
        until("it is there", || pair.a.contains(&pair.b.id())).await;
        assert_eq!(pair.net.connects(), lost);
        pair.gate().cut();
        until("it is dialled again", || pair.net.connects() > lost).await;
    }
    until("it is there", || pair.a.contains(&pair.b.id())).await;
    pair.net.default_line(Line::REFUSES);
    let before = pair.net.connects();
    pair.gate().cut();
    sleep(10 * MINUTE).await;
    let tries = pair.net.connects() - before;
    // 1 + 2 + 4 .. 32 seconds, then every minute at most; jitter may halve a wait.
    assert!((10..=40).contains(&tries), "{tries} tries in ten minutes");
    pair.net.default_line(Line::Open);
    sleep(MINUTE + SECOND).await;
    assert!(pair.a.contains(&pair.b.id()), "back within the longest wait");
}

#[tokio::test(start_paused = true)]
async fn a_kept_peer_is_not_evicted_and_a_disconnect_ends_the_keeping() {
    let config = patient().max_sessions(1).max_inbound(1).when_full(WhenFull::Fail);
    let pair = Pair::new(config);
    let (other, _inbox) = pair.net.pool(identity(3), patient());
    pair.a.keep(pair.b.id());
    until("it is kept", || pair.a.contains(&pair.b.id())).await;
    sleep(MINUTE).await;
    let error = soon("a limit", pair.a.get_or_dial(other.id())).await.unwrap_err();
    assert!(matches!(error, DialError::Limit(Limit::Sessions)), "{error:?}");
    assert!(soon("a limit", other.get_or_dial(pair.a.id())).await.is_err());
    assert!(pair.a.contains(&pair.b.id()));

    pair.a.disconnect(&pair.b.id(), Disconnect::drain());
    assert!(!pair.a.unkeep(&pair.b.id()));
    sleep(HOUR).await;
    assert!(!pair.a.contains(&pair.b.id()), "it is not dialled again");
    drop(soon("room", pair.a.get_or_dial(other.id())).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_kept_no_longer_is_not_dialled_again() {
    let pair = Pair::new(patient());
    pair.net.default_line(Line::REFUSES);
    pair.a.keep(pair.b.id());
    sleep(MINUTE).await;
    assert!(pair.net.connects() > 0);
    assert!(pair.a.unkeep(&pair.b.id()));
    let before = pair.net.connects();
    sleep(HOUR).await;
    assert_eq!(pair.net.connects(), before);
}

// ---- probes ------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs a ping")]
async fn a_session_that_was_silent_is_probed_once_for_all_who_ask() {
    let pair = Pair::new(patient());
    let id = pair.lease().await.session_id();
    let ping_after = 30 * SECOND;
    sleep(ping_after - SECOND).await;
    let frames = pair.gate().count(Way::ToResponder);
    pair.lease().await;
    assert_eq!(pair.gate().count(Way::ToResponder), frames, "no probe before its time");
    sleep(2 * SECOND).await;
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (a, b) = (pair.a.clone(), pair.b.id());
            tokio::spawn(async move { a.get_or_dial(b).await.unwrap().session_id() })
        })
        .collect();
    // The first of them is no more to the others than any other.
    let quitter = pair.a.get_or_dial(pair.b.id());
    support::cancelled_after(1, quitter).await;
    for task in tasks {
        assert_eq!(soon("a lease", task).await.unwrap(), id);
    }
    assert_eq!(pair.gate().count(Way::ToResponder), frames + 1, "one ping");
    pair.lease().await;
    assert_eq!(pair.gate().count(Way::ToResponder), frames + 1, "and it was an answer for long");
    assert_eq!(pair.net.connects(), 1);
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs a ping")]
async fn a_probe_that_fails_ends_the_session_and_the_same_call_dials() {
    let mut pair = Pair::new(patient());
    let held = pair.lease().await;
    let id = held.session_id();
    sleep(31 * SECOND).await;
    pair.gate().hold(Way::ToResponder);
    let began = Instant::now();
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let (a, b) = (pair.a.clone(), pair.b.id());
            tokio::spawn(async move {
                if n % 10 == 0 {
                    a.get_exclusive(Target::new(b).timeout(MINUTE)).await.unwrap().session_id()
                } else {
                    a.get_or_dial(b).await.unwrap().session_id()
                }
            })
        })
        .collect();
    // It would make those who want all leases wait for ever.
    drop(held);
    let mut fresh = Vec::new();
    for task in tasks {
        fresh.push(soon("a lease", task).await.unwrap());
    }
    assert_eq!(began.elapsed(), 5 * SECOND, "ping_timeout, once for all");
    assert!(fresh.iter().all(|session| *session == fresh[0] && *session != id));
    assert_eq!(pair.net.connects(), 2, "one redial");
    let (_, ended, why) = patiently("its end", pair.next_end()).await;
    assert_eq!((ended, why), (id, CloseReason::PingTimeout));
    assert_eq!(pair.a.stats().ping_failed, 1);
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs a ping")]
async fn get_never_waits_for_a_probe_but_begins_it() {
    let mut pair = Pair::new(patient());
    let id = pair.lease().await.session_id();
    sleep(31 * SECOND).await;
    pair.gate().hold(Way::ToResponder);
    let began = Instant::now();
    let lease = pair.a.get(&pair.b.id()).unwrap();
    assert_eq!(lease.session_id(), id);
    let (at, _, why) = patiently("its end", pair.next_end()).await;
    assert_eq!((at - began, why), (5 * SECOND, CloseReason::PingTimeout));
    assert!(pair.a.get(&pair.b.id()).is_none());
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs a ping")]
async fn a_dead_peer_is_noticed_without_anybody_asking() {
    let mut pair = Pair::new(patient());
    drop(pair.lease().await);
    let silent_since = Instant::now();
    let gate = pair.gate();
    gate.hold(Way::ToResponder);
    gate.hold(Way::ToInitiator);
    let (at, _, why) = patiently("its end", pair.next_end()).await;
    assert_eq!(why, CloseReason::PingTimeout);
    assert_eq!(at - silent_since, 65 * SECOND, "keepalive and ping_timeout");
}

// ---- the application's own check ---------------------------------------------------------------

/// What the check does, in turn; then it says yes.
struct Checks {
    asked: Arc<AtomicU64>,
    deeds: Vec<Deed>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Deed {
    SaysYes,
    SaysNo,
    Hangs,
    PanicsAtOnce,
    PanicsLater,
}

impl Hooks for Checks {
    fn health(&self, session: SessionInfo) -> Option<BoxFuture<'static, bool>> {
        assert_eq!(session.peer, identity(2).peer_id());
        let n = self.asked.fetch_add(1, Ordering::Relaxed) as usize;
        let deed = self.deeds.get(n).copied().unwrap_or(Deed::SaysYes);
        assert_ne!(deed, Deed::PanicsAtOnce, "as the test wants it");
        Some(Box::pin(async move {
            sleep(SECOND).await;
            match deed {
                Deed::SaysYes => true,
                Deed::SaysNo => false,
                Deed::Hangs => std::future::pending().await,
                Deed::PanicsAtOnce | Deed::PanicsLater => panic!("as the test wants it"),
            }
        }))
    }
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs a ping")]
async fn the_health_check_has_the_last_word_and_cannot_hurt() {
    for (deed, takes) in [
        (Deed::SaysYes, SECOND),
        (Deed::SaysNo, SECOND),
        (Deed::Hangs, 5 * SECOND),
        (Deed::PanicsAtOnce, Duration::ZERO),
        (Deed::PanicsLater, SECOND),
    ] {
        let asked = Arc::new(AtomicU64::new(0));
        let net = Net::default();
        let hooks = Checks { asked: asked.clone(), deeds: vec![deed] };
        let (a, a_inbox) = net.pool_with(identity(1), patient(), hooks);
        let mut pair = Pair::with(net, a, a_inbox);
        let id = pair.lease().await.session_id();
        assert_eq!(asked.load(Ordering::Relaxed), 0, "a new session needs no check");
        sleep(31 * SECOND).await;
        let began = Instant::now();
        let callers: Vec<_> = (0..10)
            .map(|_| {
                let (a, b) = (pair.a.clone(), pair.b.id());
                tokio::spawn(async move { a.get_or_dial(b).await.unwrap().session_id() })
            })
            .collect();
        let mut sessions = Vec::new();
        for caller in callers {
            sessions.push(soon("a lease", caller).await.unwrap());
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1, "{deed:?}: once for all");
        assert_eq!(began.elapsed(), takes, "{deed:?}");
        let healthy = deed == Deed::SaysYes;
        assert!(sessions.iter().all(|session| (*session == id) == healthy), "{deed:?}");
        assert_eq!(pair.net.connects(), if healthy { 1 } else { 2 });
        if !healthy {
            let (_, ended, why) = patiently("its end", pair.next_end()).await;
            assert_eq!((ended, why), (id, CloseReason::Unhealthy), "{deed:?}");
        }
        // Ten operations later it still works.
        for _ in 0..10 {
            sleep_until(Instant::now() + 31 * SECOND).await;
            drop(pair.lease().await);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 11);
    }
}
