//! One dial for all who ask at the same time: it belongs to the pool and to no caller.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use noise_pool::error::{DialError, Retry};
use noise_pool::event::{DialFailure, PoolEvent};
use noise_pool::io::{BoxFuture, BoxedStream, TargetData};
use noise_pool::snapshot::{DialPhase, Snapshot};
use noise_pool::{Address, Config, Connector, Lease, Pool, Target, TcpConnector};
use support::net::gate::Way;
use support::net::{Line, Net, address};
use support::{Node, identity, soon, until};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::Instant;

const CALLERS: usize = 1_000;

/// Nothing is held: neither slots nor permits.
fn at_rest(snapshot: &Snapshot) -> bool {
    let limits = &snapshot.limits;
    let held = [
        limits.sessions,
        limits.inbound,
        limits.draining,
        limits.dials,
        limits.queued_dials,
        limits.pending_handshakes,
        limits.discarding,
    ];
    snapshot.sessions.is_empty()
        && snapshot.dials.is_empty()
        && held.iter().all(|limit| limit.held == 0)
}

fn waiters(pool: &Pool) -> u32 {
    pool.snapshot().dials.iter().map(|dial| dial.waiters).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_tasks_and_an_absent_peer_share_one_dial() {
    let net = Net::default();
    let (a, _inbox_a) = net.pool(identity(1), Config::default());
    let (b, _inbox_b) = net.pool(identity(2), Config::default());
    net.default_line(Line::Gated);

    let barrier = Arc::new(Barrier::new(CALLERS));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (a, peer, barrier) = (a.clone(), b.id(), barrier.clone());
        callers.spawn(async move {
            barrier.wait().await;
            a.get_or_dial(peer).await
        });
    }
    let gate = net.gate(a.id(), b.id(), 0).await;
    gate.pass(Way::ToResponder, 1);
    soon("message 2 is written", gate.arrived(Way::ToInitiator, 1)).await;
    until("all callers wait", || waiters(&a) == CALLERS as u32).await;
    gate.open_all();

    let outcomes = soon("all callers are served", callers.join_all()).await;
    let leases: Vec<Lease> = outcomes.into_iter().collect::<Result<_, _>>().unwrap();
    assert!(leases.iter().all(|lease| lease.session_id() == leases[0].session_id()));
    assert_eq!(net.connects(), 1);
    assert_eq!(b.stats().handshakes_accepted, 1);
    let stats = a.stats();
    assert_eq!((stats.dials, stats.dials_shared, stats.dials_succeeded), (1, 999, 1));
    let snapshot = a.snapshot();
    assert_eq!(snapshot.sessions.len(), 1);
    assert_eq!(snapshot.sessions[0].leases as usize, CALLERS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_thousand_requests_to_three_peers_use_three_sockets() {
    /// TCP, and how many sockets were opened.
    #[derive(Clone, Default)]
    struct Counting(TcpConnector, Arc<std::sync::atomic::AtomicU64>);

    impl Connector for Counting {
        fn connect<'a>(
            &'a self,
            address: &'a Address,
            data: Option<&'a TargetData>,
        ) -> BoxFuture<'a, std::io::Result<BoxedStream>> {
            self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.0.connect(address, data)
        }
    }

    let sockets = Counting::default();
    let (a, _inbox) = Pool::builder(identity(1)).connector(sockets.clone()).build().unwrap();
    let mut peers = Vec::new();
    for n in 2..5 {
        peers.push(Node::start_as(identity(n), Config::default()).await);
    }

    let barrier = Arc::new(Barrier::new(3 * CALLERS));
    let mut callers = JoinSet::new();
    for n in 0..3 * CALLERS {
        let (a, target, barrier) = (a.clone(), peers[n % 3].target(), barrier.clone());
        callers.spawn(async move {
            barrier.wait().await;
            a.send(target, Bytes::from(n.to_string())).await
        });
    }
    for sent in soon("all messages are sent", callers.join_all()).await {
        sent.unwrap();
    }
    assert_eq!(sockets.1.load(std::sync::atomic::Ordering::Relaxed), 3);
    for (n, peer) in peers.iter_mut().enumerate() {
        let mut numbers: Vec<usize> = Vec::new();
        let mut sessions = Vec::new();
        for _ in 0..CALLERS {
            let message = soon("a message arrives", peer.inbox.recv()).await.unwrap();
            numbers.push(String::from_utf8(message.body.to_vec()).unwrap().parse().unwrap());
            sessions.push(message.session);
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (0..CALLERS).map(|k| 3 * k + n).collect::<Vec<_>>());
        sessions.dedup();
        assert_eq!(sessions.len(), 1);
        assert_eq!(peer.pool.stats().handshakes_accepted, 1);
        assert_eq!(peer.pool.snapshot().limits.pending_handshakes.high_water, 1);
    }
    assert_eq!(a.stats().dials, 3);
}

type Call = Pin<Box<dyn Future<Output = Result<Lease, DialError>> + Send>>;

fn call(pool: &Pool, target: impl Into<Target>) -> Call {
    let (pool, target) = (pool.clone(), target.into());
    Box::pin(async move { pool.get_or_dial(target).await })
}

/// Polls the call once, whoever wakes it.
async fn poll_once(call: &mut Call) -> Poll<Result<Lease, DialError>> {
    poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await
}

/// Lets every other task that can run be polled once. Only within a spawned task: the runtime polls
/// the test's own future, and one that calls `yield_now`, far less often than that.
async fn turn() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Polls the call `turns` times, each time after everything else had its turn. Whether the call is
/// done by then.
async fn advance(call: &mut Call, turns: usize) -> bool {
    for _ in 0..turns {
        turn().await;
        if poll_once(call).await.is_ready() {
            return true;
        }
    }
    false
}

#[tokio::test(start_paused = true)]
async fn the_first_caller_is_dropped_at_any_await_and_the_others_get_their_session() {
    tokio::spawn(drop_the_first_caller()).await.unwrap();
}

async fn drop_the_first_caller() {
    let mut turns = 0;
    loop {
        let net = Net::default();
        let (a, _inbox_a) = net.pool(identity(1), Config::default());
        let (b, _inbox_b) = net.pool(identity(2), Config::default());
        let mut first = call(&a, b.id());
        assert!(poll_once(&mut first).await.is_pending());
        let mut others: Vec<Call> = (0..3).map(|_| call(&a, b.id())).collect();
        for other in &mut others {
            assert!(poll_once(other).await.is_pending());
        }
        assert_eq!(waiters(&a), 4, "the first caller has begun the dial, the others joined");

        let done = advance(&mut first, turns).await;
        drop(first);
        let mut sessions = Vec::new();
        for other in others {
            sessions.push(soon("the others are served", other).await.unwrap().session_id());
        }
        sessions.dedup();
        assert_eq!(sessions.len(), 1, "after {turns} turns");
        let stats = a.stats();
        assert_eq!((stats.dials, stats.dials_shared, net.connects()), (1, 3, 1));
        if done {
            break;
        }
        turns += 1;
    }
    assert!(turns > 5, "the dial has more awaits than that: {turns}");
}

#[tokio::test(start_paused = true)]
async fn all_callers_are_dropped_at_any_await_and_the_dial_stops_or_is_pooled() {
    tokio::spawn(drop_all_callers()).await.unwrap();
}

async fn drop_all_callers() {
    let (mut stopped, mut pooled) = (0, 0);
    let mut turns = 0;
    loop {
        let net = Net::default();
        let (a, mut inbox_a) = net.pool(identity(1), Config::default());
        let (b, _inbox_b) = net.pool(identity(2), Config::default());
        let mut events = a.subscribe();
        let mut first = call(&a, b.id());
        let mut second = call(&a, b.id());
        let mut done = false;
        if turns > 0 {
            assert!(poll_once(&mut first).await.is_pending());
            assert!(poll_once(&mut second).await.is_pending());
            done = advance(&mut first, turns).await;
        }
        let committed = done
            || a.contains(&b.id())
            || a.snapshot().dials.iter().any(|dial| dial.phase == DialPhase::Committed);
        drop((first, second));
        if committed {
            pooled += 1;
            // The peer may have accepted: it is not cut, and what the peer sent on it arrives.
            until("it is pooled", || a.contains(&b.id()) && b.contains(&a.id())).await;
            let sessions = a.snapshot().sessions;
            assert_eq!((sessions.len(), sessions[0].leases), (1, 0));
            b.get(&a.id()).unwrap().send(Bytes::from_static(b"hello")).await.unwrap();
            let message = soon("the message arrives", inbox_a.recv()).await.unwrap();
            assert_eq!((message.peer, &message.body[..]), (b.id(), &b"hello"[..]));
        } else {
            stopped += 1;
            until("the dial's end is told", || {
                a.stats().dial_failures.cancelled == a.stats().dials
            })
            .await;
            assert_eq!(a.snapshot().dials, [], "gone with its last caller");
            until("nothing remains", || at_rest(&a.snapshot()) && at_rest(&b.snapshot())).await;
            assert_eq!(a.stats().opened + b.stats().opened, 0);
            let mut told = std::iter::from_fn(|| events.try_recv()).map(Result::unwrap);
            if turns > 0 {
                assert!(matches!(told.next(), Some(PoolEvent::DialStarted { .. })));
                let end = told.next().unwrap();
                assert!(
                    matches!(end, PoolEvent::DialFailed { cause: DialFailure::Cancelled, .. }),
                    "{end:?}"
                );
            }
            assert_eq!(told.next(), None);
        }
        if done {
            break;
        }
        turns += 1;
    }
    assert!(stopped > 3 && pooled > 1, "both sides of the commit: {stopped}, {pooled}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_overtakes_the_verdict_of_a_dial_without_callers_arrives() {
    let net = Net::default();
    let (a, mut inbox_a) = net.pool(identity(1), Config::default());
    let (b, _inbox_b) = net.pool(identity(2), Config::default());
    net.default_line(Line::Gated);
    let caller = tokio::spawn(call(&a, b.id()));
    let gate = net.gate(a.id(), b.id(), 0).await;
    gate.pass(Way::ToResponder, 2);
    gate.pass(Way::ToInitiator, 1);
    // The verdict waits at the gate: B has accepted, A does not know.
    soon("the verdict is written", gate.arrived(Way::ToInitiator, 2)).await;
    b.get(&a.id()).unwrap().send(Bytes::from_static(b"early")).await.unwrap();
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert_eq!(waiters(&a), 0);

    gate.open_all();
    let message = soon("the message arrives", inbox_a.recv()).await.unwrap();
    assert_eq!((message.peer, &message.body[..]), (b.id(), &b"early"[..]));
    let sessions = a.snapshot().sessions;
    assert_eq!((sessions.len(), sessions[0].leases), (1, 0));
    assert_eq!(a.get(&b.id()).unwrap().session_id(), message.session);
}

/// What a thousand callers got from a peer that cannot be reached: one error, and when to retry.
async fn a_thousand_failures(a: &Pool, peer: noise_pool::PeerId) -> (String, Instant) {
    let callers: JoinSet<_> = (0..CALLERS).map(|_| call(a, peer)).collect();
    let mut errors = soon("all callers are told", callers.join_all())
        .await
        .into_iter()
        .map(Result::unwrap_err)
        .map(|error| match error.retry() {
            Retry::At(until) => (error.to_string(), until.into()),
            other => panic!("{error} does not say when to retry: {other:?}"),
        })
        .collect::<Vec<_>>();
    errors.dedup();
    assert_eq!(errors.len(), 1, "all get the same error");
    errors.remove(0)
}

/// A thousand callers cost one dial of `line`, a thousand more within the backoff none, and a
/// thousand after it one again.
async fn storm(line: Line, one_timeout: Duration, cause: &str) {
    let net = Net::default();
    let (a, _inbox_a) = net.pool(identity(1), Config::default());
    let (b, _inbox_b) = net.pool(identity(2), Config::default());
    net.line(&address(b.id(), 1), line);

    let began = Instant::now();
    let (error, until) = a_thousand_failures(&a, b.id()).await;
    assert!(error.contains(cause), "{error}");
    let took = began.elapsed();
    assert!(took <= one_timeout + Duration::from_millis(50), "one timeout, not more: {took:?}");
    assert_eq!((net.connects(), a.stats().dials, a.stats().dials_shared), (1, 1, 999));
    assert!(until > Instant::now());
    assert!(at_rest(&a.snapshot()));

    let (again, same) = a_thousand_failures(&a, b.id()).await;
    assert_eq!((&again, same), (&error, until), "within the backoff the same answer, at once");
    assert_eq!((net.connects(), a.stats().backoffs), (1, 1_000));
    assert!(began.elapsed() <= took + Duration::from_millis(1));

    tokio::time::sleep_until(until).await;
    let (_, next) = a_thousand_failures(&a, b.id()).await;
    assert_eq!(net.connects(), 2, "after the backoff one dial again");
    assert!(next > until);

    // An address that was not tried is dialled all the same, and a success ends the backoff.
    let lease = call(&a, Target::new(b.id()).address(address(b.id(), 2)));
    let lease = soon("the new address is dialled", lease).await.unwrap();
    assert_eq!(lease.remote_address(), Some(&address(b.id(), 2)));
    assert_eq!(net.connects(), 3);
    assert_eq!(a.get_or_dial(b.id()).await.unwrap().session_id(), lease.session_id());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_refuses_costs_one_dial_however_many_ask() {
    storm(Line::REFUSES, Duration::ZERO, "failed").await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_connects_and_never_answers_costs_one_timeout_however_many_ask() {
    storm(Line::Gated, Duration::from_secs(10), "handshake").await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_never_connects_costs_one_timeout_however_many_ask() {
    storm(Line::SILENT, Duration::from_secs(10), "connecting").await;
}
