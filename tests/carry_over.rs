//! What a session had accepted and not sent: the peer's next session sends it, or the pool says that
//! nobody does.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use noise_pool::error::CloseReason;
use noise_pool::event::{Events, PoolEvent};
use noise_pool::snapshot::SessionReport;
use noise_pool::{Config, Disconnect, Inbox, Lease, Pool, SendOptions};

use support::net::Net;
use support::net::gate::{Gate, Way};
use support::{identity, soon, unconfirmed, until};

const SECOND: Duration = Duration::from_secs(1);

/// Bytes of a message.
const SIZE: usize = 10_000;

/// More messages than a connection in memory holds, which takes some 130 KB.
const IN_FLIGHT: u64 = 14;

fn message(n: u32) -> Bytes {
    let mut body = vec![0; SIZE];
    body[..4].copy_from_slice(&n.to_be_bytes());
    body.into()
}

fn number(body: &[u8]) -> u32 {
    u32::from_be_bytes(*body.first_chunk().unwrap())
}

/// Two pools on one in-memory network.
struct Pair {
    net: Net,
    a: Pool,
    _a_inbox: Inbox,
    b: Pool,
    b_inbox: Inbox,
    events: Events,
}

impl Pair {
    fn new(config: Config) -> Self {
        let net = Net::default();
        let (a, a_inbox) = net.pool(identity(1), config);
        let (b, b_inbox) = net.pool(identity(2), Config::default());
        let events = a.subscribe();
        Self { net, a, _a_inbox: a_inbox, b, b_inbox, events }
    }

    async fn lease(&self) -> Lease {
        soon("a lease", self.a.get_or_dial(self.b.id())).await.unwrap()
    }

    fn gate(&self) -> Gate {
        self.net.gates(self.a.id(), self.b.id()).last().unwrap().clone()
    }

    /// A session that has accepted messages 0 to `count`, and whose connection is dead from then on.
    async fn break_after(&self, count: u32) -> Lease {
        let lease = self.lease().await;
        let gate = self.gate();
        gate.hold(Way::ToResponder);
        for n in 0..count {
            lease.send(message(n)).await.unwrap();
        }
        // The driver writes as much as the connection takes.
        tokio::time::sleep(SECOND / 100).await;
        gate.cut();
        soon("its end", lease.closed()).await;
        lease
    }

    /// The report of the session that has just ended.
    async fn report(&mut self) -> SessionReport {
        loop {
            if let PoolEvent::Closed { report, .. } = self.next_event().await {
                return report;
            }
        }
    }

    async fn next_event(&mut self) -> PoolEvent {
        soon("an event", self.events.recv()).await.unwrap().unwrap()
    }

    /// How many messages are given up, as soon as some are.
    async fn given_up(&mut self) -> u64 {
        loop {
            if let PoolEvent::Unsent { peer, messages, .. } = self.next_event().await {
                assert_eq!(peer, self.b.id());
                return messages;
            }
        }
    }

    /// The numbers of the next messages that arrive.
    async fn received(&mut self, count: u64) -> Vec<u32> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            let message = soon("a message", self.b_inbox.recv()).await.unwrap();
            numbers.push(number(&message.body));
        }
        numbers
    }

    fn budget(&self) -> u64 {
        self.a.snapshot().limits.buffered_bytes.held
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_session_sends_it_first_and_in_order_and_once() {
    let mut pair = Pair::new(Config::default());
    let old = pair.break_after(200).await;
    let report = pair.report().await;
    assert_eq!((report.accepted, report.carried, report.delivered), (200, 0, 0));
    assert_eq!(report.unknown + report.unsent, 200);
    assert!(report.unknown < IN_FLIGHT, "the connection holds no more: {report:?}");
    let held = pair.budget();
    assert!(held > 100 * SIZE as u64, "it is paid for: {held}");

    let lease = pair.lease().await;
    assert_ne!(lease.session_id(), old.session_id());
    lease.send(message(1_000)).await.unwrap();
    let numbers = pair.received(report.unsent + 1).await;
    let first = report.unknown as u32;
    assert!(numbers.into_iter().eq((first..200).chain([1_000])));
    let stats = pair.a.stats();
    assert_eq!((stats.messages_carried, stats.messages_unsent), (report.unsent, 0));
    let is_told = |event: &_| {
        matches!(event, PoolEvent::CarriedOver { session, messages, .. }
            if (*session, *messages) == (lease.session_id(), report.unsent))
    };
    while !is_told(&pair.next_event().await) {}

    drop(lease);
    let report = soon("a drain", pair.a.drain(5 * SECOND)).await.messages;
    assert_eq!((report.accepted, report.carried), (1, stats.messages_carried));
    let all = report.accepted + report.carried;
    assert_eq!((report.unknown, report.unsent), (unconfirmed(all), 0));
    assert!(pair.b_inbox.try_recv().is_none());
    assert_eq!(pair.budget(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_the_peer_opens_sends_it_as_well() {
    let mut pair = Pair::new(Config::default());
    pair.break_after(50).await;
    let unsent = pair.report().await.unsent;
    let _theirs = soon("a dial", pair.b.get_or_dial(pair.a.id())).await.unwrap();
    let numbers = pair.received(unsent).await;
    assert!(numbers.into_iter().eq(50 - unsent as u32..50));
}

#[tokio::test(start_paused = true)]
async fn without_a_session_in_time_it_is_given_up_and_told() {
    let mut pair = Pair::new(Config::default().carry_over(Some(3 * SECOND)));
    pair.break_after(200).await;
    let unsent = pair.report().await.unsent;
    tokio::time::sleep(3 * SECOND - SECOND / 10).await;
    assert!(pair.budget() > 0);
    let given_up = tokio::time::timeout(SECOND / 2, pair.given_up()).await.unwrap();
    assert_eq!((given_up, pair.a.stats().messages_unsent), (unsent, unsent));
    assert_eq!(pair.budget(), 0, "its room is free");
    pair.lease().await.send(message(1_000)).await.unwrap();
    assert_eq!(pair.received(1).await, [1_000]);
}

#[tokio::test(start_paused = true)]
async fn where_it_is_switched_off_it_is_given_up_at_once() {
    let mut pair = Pair::new(Config::default().carry_over(None));
    pair.break_after(200).await;
    let report = pair.report().await;
    assert!(report.unsent > 0);
    assert_eq!(pair.given_up().await, report.unsent);
    assert_eq!((pair.budget(), pair.a.stats().messages_carried), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn several_sessions_that_fail_leave_it_in_order() {
    let mut pair = Pair::new(Config::default());
    pair.break_after(40).await;
    let mut report = pair.report().await;
    let mut lost: Vec<u32> = (0..report.unknown as u32).collect();
    let mut next = report.unknown as u32;
    for _ in 0..5 {
        let held = report.unsent;
        let lease = pair.lease().await;
        let gate = pair.gate();
        gate.hold(Way::ToResponder);
        tokio::time::sleep(SECOND / 100).await;
        gate.cut();
        soon("its end", lease.closed()).await;
        report = pair.report().await;
        assert_eq!((report.accepted, report.carried), (0, held));
        assert_eq!(report.unknown + report.unsent, held, "{report:?}");
        lost.extend(next..next + report.unknown as u32);
        next += report.unknown as u32;
    }
    let _lease = pair.lease().await;
    // What was in flight on a connection that was cut later may have arrived; here it has not.
    let numbers = pair.received(report.unsent).await;
    assert!(numbers.into_iter().eq(next..40), "after {lost:?}");
}

#[tokio::test(start_paused = true)]
async fn deadlines_go_with_it() {
    let mut pair = Pair::new(Config::default());
    let lease = pair.lease().await;
    let gate = pair.gate();
    gate.hold(Way::ToResponder);
    for n in 0..40 {
        let after = if n % 2 == 0 { 2 * SECOND } else { 600 * SECOND };
        let deadline = tokio::time::Instant::now() + after;
        let options = SendOptions::default().deadline(deadline.into_std());
        lease.send_with(message(n), options).await.unwrap();
    }
    tokio::time::sleep(SECOND / 100).await;
    gate.cut();
    soon("its end", lease.closed()).await;
    let report = pair.report().await;
    tokio::time::sleep(3 * SECOND).await;
    drop((lease, pair.lease().await));
    let left = report.unknown as u32..40;
    let (even, odd): (Vec<_>, Vec<_>) = left.partition(|n| n % 2 == 0);
    assert_eq!(pair.received(odd.len() as u64).await, odd);
    let drained = soon("a drain", pair.a.drain(5 * SECOND)).await.messages;
    assert_eq!((drained.carried, drained.expired), (report.unsent, even.len() as u64));
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "the wire has no fragments")]
async fn a_message_of_which_a_part_was_sent_is_sent_whole() {
    let mut pair = Pair::new(Config::default());
    let lease = pair.lease().await;
    let gate = pair.gate();
    gate.hold(Way::ToResponder);
    let long: Vec<u8> = (0..900_000_u32).map(|n| n as u8).collect();
    lease.send(long.clone().into()).await.unwrap();
    lease.send(message(1)).await.unwrap();
    tokio::time::sleep(SECOND / 100).await;
    gate.cut();
    soon("its end", lease.closed()).await;
    let report = pair.report().await;
    assert_eq!((report.unknown, report.unsent), (0, 2), "no peer has the whole of it");
    let _lease = pair.lease().await;
    assert_eq!(soon("it arrives", pair.b_inbox.recv()).await.unwrap().body, long);
    assert_eq!(pair.received(1).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn small_messages_are_carried_as_well() {
    let mut pair = Pair::new(Config::default());
    let lease = pair.lease().await;
    let gate = pair.gate();
    gate.hold(Way::ToResponder);
    for n in 0..5_000_u32 {
        lease.send(message(n).slice(..200)).await.unwrap();
        if n % 100 == 0 {
            // Packed in pieces of many sizes.
            tokio::task::yield_now().await;
        }
    }
    gate.cut();
    soon("its end", lease.closed()).await;
    let report = pair.report().await;
    assert_eq!(report.unknown + report.unsent, 5_000);
    assert!(report.unsent > 1_000, "{report:?}");
    let _lease = pair.lease().await;
    let numbers = pair.received(report.unsent).await;
    assert!(numbers.into_iter().eq(report.unknown as u32..5_000));
}

#[tokio::test(start_paused = true)]
async fn what_the_application_ends_is_not_carried() {
    for disconnect in [
        Disconnect::now(),
        // In vain.
        Disconnect::drain(),
    ] {
        let mut pair = Pair::new(Config::default());
        let lease = pair.lease().await;
        pair.gate().hold(Way::ToResponder);
        for n in 0..40 {
            lease.send(message(n)).await.unwrap();
        }
        assert!(pair.a.disconnect(&pair.b.id(), disconnect));
        soon("its end", lease.closed()).await;
        let report = pair.report().await;
        assert!(report.unsent > 0);
        assert_eq!(pair.given_up().await, report.unsent);
        pair.lease().await.send(message(1_000)).await.unwrap();
        assert_eq!(pair.received(1).await, [1_000]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_peer_goes_with_it_when_the_application_wants_it_no_more() {
    let mut pair = Pair::new(Config::default());
    pair.break_after(40).await;
    let unsent = pair.report().await.unsent;
    pair.a.disconnect(&pair.b.id(), Disconnect::now());
    assert_eq!(pair.given_up().await, unsent);

    pair.break_after(40).await;
    let unsent = pair.report().await.unsent;
    soon("a drain", pair.a.drain_peer(&pair.b.id(), SECOND)).await;
    assert_eq!(pair.given_up().await, unsent);

    pair.break_after(40).await;
    let unsent = pair.report().await.unsent;
    soon("a close", pair.a.close()).await;
    assert_eq!(pair.given_up().await, unsent);
    assert_eq!(pair.budget(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_discarded_session_is_not_its_peer() {
    let mut pair = Pair::new(Config::default());
    let lease = pair.lease().await;
    pair.gate().hold(Way::ToResponder);
    for n in 0..40 {
        lease.send(message(n)).await.unwrap();
    }
    lease.discard();
    let unsent = pair.report().await.unsent;
    let _lease = pair.lease().await;
    assert!(pair.received(unsent).await.into_iter().eq(40 - unsent as u32..40));
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "the wire does not say how long a message may be")]
async fn what_the_next_session_cannot_carry_is_given_up() {
    let mut pair = Pair::new(Config::default());
    let lease = pair.lease().await;
    pair.gate().hold(Way::ToResponder);
    for n in 0..40 {
        lease.send(message(n)).await.unwrap();
        lease.send(Bytes::copy_from_slice(&n.to_be_bytes())).await.unwrap();
    }
    // The peer comes back with another limit.
    pair.b.close().await;
    soon("its end", lease.closed()).await;
    let report = pair.report().await;
    let (again, mut inbox) = pair.net.pool(identity(2), Config::default().max_message_size(500));
    pair.net.join(&again);
    let _lease = soon("a lease", pair.a.get_or_dial(again.id())).await.unwrap();
    let given_up = pair.given_up().await;
    for _ in given_up..report.unsent {
        let message = soon("a message", inbox.recv()).await.unwrap();
        assert_eq!(message.body.len(), 4);
    }
    assert!(given_up > 0 && given_up < report.unsent, "{given_up} of {report:?}");
    assert_eq!(pair.a.stats().messages_carried, report.unsent - given_up);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_superseded_leaves_its_queue_to_the_new_one() {
    let mut pair = Pair::new(Config::default());
    let lease = pair.lease().await;
    pair.gate().freeze();
    for n in 0..40 {
        lease.send(message(n)).await.unwrap();
    }
    tokio::time::sleep(SECOND / 100).await;
    // The peer has lost the session, and dials.
    pair.b.disconnect(&pair.a.id(), Disconnect::now());
    let _theirs = soon("a dial", pair.b.get_or_dial(pair.a.id())).await.unwrap();
    assert!(lease.is_retired());
    let carried = loop {
        if let PoolEvent::CarriedOver { messages, .. } = pair.next_event().await {
            break messages;
        }
    };
    assert!(carried > 0);
    let numbers = pair.received(carried).await;
    assert!(numbers.into_iter().eq(40 - carried as u32..40), "before the old one ends");
    // What it had sealed, and could not write, follows when it has ended.
    let report = pair.report().await;
    assert_eq!(report.unknown + report.unsent, 40, "{report:?}");
    let rest = pair.received(report.unsent - carried).await;
    assert!(rest.into_iter().eq(report.unknown as u32..40 - carried as u32));
    assert_eq!(soon("its end", lease.closed()).await, CloseReason::DrainTimeout);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_session_that_is_superseded_leaves_all_that_it_has_not_written() {
    let mut pair = Pair::new(Config::default());
    let lease = pair.lease().await;
    pair.gate().freeze();
    for n in 0..40 {
        lease.send(message(n)).await.unwrap();
    }
    tokio::time::sleep(2 * SECOND).await;
    pair.b.disconnect(&pair.a.id(), Disconnect::now());
    let _theirs = soon("a dial", pair.b.get_or_dial(pair.a.id())).await.unwrap();
    let report = pair.report().await;
    assert_eq!(report.unknown + report.unsent, 40, "{report:?}");
    let numbers = pair.received(report.unsent).await;
    assert!(numbers.into_iter().eq(report.unknown as u32..40), "in order, what was sealed as well");
    assert_eq!(pair.a.stats().messages_carried, report.unsent);
}

#[tokio::test(start_paused = true)]
async fn it_is_kept_for_as_many_peers_as_may_have_sessions() {
    let net = Net::default();
    let (a, _a_inbox) = net.pool(identity(1), Config::default().max_sessions(2));
    let mut events = a.subscribe();
    for n in 2..5 {
        let (b, _b_inbox) = net.pool(identity(n), Config::default());
        let lease = soon("a lease", a.get_or_dial(b.id())).await.unwrap();
        let gate = net.gates(a.id(), b.id())[0].clone();
        gate.hold(Way::ToResponder);
        for n in 0..40 {
            lease.send(message(n)).await.unwrap();
        }
        gate.cut();
        soon("its end", lease.closed()).await;
    }
    until("the first is given up", || {
        matches!(events.try_recv(), Some(Ok(PoolEvent::Unsent { peer, .. }))
            if peer == identity(2).peer_id())
    })
    .await;
}
