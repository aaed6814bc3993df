//! Several addresses of one peer race; the first valid message 2 decides, and one connection commits.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use noise_pool::error::DialError;
use noise_pool::{Address, Config, Lease, Pool, Target};
use support::net::gate::{Gate, Way};
use support::net::{Line, Net, address};
use support::{identity, soon, until};
use tokio::task::JoinHandle;
use tokio::time::Instant;

const STAGGER: Duration = Duration::from_millis(250);
/// `until` looks every millisecond, and tokio's timers round up to the next one.
const SLACK: Duration = Duration::from_millis(3);

/// Two pools on one network; the inboxes live as long.
struct Pair {
    net: Net,
    a: Pool,
    b: Pool,
    _inboxes: [noise_pool::Inbox; 2],
}

impl Pair {
    fn new() -> Self {
        let net = Net::default();
        let (a, inbox_a) = net.pool(identity(1), Config::default());
        let (b, inbox_b) = net.pool(identity(2), Config::default());
        Self { net, a, b, _inboxes: [inbox_a, inbox_b] }
    }

    /// Addresses of B, at ports 1 to `n`.
    fn addresses<const N: usize>(&self) -> [Address; N] {
        std::array::from_fn(|n| address(self.b.id(), n as u16 + 1))
    }

    /// A calls B at these addresses.
    fn call(&self, addresses: &[Address]) -> JoinHandle<Result<Lease, DialError>> {
        let mut target = Target::new(self.b.id());
        for address in addresses {
            target = target.address(address.clone());
        }
        let a = self.a.clone();
        tokio::spawn(async move { a.get_or_dial(target).await })
    }

    /// When each address was tried, counted from `began`.
    fn tried(&self, began: Instant) -> Vec<(Address, Duration)> {
        self.net.tried().into_iter().map(|(address, at)| (address, at - began)).collect()
    }

    /// Gives A a race of two addresses on both of which message 2 waits at the gate.
    async fn two_answers(&self) -> (JoinHandle<Result<Lease, DialError>>, [Gate; 2]) {
        let addresses = self.addresses::<2>();
        self.net.default_line(Line::Gated);
        let caller = self.call(&addresses);
        let gates = [self.net.gate_at(&addresses[0]).await, self.net.gate_at(&addresses[1]).await];
        for gate in &gates {
            gate.pass(Way::ToResponder, 1);
            soon("message 2 is written", gate.arrived(Way::ToInitiator, 1)).await;
        }
        (caller, gates)
    }

    /// Both ends hold the lease's session and no other, and it carries messages both ways.
    async fn agree_on(&mut self, lease: &Lease) {
        until("one session at both ends", || {
            let (a, b) = (self.a.snapshot(), self.b.snapshot());
            a.sessions.len() == 1 && b.sessions.len() == 1 && a.dials.is_empty()
        })
        .await;
        let theirs = self.b.get(&self.a.id()).unwrap();
        assert_eq!(lease.handshake_hash(), theirs.handshake_hash());
        lease.send(Bytes::from_static(b"there")).await.unwrap();
        theirs.send(Bytes::from_static(b"back")).await.unwrap();
        let [inbox_a, inbox_b] = &mut self._inboxes;
        assert_eq!(soon("there", inbox_b.recv()).await.unwrap().body, "there");
        assert_eq!(soon("back", inbox_a.recv()).await.unwrap().body, "back");
    }
}

async fn served(caller: JoinHandle<Result<Lease, DialError>>) -> Lease {
    soon("the caller is served", caller).await.unwrap().unwrap()
}

fn assert_about(measured: Duration, expected: Duration) {
    assert!(measured >= expected && measured <= expected + SLACK, "{measured:?}, not {expected:?}");
}

#[tokio::test(start_paused = true)]
async fn addresses_start_one_after_another_in_their_order() {
    let mut pair = Pair::new();
    let addresses = pair.addresses::<3>();
    pair.net.line(&addresses[0], Line::SILENT);
    pair.net.line(&addresses[1], Line::Gated);
    let began = Instant::now();
    let lease = served(pair.call(&addresses)).await;
    assert_eq!(lease.remote_address(), Some(&addresses[2]));
    for (n, (address, at)) in pair.tried(began).into_iter().enumerate() {
        assert_eq!(address, addresses[n]);
        assert_about(at, STAGGER * n as u32);
    }
    assert_eq!(pair.net.connects(), 3);
    pair.agree_on(&lease).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_address_alone_is_tried_when_it_answers_in_time() {
    let mut pair = Pair::new();
    let lease = served(pair.call(&pair.addresses::<3>())).await;
    assert_eq!(pair.net.connects(), 1);
    pair.agree_on(&lease).await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_fails_makes_way_for_the_next_at_once() {
    let mut pair = Pair::new();
    let addresses = pair.addresses::<3>();
    pair.net.line(&addresses[0], Line::REFUSES);
    pair.net.line(&addresses[1], Line::REFUSES);
    let began = Instant::now();
    let lease = served(pair.call(&addresses)).await;
    assert_eq!(lease.remote_address(), Some(&addresses[2]));
    for (_, at) in pair.tried(began) {
        assert_about(at, Duration::ZERO);
    }
    pair.agree_on(&lease).await;
}

#[tokio::test(start_paused = true)]
async fn somebody_else_at_an_address_does_not_decide_the_race() {
    let mut pair = Pair::new();
    let (stranger, _inbox) = pair.net.pool(identity(3), Config::default());
    let theirs = address(stranger.id(), 1);
    let ours = address(pair.b.id(), 1);
    let lease = served(pair.call(&[theirs, ours.clone()])).await;
    assert_eq!((lease.peer(), lease.remote_address()), (pair.b.id(), Some(&ours)));
    assert_eq!(stranger.stats().opened, 0);
    pair.agree_on(&lease).await;
}

#[tokio::test(start_paused = true)]
async fn when_all_addresses_fail_the_error_tells_of_the_one_that_came_farthest() {
    let pair = Pair::new();
    let (stranger, _inbox) = pair.net.pool(identity(3), Config::default());
    let dead = address(pair.b.id(), 1);
    pair.net.line(&dead, Line::REFUSES);
    let error =
        soon("the dial fails", pair.call(&[address(stranger.id(), 1), dead])).await.unwrap();
    let error = error.unwrap_err();
    assert!(matches!(error.cause(), DialError::Handshake(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_a_later_caller_brings_joins_the_race() {
    let mut pair = Pair::new();
    let [dead, good] = pair.addresses();
    pair.net.line(&dead, Line::SILENT);
    let first = pair.call(&[dead]);
    until("the first address is tried", || pair.net.connects() == 1).await;
    let began = Instant::now();
    let second = pair.call(std::slice::from_ref(&good));
    let (first, second) = (served(first).await, served(second).await);
    assert_eq!(first.session_id(), second.session_id());
    assert_eq!(first.remote_address(), Some(&good));
    assert!(began.elapsed() <= STAGGER + SLACK, "it waits for its turn, not for a failure");
    assert_eq!((pair.a.stats().dials, pair.a.stats().dials_shared), (1, 1));
    pair.agree_on(&first).await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_a_later_caller_brings_does_not_wait_for_a_slow_look_up() {
    let mut pair = Pair::new();
    let [good] = pair.addresses();
    pair.net.resolves_to(pair.b.id(), &[]);
    let began = Instant::now();
    let first = pair.call(&[]);
    until("the first caller waits", || !pair.a.snapshot().dials.is_empty()).await;
    let second = pair.call(std::slice::from_ref(&good));
    let (first, second) = (served(first).await, served(second).await);
    assert_eq!(first.session_id(), second.session_id());
    assert!(began.elapsed() <= STAGGER + SLACK, "{:?}", began.elapsed());
    pair.agree_on(&first).await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_known_already_is_not_tried_twice() {
    let pair = Pair::new();
    let [silent] = pair.addresses();
    pair.net.line(&silent, Line::SILENT);
    let callers: Vec<_> = (0..5).map(|_| pair.call(&[silent.clone(), silent.clone()])).collect();
    until("all wait", || pair.a.snapshot().dials.iter().any(|dial| dial.waiters == 5)).await;
    tokio::time::sleep(4 * STAGGER).await;
    assert_eq!(pair.net.connects(), 1);
    assert_eq!(pair.a.snapshot().dials[0].addresses, [silent]);
    callers.iter().for_each(JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn the_first_message_2_decides_and_the_loser_gets_no_message_3() {
    let mut pair = Pair::new();
    let (caller, [first, second]) = pair.two_answers().await;
    // The address that was started later answers first.
    second.open_all();
    let lease = served(caller).await;
    assert_eq!(lease.remote_address(), Some(&pair.addresses::<2>()[1]));
    first.open_all();
    pair.agree_on(&lease).await;
    assert_eq!(first.count(Way::ToResponder), 1, "message 1 and nothing else");
    assert_eq!(pair.b.stats().handshakes_accepted, 1);
    let rows = pair.b.stats().inbound_rows;
    assert_eq!((rows.absent, rows.superseding, rows.duplicate), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn both_message_2_arrive_and_still_one_connection_commits() {
    let mut pair = Pair::new();
    let (caller, [first, second]) = pair.two_answers().await;
    first.pass(Way::ToInitiator, 1);
    second.pass(Way::ToInitiator, 1);
    soon("message 3 is written", first.arrived(Way::ToResponder, 2)).await;
    // For as long as the verdict is awaited, the other connection stays where it is.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(second.count(Way::ToResponder), 1);
    first.open_all();
    second.open_all();
    let lease = served(caller).await;
    assert_eq!(lease.remote_address(), Some(&pair.addresses::<2>()[0]));
    pair.agree_on(&lease).await;
    assert_eq!(second.count(Way::ToResponder), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_dies_before_message_3_arrives_is_followed_by_the_other() {
    let mut pair = Pair::new();
    let (caller, [first, second]) = pair.two_answers().await;
    first.pass(Way::ToInitiator, 1);
    soon("message 3 is written", first.arrived(Way::ToResponder, 2)).await;
    first.cut();
    second.open_all();
    let lease = served(caller).await;
    assert_eq!(lease.remote_address(), Some(&pair.addresses::<2>()[1]));
    pair.agree_on(&lease).await;
    assert_eq!(pair.b.stats().inbound_rows.absent, 1, "the peer never saw the first message 3");
    assert_eq!(pair.a.stats().dials, 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_dies_with_its_verdict_is_superseded_by_the_others_new_stamp() {
    let mut pair = Pair::new();
    let (caller, [first, second]) = pair.two_answers().await;
    first.pass(Way::ToInitiator, 1);
    first.pass(Way::ToResponder, 1);
    // The peer has accepted the first connection; its verdict is lost.
    soon("the verdict is written", first.arrived(Way::ToInitiator, 2)).await;
    let lost = pair.b.get(&pair.a.id()).unwrap().session_id();
    second.pass(Way::ToInitiator, 1);
    first.cut();
    soon("message 3 is written", second.arrived(Way::ToResponder, 2)).await;
    second.open_all();
    let lease = served(caller).await;
    assert_eq!(lease.remote_address(), Some(&pair.addresses::<2>()[1]));
    pair.agree_on(&lease).await;
    assert_ne!(pair.b.get(&pair.a.id()).unwrap().session_id(), lost);
    assert_eq!(pair.a.stats().opened, 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_commit_is_followed_by_the_other_with_a_greater_stamp() {
    let mut pair = Pair::new();
    let (caller, [first, second]) = pair.two_answers().await;
    first.pass(Way::ToInitiator, 1);
    first.pass(Way::ToResponder, 1);
    second.pass(Way::ToInitiator, 1);
    // The peer holds the first connection for its session; neither verdict nor end gets through.
    first.hold_end();
    soon("the verdict is written", first.arrived(Way::ToInitiator, 2)).await;
    let held = pair.b.get(&pair.a.id()).unwrap().session_id();
    let began = Instant::now();
    soon("message 3 is written", second.arrived(Way::ToResponder, 2)).await;
    assert!(began.elapsed() <= Duration::from_secs(3) + SLACK, "after verdict_timeout");
    assert_eq!(pair.b.get(&pair.a.id()).unwrap().session_id(), held);
    second.open_all();
    let lease = served(caller).await;
    assert_eq!(lease.remote_address(), Some(&pair.addresses::<2>()[1]));
    first.open_all();
    pair.agree_on(&lease).await;
    let rows = pair.b.stats().inbound_rows;
    assert_eq!((rows.absent, rows.superseding, rows.duplicate), (1, 1, 0));
}
