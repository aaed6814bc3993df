//! Leases: taking turns, having all of them, giving them up, and outliving their session.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use noise_pool::config::WhenFull;
use noise_pool::error::{
    CloseReason, DialError, Limit, PingError, Retry, SendErrorKind, SendToError, SessionClosed,
};
use noise_pool::event::PoolEvent;
use noise_pool::{Address, Config, Inbox, Lease, Origin, Pool, SendOptions};
use tokio::time::Instant;

use support::net::gate::Way;
use support::net::{Line, Net};
use support::{Node, cancelled_after, confirmed, identity, soon, unconfirmed, until};

/// Bytes of a message that fills a frame.
const BIG: usize = 60_000;

fn bytes(n: u32) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

fn number(body: &[u8]) -> u32 {
    u32::from_be_bytes(body.try_into().unwrap())
}

fn max_leases(n: u32) -> Config {
    Config::default().max_leases(NonZeroU32::new(n))
}

/// Two pools on one in-memory network.
struct Pair {
    net: Net,
    a: Pool,
    a_inbox: Inbox,
    b: Pool,
    b_inbox: Inbox,
}

impl Pair {
    fn new(config: Config) -> Self {
        let net = Net::default();
        let (a, a_inbox) = net.pool(identity(1), config);
        let (b, b_inbox) = net.pool(identity(2), Config::default());
        Self { net, a, a_inbox, b, b_inbox }
    }

    async fn lease(&self) -> Lease {
        soon("a lease", self.a.get_or_dial(self.b.id())).await.unwrap()
    }

    /// Asks in a task of its own, and is in its place in the line when this returns.
    async fn ask(&self, name: u32, log: &Log) -> tokio::task::JoinHandle<()> {
        let (a, b, log) = (self.a.clone(), self.b.id(), log.clone());
        let asked = self.a.stats().waits;
        let task = tokio::spawn(async move {
            let lease = a.get_or_dial(b).await.unwrap();
            log.lock().unwrap().push(name);
            // Whoever is served out of turn would show up before the next one.
            tokio::task::yield_now().await;
            drop(lease);
        });
        until("it waits", || self.a.stats().waits > asked).await;
        task
    }

    async fn ask_for_all(&self, name: u32, log: &Log) -> tokio::task::JoinHandle<()> {
        let (a, b, log) = (self.a.clone(), self.b.id(), log.clone());
        let task = tokio::spawn(async move {
            let lease = a.get_exclusive(b).await.unwrap();
            log.lock().unwrap().push(name);
            tokio::task::yield_now().await;
            drop(lease);
        });
        // One turn of a runtime with one thread.
        tokio::task::yield_now().await;
        task
    }
}

type Log = Arc<Mutex<Vec<u32>>>;

// ---- turns -------------------------------------------------------------------------------------

#[tokio::test]
async fn a_hundred_tasks_take_turns_a_hundred_times_first_come_first_served() {
    const TASKS: usize = 100;
    const TURNS: usize = 100;
    let pair = Pair::new(max_leases(1));
    let held = pair.lease().await;
    let log = Log::default();
    let tasks: Vec<_> = (0..TASKS as u32)
        .map(|name| {
            let (a, b, log) = (pair.a.clone(), pair.b.id(), log.clone());
            tokio::spawn(async move {
                for _ in 0..TURNS {
                    let lease = a.get_or_dial(b).await.unwrap();
                    log.lock().unwrap().push(name);
                    tokio::task::yield_now().await;
                    drop(lease);
                }
            })
        })
        .collect();
    until("all wait", || pair.a.stats().waits == TASKS as u64).await;
    drop(held);
    for task in tasks {
        soon("a task has had its turns", task).await.unwrap();
    }
    let log = log.lock().unwrap();
    let round: Vec<u32> = (0..TASKS as u32).collect();
    assert_eq!(log.len(), TASKS * TURNS);
    for turn in log.chunks(TASKS) {
        assert_eq!(turn, round, "nobody is served twice before all others were");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_lease_is_never_out_twice_on_many_threads() {
    let pair = Pair::new(max_leases(1));
    let out = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (a, b, out) = (pair.a.clone(), pair.b.id(), out.clone());
            tokio::spawn(async move {
                for _ in 0..100 {
                    let lease = a.get_or_dial(b).await.unwrap();
                    assert_eq!(out.fetch_add(1, Ordering::SeqCst), 0);
                    tokio::task::yield_now().await;
                    assert_eq!(out.fetch_sub(1, Ordering::SeqCst), 1);
                    drop(lease);
                }
            })
        })
        .collect();
    for task in tasks {
        soon("a task has had its turns", task).await.unwrap();
    }
    assert_eq!(pair.net.connects(), 1);
}

#[tokio::test]
async fn a_waiter_that_gives_up_after_any_poll_is_skipped_and_nobody_else() {
    let pair = Pair::new(max_leases(1));
    for polls in 1..6 {
        let held = pair.lease().await;
        let log = Log::default();
        let first = pair.ask(1, &log).await;
        let waits = pair.a.stats().waits;
        let (a, b) = (pair.a.clone(), pair.b.id());
        let quitter = tokio::spawn(async move {
            cancelled_after(polls, async { drop(a.get_or_dial(b).await.unwrap()) }).await
        });
        until("it waits", || pair.a.stats().waits > waits || quitter.is_finished()).await;
        let second = pair.ask(2, &log).await;
        drop(held);
        for task in [first, second] {
            soon("a waiter is served", task).await.unwrap();
        }
        soon("the quitter ends", quitter).await.unwrap();
        assert_eq!(*log.lock().unwrap(), [1, 2], "after {polls} polls");
    }
}

#[tokio::test]
async fn a_waiter_that_was_served_and_goes_before_it_notices_passes_the_lease_on() {
    let pair = Pair::new(max_leases(1));
    let held = pair.lease().await;
    let mut served = Box::pin(pair.a.get_or_dial(pair.b.id()));
    assert!(futures_util::poll!(&mut served).is_pending());
    let log = Log::default();
    let next = pair.ask(1, &log).await;
    // The lease goes to the first in the line, who never looks again.
    drop(held);
    assert!(pair.a.get(&pair.b.id()).is_none(), "a newcomer must not overtake");
    drop(served);
    soon("the next one is served", next).await.unwrap();
    assert!(pair.a.get(&pair.b.id()).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_for_a_lease_until_its_own_deadline() {
    let pair = Pair::new(max_leases(1));
    let held = pair.lease().await;
    let began = Instant::now();
    let target = noise_pool::Target::new(pair.b.id()).timeout(Duration::from_secs(7));
    let error = soon("the deadline", pair.a.get_or_dial(target)).await.unwrap_err();
    assert!(matches!(error, DialError::Deadline), "{error:?}");
    assert_eq!(began.elapsed(), Duration::from_secs(7));
    drop(held);
    drop(pair.lease().await);
}

#[tokio::test]
async fn a_pool_that_does_not_wait_says_which_limit_was_met() {
    let pair = Pair::new(max_leases(2).when_full(WhenFull::Fail));
    let held = [pair.lease().await, pair.lease().await];
    let error = soon("an answer", pair.a.get_or_dial(pair.b.id())).await.unwrap_err();
    assert!(matches!(error, DialError::Limit(Limit::Leases)), "{error:?}");
    assert_eq!(error.retry(), Retry::Now);
    assert!(held[0].try_clone().is_none());
    drop(held);
    drop(pair.lease().await);
    assert_eq!(pair.net.connects(), 1);
}

#[tokio::test]
async fn get_never_waits_and_a_clone_costs_one_lease() {
    let pair = Pair::new(max_leases(2));
    assert!(pair.a.get(&pair.b.id()).is_none(), "and it never dials");
    assert_eq!(pair.net.connects(), 0);
    let first = pair.lease().await;
    let second = first.try_clone().unwrap();
    assert_eq!(first.session_id(), second.session_id());
    assert!(first.try_clone().is_none());
    assert!(pair.a.get(&pair.b.id()).is_none());
    assert!(pair.a.contains(&pair.b.id()), "all leases out, and still connected");
    drop(first);
    let third = pair.a.get(&pair.b.id()).unwrap();
    assert_eq!(third.session_id(), second.session_id());
    assert_eq!(pair.a.snapshot().sessions[0].leases, 2);
}

#[tokio::test]
async fn without_a_limit_leases_are_shared_and_counted() {
    let pair = Pair::new(Config::default());
    let first = pair.lease().await;
    let more: Vec<_> = (0..1_000)
        .map(|n| if n % 2 == 0 { first.try_clone() } else { pair.a.get(&pair.b.id()) })
        .collect();
    assert!(more.iter().all(Option::is_some));
    assert_eq!(pair.a.snapshot().sessions[0].leases, 1_001);
    drop((first, more));
    assert_eq!(pair.a.snapshot().sessions[0].leases, 0);
}

#[tokio::test]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs an application payload")]
async fn leases_of_both_ends_tell_the_same_of_their_session() {
    let (a, b) = (Node::start(Config::default()).await, Node::start(Config::default()).await);
    a.pool.set_application_payload("of a".into()).unwrap();
    b.pool.set_application_payload("of b".into()).unwrap();
    let ours = soon("a lease", a.pool.get_or_dial(b.target())).await.unwrap();
    let theirs = b.pool.get(&a.id()).unwrap();
    assert_eq!((ours.peer(), theirs.peer()), (b.id(), a.id()));
    assert_eq!((ours.origin(), theirs.origin()), (Origin::Outbound, Origin::Inbound));
    assert_eq!(ours.handshake_hash(), theirs.handshake_hash());
    assert_eq!(
        (&ours.peer_payload()[..], &theirs.peer_payload()[..]),
        (&b"of b"[..], &b"of a"[..])
    );
    assert_eq!(ours.remote_address(), Some(&Address::from(b.address)));
    // From where a dialled: only the acceptor saw it, and told.
    let seen = theirs.remote_address().unwrap().to_string();
    assert_eq!((ours.observed_address(), theirs.observed_address()), (&seen[..], ""));
    for (pool, lease) in [(&a.pool, &ours), (&b.pool, &theirs)] {
        assert!(!lease.is_retired());
        assert_eq!(pool.snapshot().sessions[0].session, lease.session_id());
        assert!(format!("{lease:?}").contains(&lease.session_id().to_string()), "{lease:?}");
    }
}

// ---- all leases --------------------------------------------------------------------------------

#[tokio::test]
async fn an_exclusive_lease_waits_for_those_that_are_out_and_then_is_alone() {
    for config in [Config::default(), max_leases(3)] {
        let pair = Pair::new(config);
        let (first, second) = (pair.lease().await, pair.lease().await);
        let (a, b) = (pair.a.clone(), pair.b.id());
        let mut asked = tokio::spawn(async move { a.get_exclusive(b).await.unwrap() });
        tokio::task::yield_now().await;
        assert!(pair.a.get(&b).is_none(), "nobody passes the one who waits for all");
        assert!(first.try_clone().is_none());
        first.send(bytes(1)).await.unwrap();
        drop(first);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!asked.is_finished(), "one lease is still out");
        second.send(bytes(2)).await.unwrap();
        drop(second);
        let alone = soon("the exclusive lease", &mut asked).await.unwrap();
        assert!(pair.a.get(&b).is_none());
        assert!(alone.try_clone().is_none());
        alone.send(bytes(3)).await.unwrap();
        drop(alone);
        drop(pair.lease().await);
        assert_eq!(pair.net.connects(), 1, "all on one session");
    }
}

#[tokio::test]
async fn an_exclusive_lease_dials_if_need_be() {
    let pair = Pair::new(Config::default());
    let lease = soon("a dial", pair.a.get_exclusive(pair.b.id())).await.unwrap();
    assert!(pair.a.get(&pair.b.id()).is_none());
    drop(lease);
    assert!(pair.a.get(&pair.b.id()).is_some());
}

#[tokio::test]
async fn the_holder_of_all_leases_receives_and_what_it_leaves_goes_to_the_inbox_in_order() {
    let mut pair = Pair::new(Config::default());
    let lease = pair.lease().await;
    let back = soon("the way back", pair.b.get_or_dial(pair.a.id())).await.unwrap();
    back.send(bytes(0)).await.unwrap();
    assert_eq!(number(&soon("before", pair.a_inbox.recv()).await.unwrap().body), 0);
    drop(lease);

    let mut alone = soon("all leases", pair.a.get_exclusive(pair.b.id())).await.unwrap();
    assert!(cancelled_after(1, alone.recv()).await.is_none(), "nothing is there yet");
    for n in 1..=6 {
        back.send(bytes(n)).await.unwrap();
    }
    for n in 1..=3 {
        assert_eq!(number(&soon("a message", alone.recv()).await.unwrap()), n);
    }
    drop(alone);
    back.send(bytes(7)).await.unwrap();
    for n in 4..=7 {
        let message = soon("what was left", pair.a_inbox.recv()).await.unwrap();
        assert_eq!((message.peer, number(&message.body)), (pair.b.id(), n));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_message_is_lost_or_reordered_while_the_diversion_begins_and_ends() {
    const MESSAGES: u32 = 4_000;
    let (a, mut b) = (Node::start(Config::default()).await, Node::start(Config::default()).await);
    let sending = tokio::spawn({
        let (pool, target) = (a.pool.clone(), b.target());
        async move {
            let lease = pool.get_or_dial(target).await.unwrap();
            for n in 0..MESSAGES {
                lease.send(bytes(n)).await.unwrap();
                if n % 16 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    until("connected", || b.pool.contains(&a.id())).await;
    // One reader of both, so that the order in which they are read can be told.
    let mut expected = 0;
    while expected < MESSAGES {
        let mut alone = soon("all leases", b.pool.get_exclusive(a.id())).await.unwrap();
        // What came before the diversion is in the inbox, and comes first.
        while let Some(message) = b.inbox.try_recv() {
            assert_eq!(number(&message.body), expected);
            expected += 1;
        }
        for _ in 0..37 {
            if expected == MESSAGES {
                break;
            }
            assert_eq!(number(&soon("a message", alone.recv()).await.unwrap()), expected);
            expected += 1;
        }
        drop(alone);
        while let Some(message) = b.inbox.try_recv() {
            assert_eq!(number(&message.body), expected);
            expected += 1;
        }
    }
    soon("the sender ends", sending).await.unwrap();
}

#[tokio::test]
async fn those_who_ask_behind_an_exclusive_lease_are_served_in_order() {
    for config in [Config::default(), max_leases(1), max_leases(3)] {
        let pair = Pair::new(config);
        let held = pair.lease().await;
        let log = Log::default();
        let tasks = [
            pair.ask_for_all(1, &log).await,
            pair.ask(2, &log).await,
            pair.ask_for_all(3, &log).await,
            pair.ask(4, &log).await,
        ];
        drop(held);
        for task in tasks {
            soon("it is served", task).await.unwrap();
        }
        assert_eq!(*log.lock().unwrap(), [1, 2, 3, 4]);
    }
}

#[tokio::test]
async fn who_gives_up_waiting_for_all_leases_after_any_poll_blocks_nobody() {
    for config in [Config::default(), max_leases(2)] {
        let pair = Pair::new(config);
        for polls in 1..8 {
            let (first, second) = (pair.lease().await, pair.lease().await);
            let (a, b) = (pair.a.clone(), pair.b.id());
            let quitter = tokio::spawn(async move {
                cancelled_after(polls, async {
                    let _alone = a.get_exclusive(b).await.unwrap();
                    std::future::pending::<()>().await;
                })
                .await
            });
            tokio::task::yield_now().await;
            let (a, b) = (pair.a.clone(), pair.b.id());
            let next = tokio::spawn(async move { a.get_exclusive(b).await.unwrap() });
            tokio::task::yield_now().await;
            drop(first);
            tokio::task::yield_now().await;
            drop(second);
            // Woken as often as it takes, it gives up at last, also as the holder.
            quitter.abort();
            let _ = soon("the quitter ends", quitter).await;
            drop(soon("the next one has all", next).await.unwrap());
            drop(pair.lease().await);
        }
        assert_eq!(pair.net.connects(), 1);
    }
}

#[tokio::test]
async fn who_waits_for_leases_of_a_session_that_dies_gets_those_of_the_next() {
    for config in [Config::default(), max_leases(1)] {
        let pair = Pair::new(config);
        let held = pair.lease().await;
        let old = held.session_id();
        let (a, b) = (pair.a.clone(), pair.b.id());
        let alone =
            tokio::spawn(async move { a.get_exclusive(b).await.map(|lease| lease.session_id()) });
        tokio::task::yield_now().await;
        let (a, b) = (pair.a.clone(), pair.b.id());
        let shared =
            tokio::spawn(async move { a.get_or_dial(b).await.map(|lease| lease.session_id()) });
        tokio::task::yield_now().await;
        pair.net.gates(pair.a.id(), pair.b.id())[0].cut();
        let alone = soon("all leases", alone).await.unwrap().unwrap();
        let shared = soon("a lease", shared).await.unwrap().unwrap();
        assert!(alone != old && shared == alone);
        assert_eq!(soon("the end", held.closed()).await, CloseReason::Truncated);
    }
}

#[tokio::test]
async fn the_holder_of_a_session_that_dies_reads_what_came_and_then_the_end() {
    let pair = Pair::new(Config::default());
    let mut alone = soon("all leases", pair.a.get_exclusive(pair.b.id())).await.unwrap();
    let back = pair.b.get(&pair.a.id()).unwrap();
    for n in 0..3 {
        back.send(bytes(n)).await.unwrap();
    }
    back.flush().await.unwrap();
    drop(back);
    soon("a drain", pair.b.drain(Duration::from_secs(5))).await;
    for n in 0..3 {
        assert_eq!(number(&soon("a message", alone.recv()).await.unwrap()), n);
    }
    assert_eq!(soon("the end", alone.recv()).await, None);
    assert_eq!(soon("the end again", alone.recv()).await, None);
}

// ---- outliving the session ---------------------------------------------------------------------

#[tokio::test]
async fn discard_ends_the_session_for_everybody_at_once() {
    let pair = Pair::new(Config::default());
    let (broken, other) = (pair.lease().await, pair.lease().await);
    let old = broken.session_id();
    broken.discard();
    assert!(!pair.a.contains(&pair.b.id()));
    assert!(pair.a.peers().is_empty());
    assert!(pair.a.get(&pair.b.id()).is_none());
    let refused = other.send(bytes(1)).await.unwrap_err();
    assert_eq!(refused.kind, SendErrorKind::Closed(CloseReason::Discarded));
    assert_eq!(refused.message, bytes(1), "the message comes back");
    assert_ne!(pair.lease().await.session_id(), old);
    assert_eq!(soon("the end", other.closed()).await, CloseReason::Discarded);
}

#[tokio::test]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs a ping")]
async fn a_handle_that_outlives_its_session_says_why_and_leaves_the_successor_alone() {
    let mut pair = Pair::new(Config::default());
    let stale: Vec<_> = [pair.lease().await, pair.lease().await, pair.lease().await].into();
    pair.lease().await.discard();
    let mut events = pair.a.subscribe();
    let fresh = pair.lease().await;
    let id = fresh.session_id();
    assert_ne!(stale[0].session_id(), id);

    for lease in &stale {
        assert!(lease.is_retired());
        let why = CloseReason::Discarded;
        assert_eq!(soon("closed", lease.closed()).await, why);
        let kind = SendErrorKind::Closed(why);
        assert_eq!(lease.send(bytes(9)).await.unwrap_err().kind, kind);
        assert_eq!(lease.try_send(bytes(9)).unwrap_err().kind, kind);
        assert_eq!(soon("ping", lease.ping()).await, Err(PingError::Closed(why)));
        // Nothing was left to flush.
        assert_eq!(soon("flush", lease.flush()).await, Ok(()));
        if let Some(clone) = lease.try_clone() {
            assert_eq!(clone.send(bytes(9)).await.unwrap_err().kind, kind);
        }
    }
    for lease in stale {
        lease.discard();
    }
    assert_eq!(pair.a.get(&pair.b.id()).unwrap().session_id(), id);
    soon("ping", fresh.ping()).await.unwrap();
    fresh.send(bytes(1)).await.unwrap();
    fresh.flush().await.unwrap();
    assert_eq!(number(&soon("a message", pair.b_inbox.recv()).await.unwrap().body), 1);
    assert!(pair.b_inbox.try_recv().is_none(), "nothing that was sent on the old handles");
    // Since the successor was opened, nothing but the old session has ended.
    while let Some(Ok(event)) = events.try_recv() {
        let closed = matches!(event, PoolEvent::Closed { session, .. } if session == id);
        assert!(!closed, "{event:?}");
    }
}

#[tokio::test]
async fn a_stale_exclusive_lease_takes_nothing_from_the_successor() {
    let mut pair = Pair::new(Config::default());
    let mut stale = soon("all leases", pair.a.get_exclusive(pair.b.id())).await.unwrap();
    pair.net.gates(pair.a.id(), pair.b.id())[0].cut();
    soon("the end", stale.closed()).await;
    let fresh = pair.lease().await;
    let back = soon("the way back", pair.b.get_or_dial(pair.a.id())).await.unwrap();
    back.send(bytes(1)).await.unwrap();
    assert_eq!(number(&soon("a message", pair.a_inbox.recv()).await.unwrap().body), 1);
    assert_eq!(soon("nothing", stale.recv()).await, None);
    drop(stale);
    assert_eq!(pair.a.get(&pair.b.id()).unwrap().session_id(), fresh.session_id());
}

#[tokio::test]
async fn what_was_not_flushed_when_the_session_died_is_an_error() {
    let pair = Pair::new(Config::default());
    let lease = pair.lease().await;
    let gate = &pair.net.gates(pair.a.id(), pair.b.id())[0];
    fill(&lease, gate).await;
    let flushing = lease.flush();
    gate.cut();
    let SessionClosed(why) = soon("flush", flushing).await.unwrap_err();
    assert_eq!(why, soon("the end", lease.closed()).await);
}

/// Holds what the dialler sends from here on, and sends until nothing more is taken. The number of
/// messages that were accepted.
async fn fill(lease: &Lease, gate: &support::net::gate::Gate) -> u32 {
    let big = Bytes::from(vec![7; BIG]);
    // Frames that have passed so far may pass; nothing that comes later.
    gate.hold(Way::ToResponder);
    let mut accepted = 0;
    loop {
        match lease.try_send(big.clone()) {
            Ok(()) => accepted += 1,
            Err(error) => {
                assert_eq!(error.kind, SendErrorKind::Full);
                // The driver may still take some.
                let more = lease.send(big.clone());
                match tokio::time::timeout(Duration::from_millis(200), more).await {
                    Ok(sent) => sent.unwrap(),
                    Err(_) => return accepted,
                }
                accepted += 1;
            }
        }
    }
}

// ---- Pool::send --------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn send_dials_once_more_when_the_session_dies_before_the_message_is_accepted() {
    let mut pair = Pair::new(Config::default());
    let lease = pair.lease().await;
    let gate = pair.net.gates(pair.a.id(), pair.b.id())[0].clone();
    fill(&lease, &gate).await;
    drop(lease);
    // As long as those that filled the queue, so that there is no room for it.
    let late = Bytes::from(vec![5; BIG]);
    let (a, b, message) = (pair.a.clone(), pair.b.id(), late.clone());
    let sending = tokio::spawn(async move { a.send(b, message).await });
    tokio::task::yield_now().await;
    assert!(!sending.is_finished(), "it waits for room");
    gate.cut();
    soon("it is sent", sending).await.unwrap().unwrap();
    assert_eq!(pair.net.connects(), 2, "one redial");
    let mut carried = 0;
    while soon("it arrives", pair.b_inbox.recv()).await.unwrap().body != late {
        carried += 1;
    }
    assert_eq!(carried, pair.a.stats().messages_carried, "what the first session had not sent");
    soon("a drain", pair.a.drain(Duration::from_secs(5))).await;
    assert!(pair.b_inbox.try_recv().is_none(), "once, and nothing of what was lost");
}

#[tokio::test(start_paused = true)]
async fn send_gives_the_message_back_when_the_redial_fails() {
    let pair = Pair::new(Config::default());
    let lease = pair.lease().await;
    let gate = pair.net.gates(pair.a.id(), pair.b.id())[0].clone();
    fill(&lease, &gate).await;
    drop(lease);
    let late = Bytes::from(vec![5; BIG]);
    let (a, b, message) = (pair.a.clone(), pair.b.id(), late.clone());
    let sending = tokio::spawn(async move { a.send(b, message).await });
    tokio::task::yield_now().await;
    assert!(!sending.is_finished(), "it waits for room");
    pair.net.default_line(Line::REFUSES);
    gate.cut();
    match soon("it fails", sending).await.unwrap().unwrap_err() {
        SendToError::Dial { message, source } => {
            assert_eq!(message, late, "untouched");
            assert!(matches!(source.cause(), DialError::Connect { .. }), "{source:?}");
            assert!(matches!(source.retry(), Retry::At(_)), "{source:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(pair.net.connects(), 2);
}

#[tokio::test]
async fn send_does_not_repeat_what_no_session_would_take() {
    let pair = Pair::new(Config::default().max_message_size(1_000));
    let big = Bytes::from(vec![0; 1_001]);
    match soon("it fails", pair.a.send(pair.b.id(), big.clone())).await.unwrap_err() {
        SendToError::Send(error) => {
            assert_eq!(error.kind, SendErrorKind::TooLarge { len: 1_001, limit: 1_000 });
            assert_eq!(error.message, big);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(pair.net.connects(), 1);
}

// ---- deadlines ---------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_message_that_expires_in_the_queue_is_dropped_counted_and_delays_nobody() {
    let mut pair = Pair::new(Config::default());
    let lease = pair.lease().await;
    let gate = pair.net.gates(pair.a.id(), pair.b.id())[0].clone();
    let full = fill(&lease, &gate).await;
    drop(lease);
    let deadline = Instant::now() + Duration::from_secs(3);
    let lease = pair.lease().await;

    // What waits for room is given back; what is over before it begins is not even offered.
    let options = SendOptions::default().deadline(deadline.into());
    let began = Instant::now();
    let late = soon("it expires", lease.send_with(Bytes::from(vec![1; BIG]), options)).await;
    assert_eq!(late.unwrap_err().kind, SendErrorKind::Expired);
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    assert_eq!(
        lease.try_send_with(bytes(1), options).unwrap_err().kind,
        SendErrorKind::Expired,
        "its deadline has passed"
    );

    gate.open_all();
    for _ in 0..full {
        soon("the rest arrives", pair.b_inbox.recv()).await.unwrap();
    }
    drop(lease);
    let report = soon("a drain", pair.a.drain(Duration::from_secs(5))).await;
    assert_eq!(report.messages.expired, 0, "nothing was accepted that expired");
    assert_eq!(report.messages.delivered, confirmed(full.into()));
}

#[tokio::test(start_paused = true)]
async fn expired_messages_are_told_from_delivered_ones() {
    let mut pair = Pair::new(Config::default());
    let lease = pair.lease().await;
    let gate = pair.net.gates(pair.a.id(), pair.b.id())[0].clone();
    gate.hold(Way::ToResponder);
    // More than the stream and one batch hold, so that what follows stays in the queue.
    let big = Bytes::from(vec![7; BIG]);
    for _ in 0..12 {
        lease.send(big.clone()).await.unwrap();
        tokio::task::yield_now().await;
    }
    let soon_over =
        SendOptions::default().deadline((Instant::now() + Duration::from_secs(1)).into());
    let later =
        SendOptions::default().deadline((Instant::now() + Duration::from_secs(3600)).into());
    for n in 0..10 {
        let options = if n % 2 == 0 { soon_over } else { later };
        lease.send_with(bytes(n), options).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    gate.open_all();
    soon("flush", lease.flush()).await.unwrap();
    for _ in 0..12 {
        assert_eq!(soon("a big one", pair.b_inbox.recv()).await.unwrap().body, big);
    }
    for n in [1, 3, 5, 7, 9] {
        assert_eq!(number(&soon("in time", pair.b_inbox.recv()).await.unwrap().body), n);
    }
    assert_eq!(pair.a.snapshot().sessions[0].expired, 5);
    drop(lease);
    let report = soon("a drain", pair.a.drain(Duration::from_secs(5))).await.messages;
    assert_eq!((report.accepted, report.expired), (22, 5));
    assert_eq!((report.delivered, report.unknown), (confirmed(17), unconfirmed(17)));
    assert!(pair.b_inbox.try_recv().is_none());
    assert_eq!(pair.a.stats().messages_expired, 5);
}
