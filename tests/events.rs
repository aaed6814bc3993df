//! Events: what happens in a pool is told in the order in which it happens, and to the end.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use noise_pool::config::WhenFull;
use noise_pool::error::{CloseReason, Limit};
use noise_pool::event::{DialFailure, Events, Lagged, PoolEvent};
use noise_pool::{AttemptId, Config, Disconnect, Identity, Inbox, SessionId, Target};

use support::net::gate::Way;
use support::net::{Line, Net};
use support::{Node, confirmed, identity, soon, until};

const LONG: Duration = Duration::from_secs(3600);

/// All that is there now.
fn told(events: &mut Events) -> Vec<PoolEvent> {
    std::iter::from_fn(|| events.try_recv()).map(|event| event.unwrap()).collect()
}

/// Everything up to the end of the pool.
async fn all(mut events: Events) -> Vec<PoolEvent> {
    let mut all = Vec::new();
    while let Some(event) = soon("the next event, or the end", events.recv()).await {
        all.push(event.unwrap());
    }
    all
}

fn opened(events: &[PoolEvent]) -> Vec<SessionId> {
    let id = |event: &PoolEvent| match event {
        PoolEvent::Opened { session, .. } => Some(*session),
        _ => None,
    };
    events.iter().filter_map(id).collect()
}

fn closed(events: &[PoolEvent]) -> Vec<(SessionId, CloseReason)> {
    let id = |event: &PoolEvent| match event {
        PoolEvent::Closed { session, reason, .. } => Some((*session, *reason)),
        _ => None,
    };
    events.iter().filter_map(id).collect()
}

/// How each dial ended; every dial must have begun before and end once.
fn dial_ends(events: &[PoolEvent]) -> HashMap<AttemptId, Option<DialFailure>> {
    let mut begun = HashSet::new();
    let mut ended = HashMap::new();
    for event in events {
        match event {
            PoolEvent::DialStarted { attempt, .. } => assert!(begun.insert(*attempt)),
            PoolEvent::DialSucceeded { attempt, .. } => {
                assert!(begun.remove(attempt) && ended.insert(*attempt, None).is_none());
            }
            PoolEvent::DialFailed { attempt, cause, .. } => {
                assert!(begun.remove(attempt) && ended.insert(*attempt, Some(*cause)).is_none());
            }
            _ => {}
        }
    }
    assert!(begun.is_empty(), "dials that never ended: {begun:?}");
    ended
}

/// What a reader of both events and messages has seen.
#[derive(Default)]
struct Book {
    opened: HashSet<SessionId>,
    closed: HashSet<SessionId>,
    messages: HashMap<SessionId, u64>,
}

impl Book {
    /// At the end of a session, all its messages must be in the inbox, or have been taken.
    fn note(&mut self, event: PoolEvent, inbox: &mut Inbox) {
        match event {
            PoolEvent::Opened { session, .. } => assert!(self.opened.insert(session)),
            PoolEvent::Closed { session, report, .. } => {
                assert!(self.opened.contains(&session) && self.closed.insert(session));
                while let Some(message) = inbox.try_recv() {
                    *self.messages.entry(message.session).or_default() += 1;
                }
                let count = self.messages.get(&session).copied().unwrap_or_default();
                assert_eq!(count, report.received, "a message came after Closed");
            }
            _ => {}
        }
    }

    /// Reads all events that are there.
    fn catch_up(&mut self, events: &mut Events, inbox: &mut Inbox) {
        while let Some(event) = events.try_recv() {
            self.note(event.unwrap(), inbox);
        }
        // Each of these was in the inbox before the look that found no further event.
        for session in self.messages.keys() {
            assert!(self.opened.contains(session), "a message came before Opened");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_is_opened_before_its_first_message_and_closed_after_its_last() {
    const SESSIONS: usize = 40;
    const MESSAGES: u64 = 50;
    let mut node = Node::start(Config::default()).await;
    let mut events = node.pool.subscribe();
    let target = node.target();
    let dialling = tokio::spawn(async move {
        let mut leaving = Vec::new();
        for _ in 0..SESSIONS {
            let dialler = Node::start(Config::default()).await;
            let lease = dialler.pool.get_or_dial(target.clone()).await.unwrap();
            for _ in 0..MESSAGES {
                lease.send(Bytes::from_static(b"x")).await.unwrap();
            }
            drop(lease);
            // Its messages are under way when it leaves.
            leaving.push(tokio::spawn(async move { dialler.pool.drain(LONG).await }));
        }
        for drain in leaving {
            assert_eq!(drain.await.unwrap().messages.delivered, confirmed(MESSAGES));
        }
    });
    let mut book = Book::default();
    while book.closed.len() < SESSIONS {
        tokio::select! {
            biased;
            message = node.inbox.recv() => {
                *book.messages.entry(message.unwrap().session).or_default() += 1;
            }
            event = soon("an event", events.recv()) => {
                book.note(event.unwrap().unwrap(), &mut node.inbox);
            }
        }
        book.catch_up(&mut events, &mut node.inbox);
    }
    soon("the dials end", dialling).await.unwrap();
    assert_eq!(book.messages.len(), SESSIONS);
    assert!(book.messages.values().all(|count| *count == MESSAGES), "{:?}", book.messages);
}

#[tokio::test]
async fn a_dial_a_session_and_the_end_of_the_pool_are_told_in_order() {
    let net = Net::default();
    let (a, _a_inbox) = net.pool(identity(1), Config::default());
    let (b, mut b_inbox) = net.pool(identity(2), Config::default());
    let (events, b_events) = (a.subscribe(), b.subscribe());
    let lease = soon("a dial", a.get_or_dial(b.id())).await.unwrap();
    let id = lease.session_id();
    lease.send(Bytes::from_static(b"x")).await.unwrap();
    drop(lease);
    soon("a drain", a.drain(LONG)).await;
    assert!(b_inbox.recv().await.is_some());

    let told = all(events).await;
    let names: Vec<_> = told
        .iter()
        .map(|event| match event {
            PoolEvent::DialStarted { peer, .. } if *peer == b.id() => "dial started",
            PoolEvent::DialSucceeded { peer, session, .. } if *peer == b.id() => {
                assert_eq!(*session, id);
                "dial succeeded"
            }
            PoolEvent::Opened { session, .. } if *session == id => "opened",
            PoolEvent::Closed { session, reason, report, .. } if *session == id => {
                assert_eq!(*reason, CloseReason::Drained);
                assert_eq!((report.accepted, report.delivered), (1, confirmed(1)));
                "closed"
            }
            other => panic!("{other:?}"),
        })
        .collect();
    // Whether the dial or the session is told first is not promised.
    assert_eq!(names.first(), Some(&"dial started"));
    assert_eq!(names.last(), Some(&"closed"));
    assert_eq!(names.len(), 4, "{names:?}");

    soon("the other ends", b.close()).await;
    let told = all(b_events).await;
    assert_eq!(opened(&told).len(), 1);
    assert_eq!(closed(&told).len(), 1);
    let none = a.subscribe();
    assert!(all(none).await.is_empty(), "a subscription to what has ended ends at once");
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_how_many_it_lost() {
    let net = Net::default();
    let (a, _a_inbox) = net.pool(identity(1), Config::default().event_capacity(4));
    let (b, _b_inbox) = net.pool(identity(2), Config::default());
    let mut slow = a.subscribe();
    for _ in 0..5 {
        // Started, succeeded, opened, closed.
        let lease = soon("a dial", a.get_or_dial(b.id())).await.unwrap();
        let mut last = a.subscribe();
        lease.discard();
        while closed(&told(&mut last)).is_empty() {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(soon("the news", slow.recv()).await, Some(Err(Lagged(16))));
    let rest = told(&mut slow);
    assert_eq!((rest.len(), closed(&rest).len()), (4, 1), "{rest:?}");
    // From here on it has lost nothing.
    drop(soon("a dial", a.get_or_dial(b.id())).await.unwrap());
    assert_eq!(opened(&told(&mut slow)).len(), 1);
}

#[tokio::test]
async fn events_end_with_the_pool_however_it_ends() {
    for ending in ["drain", "close", "drop"] {
        let (pool, _inbox) = noise_pool::Pool::builder(Identity::generate()).build().unwrap();
        let mut events = pool.subscribe();
        let waiting = tokio::spawn(async move { events.recv().await });
        tokio::task::yield_now().await;
        match ending {
            "drain" => drop(soon(ending, pool.drain(LONG)).await),
            "close" => soon(ending, pool.close()).await,
            _ => drop(pool),
        }
        assert_eq!(soon("the end", waiting).await.unwrap(), None, "{ending}");
    }
}

#[tokio::test]
async fn every_dial_that_is_told_to_begin_is_told_to_end_once() {
    // The smaller key: its committed dials are superseded by the peer's.
    let (small, large) = support::ordered_identities();
    let net = Net::default();
    let config = Config::default().max_concurrent_dials(3);
    let (a, _a_inbox) = net.pool(small, config);
    let (b, _b_inbox) = net.pool(large, Config::default());
    let events = a.subscribe();

    // It succeeds.
    soon("a dial", a.get_or_dial(b.id())).await.unwrap().discard();
    until("it is gone", || a.snapshot().sessions.is_empty() && b.snapshot().sessions.is_empty())
        .await;
    // Nobody waits any more; before that, in each phase before commit.
    let absent = identity(3).peer_id();
    net.never_resolve(absent);
    for polls in 1..4 {
        assert!(support::cancelled_after(polls.min(1), a.get_or_dial(absent)).await.is_none());
        tokio::task::yield_now().await;
    }
    // The application disconnects.
    let (pool, dialling) = (
        a.clone(),
        tokio::spawn({
            let a = a.clone();
            async move { a.get_or_dial(absent).await }
        }),
    );
    until("it dials", || a.snapshot().dials.len() == 1).await;
    assert!(pool.disconnect(&absent, Disconnect::drain()));
    assert!(soon("its end", dialling).await.unwrap().is_err());
    // An inbound session takes its place, before and after the commit.
    net.default_line(Line::Gated);
    for committed in [false, true] {
        let n = net.gates(a.id(), b.id()).len();
        let ours = tokio::spawn({
            let (a, b) = (a.clone(), b.id());
            async move { a.get_or_dial(b).await }
        });
        let gate = net.gate(a.id(), b.id(), n).await;
        gate.arrived(Way::ToResponder, 1).await;
        if committed {
            gate.pass(Way::ToResponder, 1);
            gate.pass(Way::ToInitiator, 1);
            gate.arrived(Way::ToResponder, 2).await;
        }
        let m = net.gates(b.id(), a.id()).len();
        let theirs = tokio::spawn({
            let (a, b) = (a.id(), b.clone());
            async move { b.get_or_dial(a).await }
        });
        net.gate(b.id(), a.id(), m).await.open_all();
        let theirs = soon("their dial", theirs).await.unwrap().unwrap();
        let ours = soon("our dial", ours).await.unwrap().unwrap();
        assert_eq!(theirs.handshake_hash(), ours.handshake_hash());
        gate.cut();
        ours.discard();
        until("it is gone", || {
            a.snapshot().sessions.is_empty() && b.snapshot().sessions.is_empty()
        })
        .await;
    }
    // It fails, and the pool ends while one is under way.
    net.default_line(Line::REFUSES);
    assert!(soon("a dial", a.get_or_dial(b.id())).await.is_err());
    let last = tokio::spawn({
        let a = a.clone();
        async move { a.get_or_dial(absent).await }
    });
    until("it dials", || a.snapshot().dials.len() == 1).await;
    soon("a close", a.close()).await;
    assert!(soon("its end", last).await.unwrap().is_err());

    let told = all(events).await;
    let mut ends: Vec<_> = dial_ends(&told).into_iter().collect();
    ends.sort_by_key(|(attempt, _)| *attempt);
    let ends: Vec<_> = ends.into_iter().map(|(_, end)| end).collect();
    assert_eq!(
        ends,
        [
            None,
            Some(DialFailure::Cancelled),
            Some(DialFailure::Cancelled),
            Some(DialFailure::Cancelled),
            Some(DialFailure::Disconnected),
            Some(DialFailure::Superseded),
            Some(DialFailure::Superseded),
            Some(DialFailure::Connect),
            Some(DialFailure::PoolClosed),
        ]
    );
    let stats = a.stats();
    let failures = stats.dial_failures;
    assert_eq!(stats.dials, 9);
    assert_eq!((failures.cancelled, failures.disconnected, failures.superseded), (3, 1, 2));
    assert_eq!((failures.connect, failures.pool_closed), (1, 1));
}

#[tokio::test]
async fn an_eviction_and_a_limit_are_told() {
    let net = Net::default();
    let config = Config::default().max_sessions(1).max_inbound(1).when_full(WhenFull::Fail);
    let (a, _a_inbox) = net.pool(identity(1), config);
    let (b, _b_inbox) = net.pool(identity(2), Config::default());
    let (c, _c_inbox) = net.pool(identity(3), Config::default());
    let mut events = a.subscribe();
    let lease = soon("a dial", a.get_or_dial(b.id())).await.unwrap();
    let old = lease.session_id();
    assert!(soon("a limit", a.get_or_dial(c.id())).await.is_err());
    let hit = told(&mut events);
    let sessions = |event: &_| matches!(event, PoolEvent::LimitHit { limit: Limit::Sessions, .. });
    assert!(hit.iter().any(sessions), "{hit:?}");
    drop(lease);
    drop(soon("a dial", a.get_or_dial(c.id())).await.unwrap());
    until("the old one ends", || a.snapshot().sessions.len() == 1).await;
    let told = told(&mut events);
    let evicted = |event: &_| matches!(event, PoolEvent::Evicted { peer, session, .. } if (*peer, *session) == (b.id(), old));
    let at = told.iter().position(evicted).expect("told");
    assert_eq!(closed(&told[at..]), [(old, CloseReason::Evicted)], "{told:?}");
    assert_eq!(a.stats().evicted, 1);
}

#[tokio::test]
async fn what_a_disconnect_loses_is_told_with_the_end() {
    let net = Net::default();
    let (a, _a_inbox) = net.pool(identity(1), Config::default());
    let (b, _b_inbox) = net.pool(identity(2), Config::default());
    let mut events = a.subscribe();
    let lease = soon("a dial", a.get_or_dial(Target::new(b.id()))).await.unwrap();
    let gate = net.gates(a.id(), b.id())[0].clone();
    gate.hold(Way::ToResponder);
    for _ in 0..7 {
        lease.send(Bytes::from_static(b"x")).await.unwrap();
    }
    a.disconnect(&b.id(), Disconnect::now());
    assert_eq!(soon("the end", lease.closed()).await, CloseReason::Disconnected);
    let report = told(&mut events).into_iter().find_map(|event| match event {
        PoolEvent::Closed { report, .. } => Some(report),
        _ => None,
    });
    let report = report.expect("told before those who wait for the end are woken");
    assert_eq!((report.accepted, report.delivered, report.unknown, report.unsent), (7, 0, 0, 7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_hears_a_verdict_finds_it_counted_and_told() {
    // As often as it takes to meet the two ends' tasks in another order.
    for _ in 0..1_000 {
        let net = Net::default();
        let (host, _hosts) =
            net.pool(identity(1), Config::default().max_sessions(4).max_inbound(1));
        let (guest, _guests) = net.pool(identity(2), Config::default());
        let (late, _lates) = net.pool(identity(3), Config::default());
        let mut events = host.subscribe();

        let _lease = guest.get_or_dial(host.id()).await.unwrap();
        assert_eq!(host.stats().handshakes_accepted, 1);
        assert_eq!(opened(&told(&mut events)).len(), 1);
        let _busy = host.get(&guest.id()).unwrap();
        late.get_or_dial(host.id()).await.unwrap_err();
        assert_eq!(host.stats().rejected_by_us.full, 1);
        assert!(told(&mut events).iter().any(|e| matches!(e, PoolEvent::Rejected { .. })));
    }
}
