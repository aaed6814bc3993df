//! The first message travels with the handshake: it arrives before the verdict comes back, is sent once
//! whatever becomes of the dial, and counts where it should.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use noise_pool::error::{DialError, RejectReason, SendToError};
use noise_pool::io::BoxFuture;
use noise_pool::{Config, Hooks, Inbox, Origin, PeerId, Pool, Target};

use support::net::gate::{Gate, Way};
use support::net::{Line, Net};
use support::{NoHooks, alive_tasks, identity, ordered_identities, soon, until};

const SECOND: Duration = Duration::from_secs(1);

fn text(n: u32) -> Bytes {
    n.to_string().into()
}

/// Two pools on a network whose connections stand still until their gates let something pass.
struct Pair {
    net: Net,
    a: Pool,
    _a_inbox: Inbox,
    b: Pool,
    b_inbox: Inbox,
}

impl Pair {
    fn new(line: Line) -> Self {
        Self::with_hooks(line, NoHooks)
    }

    fn with_hooks(line: Line, hooks: impl Hooks) -> Self {
        let net = Net::new(line);
        let (a, a_inbox) = net.pool(identity(1), Config::default());
        let (b, b_inbox) = net.pool_with(identity(2), Config::default(), hooks);
        Self { net, a, _a_inbox: a_inbox, b, b_inbox }
    }

    fn send(&self, message: Bytes) -> tokio::task::JoinHandle<Result<(), SendToError>> {
        let (a, b) = (self.a.clone(), self.b.id());
        tokio::spawn(async move { a.send(b, message).await })
    }

    async fn gate(&self) -> Gate {
        until("a connection", || !self.net.gates(self.a.id(), self.b.id()).is_empty()).await;
        self.net.gates(self.a.id(), self.b.id()).last().unwrap().clone()
    }

    /// Lets the handshake pass up to message 3, and `frames` behind it; nothing comes back.
    async fn commits(&self, frames: u64) -> Gate {
        let gate = self.gate().await;
        gate.pass(Way::ToResponder, 1);
        gate.pass(Way::ToInitiator, 1);
        gate.pass(Way::ToResponder, 1 + frames);
        gate
    }

    async fn next(&mut self) -> Bytes {
        soon("a message", self.b_inbox.recv()).await.unwrap().body
    }
}

#[tokio::test(start_paused = true)]
async fn it_arrives_before_the_verdict_comes_back_and_counts_as_sent() {
    let mut pair = Pair::new(Line::Gated);
    let sending = pair.send(text(7));
    let gate = pair.commits(1).await;
    assert_eq!(pair.next().await, text(7));
    assert!(!sending.is_finished(), "its verdict is awaited");
    gate.open_all();
    soon("sent", sending).await.unwrap().unwrap();
    pair.a.send(pair.b.id(), text(8)).await.unwrap();
    assert_eq!(pair.next().await, text(8));
    assert_eq!(pair.a.stats().messages_out, 2);
    let report = soon("a drain", pair.a.drain(5 * SECOND)).await.messages;
    assert_eq!((report.accepted, report.delivered, report.unknown), (2, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn as_many_as_fit_travel_and_the_rest_follows() {
    let mut pair = Pair::new(Line::Gated);
    let body = |n: u8| Bytes::from(vec![n; 1_000]);
    let sends: Vec<_> = (0..40).map(|n| pair.send(body(n))).collect();
    let gate = pair.commits(1).await;
    let mut received = Vec::new();
    for _ in 0..15 {
        received.push(pair.next().await[0]);
    }
    tokio::time::sleep(SECOND / 100).await;
    assert!(pair.b_inbox.try_recv().is_none(), "16 KiB, bookkeeping included");
    gate.open_all();
    for sending in sends {
        soon("sent", sending).await.unwrap().unwrap();
    }
    for _ in 15..40 {
        received.push(pair.next().await[0]);
    }
    received.sort_unstable();
    assert!(received.into_iter().eq(0..40), "each once");
    assert_eq!(pair.a.stats().dials, 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_too_long_waits_for_its_session() {
    let mut pair = Pair::new(Line::Gated);
    let long = Bytes::from(vec![3; 20_000]);
    let sending = pair.send(long.clone());
    let gate = pair.commits(1).await;
    tokio::time::sleep(SECOND / 100).await;
    assert!(pair.b_inbox.try_recv().is_none());
    gate.open_all();
    soon("sent", sending).await.unwrap().unwrap();
    assert_eq!(pair.next().await, long);
}

#[tokio::test(start_paused = true)]
async fn without_a_verdict_nobody_knows_and_it_is_not_sent_again() {
    let mut pair = Pair::new(Line::Gated);
    let sending = pair.send(text(7));
    let gate = pair.commits(1).await;
    assert_eq!(pair.next().await, text(7));
    gate.cut();
    match soon("an answer", sending).await.unwrap() {
        Err(SendToError::Unknown { message }) => assert_eq!(message, text(7)),
        other => panic!("{other:?}"),
    }
    pair.net.default_line(Line::Open);
    tokio::time::sleep(2 * SECOND).await;
    pair.a.send(pair.b.id(), text(8)).await.unwrap();
    assert_eq!(pair.next().await, text(8), "not the other once more");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_takes_it_back_unless_it_has_left() {
    let mut pair = Pair::new(Line::Gated);
    let (goes, stays) = (pair.send(text(1)), pair.send(text(2)));
    let gate = pair.gate().await;
    gate.pass(Way::ToResponder, 1);
    goes.abort();
    gate.pass(Way::ToInitiator, 1);
    gate.pass(Way::ToResponder, 2);
    assert_eq!(pair.next().await, text(2));
    stays.abort();
    gate.open_all();
    until("the session stands", || pair.a.contains(&pair.b.id())).await;
    pair.a.send(pair.b.id(), text(3)).await.unwrap();
    assert_eq!(pair.next().await, text(3));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_says_whether_it_may_have_been_sent() {
    let pair = Pair::new(Line::Gated);
    let target = Target::new(pair.b.id()).timeout(SECOND);
    match soon("an answer", pair.a.send(target.clone(), text(1))).await {
        Err(SendToError::Dial { message, source: DialError::Deadline }) => {
            assert_eq!(message, text(1));
        }
        other => panic!("{other:?}"),
    }
    let a = pair.a.clone();
    let sending = tokio::spawn(async move { a.send(target, text(2)).await });
    until("another connection", || pair.net.gates(pair.a.id(), pair.b.id()).len() == 2).await;
    pair.commits(1).await;
    let answer = soon("an answer", sending).await.unwrap();
    assert!(matches!(answer, Err(SendToError::Unknown { .. })), "{answer:?}");
}

struct Refuses;

impl Hooks for Refuses {
    fn authorise<'a>(&'a self, _: &'a PeerId, _: Origin) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(false))
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_refuses_us_opens_nothing() {
    let mut pair = Pair::with_hooks(Line::Open, Refuses);
    let error = soon("an answer", pair.a.send(pair.b.id(), text(1))).await.unwrap_err();
    let SendToError::Dial { message, source } = error else { panic!("{error:?}") };
    assert_eq!(message, text(1));
    assert!(matches!(source.cause(), DialError::Rejected { reason: RejectReason::Refused }));
    tokio::time::sleep(5 * SECOND).await;
    assert!(pair.b_inbox.try_recv().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_loses_against_another_loses_nothing() {
    let (smaller, larger) = ordered_identities();
    let net = Net::new(Line::Gated);
    let (a, mut a_inbox) = net.pool(smaller, Config::default());
    let (b, mut b_inbox) = net.pool(larger, Config::default());
    let [from_a, from_b] = [(a.clone(), b.id(), 1), (b.clone(), a.id(), 2)]
        .map(|(from, to, n)| tokio::spawn(async move { from.send(to, text(n)).await }));
    let between = |x: &Pool, y: &Pool| net.gates(x.id(), y.id()).first().cloned();
    until("both dial", || between(&a, &b).is_some() && between(&b, &a).is_some()).await;
    let gates = [between(&a, &b).unwrap(), between(&b, &a).unwrap()];
    // Both commit, and each message 3 travels with its message.
    for gate in &gates {
        gate.pass(Way::ToResponder, 1);
        gate.pass(Way::ToInitiator, 1);
    }
    tokio::time::sleep(SECOND / 100).await;
    gates.iter().for_each(Gate::open_all);
    for sending in [from_a, from_b] {
        soon("sent", sending).await.unwrap().unwrap();
    }
    assert_eq!(soon("a message", b_inbox.recv()).await.unwrap().body, text(1));
    assert_eq!(soon("a message", a_inbox.recv()).await.unwrap().body, text(2));
    let refused = |pool: &Pool| pool.stats().rejected_by_peer.simultaneous;
    assert_eq!(refused(&a) + refused(&b), 1, "one of the two was refused with its message");
    tokio::time::sleep(5 * SECOND).await;
    assert!(a_inbox.try_recv().is_none() && b_inbox.try_recv().is_none(), "and none came twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crossing_dials_deliver_each_message_once() {
    let net = Net::new(Line::Smooth);
    let mut crossed = 0;
    for round in 0..300_u32 {
        let (a, mut a_inbox) = net.pool(identity(1), Config::default());
        let (b, mut b_inbox) = net.pool(identity(2), Config::default());
        let [from_a, from_b] = [(&a, &b), (&b, &a)].map(|(from, to)| {
            let (from, to) = (from.clone(), to.id());
            tokio::spawn(async move {
                for n in 0..5 {
                    from.send(to, text(round * 10 + n)).await.unwrap();
                }
            })
        });
        for sending in [from_a, from_b] {
            soon("sent", sending).await.unwrap();
        }
        for inbox in [&mut a_inbox, &mut b_inbox] {
            let mut received = Vec::new();
            for _ in 0..5 {
                received.push(soon("a message", inbox.recv()).await.unwrap().body);
            }
            received.sort_unstable();
            assert!(received.into_iter().eq((0..5).map(|n| text(round * 10 + n))));
        }
        crossed += a.stats().simultaneous_opens + b.stats().simultaneous_opens;
        net.end();
        soon("the ends", async { tokio::join!(a.drain(SECOND), b.drain(SECOND)) }).await;
        assert!(a_inbox.recv().await.is_none() && b_inbox.recv().await.is_none(), "none twice");
    }
    assert!(crossed > 0, "no dials crossed");
    until("no task is left", || alive_tasks() == 0).await;
}
