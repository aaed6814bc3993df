//! Two pools that dial each other, in every order that the simultaneous-open rule names.
//!
//! Gates hold each handshake message until the story calls for it. Whatever the order, both ends
//! keep the same one session, every message that was accepted arrives once, and nobody who asked
//! gets an error.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::io;
use std::time::Duration;

use noise_pool::error::{CloseReason, DialError};
use noise_pool::event::{Events, PoolEvent};
use noise_pool::io::{BoxFuture, BoxedStream, TargetData};
use noise_pool::snapshot::{DialPhase, InboundRows, LateAcceptRows, LimitUse};
use noise_pool::{
    Address, Candidate, Config, Connector, Disconnect, Hooks, Identity, Lease, Origin, PeerId,
    Pool, Role, Target,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use support::net::gate::{Gate, Way};
use support::net::{Line, Net};
use support::talk::{Book, Talker};
use support::{ordered_identities, soon, until};

/// How often each order is driven.
const TIMES: usize = 20;

/// Rows that were met so often; the others never.
macro_rules! rows {
    ($Rows:ident { $($row:ident: $times:expr),+ }) => {{
        let mut rows = $Rows::default();
        $( rows.$row = $times; )+
        rows
    }};
}

type Call = JoinHandle<Result<Lease, DialError>>;

/// Two pools on a network whose streams begin with closed gates.
struct Two {
    net: Net,
    book: Book,
    /// The peer with the smaller key.
    small: Talker,
    large: Talker,
}

impl Two {
    fn new() -> Self {
        Self::with_hooks(Yes, Yes)
    }

    fn with_hooks(of_small: impl Hooks, of_large: impl Hooks) -> Self {
        let (net, book) = (Net::default(), Book::default());
        let (small, large) = ordered_identities();
        let small = Talker::with_hooks(&net, small, Config::default(), &book, of_small);
        let large = Talker::with_hooks(&net, large, Config::default(), &book, of_large);
        net.default_line(Line::Gated);
        Self { net, book, small, large }
    }

    /// `from` dials `to`, and the gate of its stream lets nothing pass.
    async fn dial(&self, from: &Talker, to: PeerId) -> (Gate, Call) {
        let before = self.net.gates(from.id(), to).len();
        let call = from.call(to);
        (self.net.gate(from.id(), to, before).await, call)
    }

    /// `from` dials `to` and commits; its message 3 waits at the gate.
    async fn commit(&self, from: &Talker, to: PeerId) -> (Gate, Call) {
        let (gate, call) = self.dial(from, to).await;
        hold_message_3(&gate).await;
        (gate, call)
    }

    /// `from` dials `to`, and nothing is held.
    async fn open(&self, from: &Talker, to: PeerId) -> (Gate, Call) {
        let (gate, call) = self.dial(from, to).await;
        gate.open_all();
        (gate, call)
    }

    /// Both ends hold the same one session and nothing else, and all that was accepted has arrived.
    async fn whole(&self) {
        self.net.gates(self.small.id(), self.large.id()).iter().for_each(Gate::open_all);
        self.net.gates(self.large.id(), self.small.id()).iter().for_each(Gate::open_all);
        whole(&self.small, &self.large).await;
        until("all has arrived", || self.book.missing().is_empty()).await;
        // Both ways, on the session that is left.
        for (from, to) in [(&self.small, &self.large), (&self.large, &self.small)] {
            let lease = from.pool.get(&to.id()).unwrap();
            assert!(self.book.send(from.id(), &lease).await);
        }
        until("the last has arrived", || self.book.missing().is_empty()).await;
        assert_eq!(self.book.surplus(), []);
    }

    /// Neither end holds anything, and all that was accepted has arrived.
    async fn apart(&self) {
        let (small, large) = (&self.small, &self.large);
        until("both are at rest", || small.is_at_rest() && large.is_at_rest()).await;
        assert_eq!((small.sessions(large.id()), large.sessions(small.id())), (0, 0));
        until("all has arrived", || self.book.missing().is_empty()).await;
        assert_eq!(self.book.surplus(), []);
    }
}

async fn whole(one: &Talker, other: &Talker) {
    until("both are at rest", || one.is_at_rest() && other.is_at_rest()).await;
    assert_eq!((one.sessions(other.id()), other.sessions(one.id())), (1, 1));
    let hash = one.session_hash(other.id());
    assert!(hash.is_some());
    assert_eq!(hash, other.session_hash(one.id()));
}

async fn hold_message_3(gate: &Gate) {
    gate.pass(Way::ToResponder, 1);
    gate.pass(Way::ToInitiator, 1);
    gate.arrived(Way::ToResponder, 2).await;
}

/// A caller got its lease, and gives it back.
async fn served(call: Call) -> [u8; 32] {
    let lease = soon("a call", call).await.unwrap().unwrap();
    *lease.handshake_hash()
}

async fn failed(call: Call) -> DialError {
    soon("a call", call).await.unwrap().unwrap_err()
}

fn inbound(talker: &Talker) -> InboundRows {
    talker.pool.stats().inbound_rows
}

fn late(talker: &Talker) -> LateAcceptRows {
    talker.pool.stats().late_accept_rows
}

/// Why sessions have ended by now.
fn reasons(events: &mut Events) -> Vec<CloseReason> {
    let reason = |event| match event {
        Ok(PoolEvent::Closed { reason, .. }) => Some(reason),
        _ => None,
    };
    std::iter::from_fn(|| events.try_recv()).filter_map(reason).collect()
}

struct Yes;

impl Hooks for Yes {}

/// Refuses those who dial us.
struct DialsOnly;

impl Hooks for DialsOnly {
    fn authorise<'a>(&'a self, _peer: &'a PeerId, origin: Origin) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(origin == Origin::Outbound))
    }
}

/// The ready check of a dial never ends.
struct NeverReady;

impl Hooks for NeverReady {
    fn ready<'a>(&'a self, candidate: &'a Candidate) -> BoxFuture<'a, bool> {
        match candidate.origin {
            Origin::Outbound => Box::pin(std::future::pending()),
            Origin::Inbound => Box::pin(std::future::ready(true)),
        }
    }
}

// ---- inbound connections ---------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn an_inbound_connection_meets_nothing() {
    for _ in 0..TIMES {
        let two = Two::new();
        let (_, call) = two.open(&two.small, two.large.id()).await;
        served(call).await;
        two.whole().await;
        assert_eq!(inbound(&two.large), rows!(InboundRows { absent: 1 }));
        assert_eq!(two.large.pool.stats().simultaneous_opens, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_inbound_connection_aborts_a_dial_that_is_not_committed() {
    for round in 0..TIMES {
        // Whose key is larger makes no difference, nor how far the dial is.
        let two = Two::new();
        let (here, there) =
            if round % 2 == 0 { (&two.small, &two.large) } else { (&two.large, &two.small) };
        let (gate, ours) = two.dial(here, there.id()).await;
        if round % 4 < 2 {
            gate.pass(Way::ToResponder, 1);
            gate.arrived(Way::ToInitiator, 1).await;
        }
        let (_, theirs) = two.open(there, here.id()).await;
        assert_eq!(served(theirs).await, served(ours).await);
        let began = Instant::now();
        until("the dial has ended", || here.pool.snapshot().dials.is_empty()).await;
        assert!(began.elapsed() < Duration::from_secs(1), "it was stopped");
        two.whole().await;
        assert_eq!(inbound(here), rows!(InboundRows { uncommitted: 1 }));
        assert_eq!(here.pool.stats().simultaneous_opens, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_inbound_connection_aborts_a_dial_whose_check_still_runs() {
    for _ in 0..TIMES {
        let two = Two::with_hooks(NeverReady, Yes);
        let (_, ours) = two.open(&two.small, two.large.id()).await;
        let (_, theirs) = two.open(&two.large, two.small.id()).await;
        assert_eq!(served(theirs).await, served(ours).await);
        two.whole().await;
        assert_eq!(inbound(&two.small).uncommitted, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_committed_dials_the_one_of_the_larger_key_wins() {
    for round in 0..TIMES {
        let two = Two::new();
        let (small, large) = (&two.small, &two.large);
        let (from_small, ours) = two.commit(small, large.id()).await;
        let (from_large, theirs) = two.commit(large, small.id()).await;
        // The smaller's message 3 comes when the larger is committed (it is parked) or when it
        // holds its session already (it is a duplicate).
        if round % 2 == 0 {
            from_small.open_all();
            until("it is parked", || large.pool.stats().parked == 1).await;
            from_large.open_all();
        } else {
            from_large.open_all();
            until("accepted", || large.session_hash(small.id()).is_some()).await;
            from_small.open_all();
        }
        assert_eq!(served(ours).await, served(theirs).await);
        two.whole().await;

        let expected = rows!(InboundRows { committed_larger: 1 });
        assert_eq!(inbound(small), expected);
        let stats = large.pool.stats();
        if round % 2 == 0 {
            let expected = rows!(InboundRows { committed_smaller: 1 });
            assert_eq!(stats.inbound_rows, expected);
            assert_eq!((stats.parked, stats.rejected_by_us.simultaneous), (1, 1));
            assert_eq!(stats.simultaneous_opens, 1);
        } else {
            let expected = rows!(InboundRows { duplicate: 1 });
            assert_eq!(stats.inbound_rows, expected);
            assert_eq!(stats.rejected_by_us.duplicate, 1);
        }
        assert_eq!(small.pool.stats().simultaneous_opens, 1);
        assert_eq!(small.pool.stats().late_accept_rows, LateAcceptRows::default());
    }
}

/// How the committed dial of the larger key ends while an inbound connection is parked.
#[derive(Clone, Copy, Debug)]
enum End {
    Broken,
    /// No verdict within `verdict_timeout`: the connection died silently.
    SilentlyDead,
    Refused,
}

async fn parked_connection_wins_after(end: End) {
    for _ in 0..TIMES {
        let two = match end {
            End::Refused => Two::with_hooks(DialsOnly, Yes),
            End::Broken | End::SilentlyDead => Two::new(),
        };
        let (small, large) = (&two.small, &two.large);
        let (from_large, ours) = two.commit(large, small.id()).await;
        // So that the larger's verdict is overdue before the smaller's.
        tokio::time::advance(Duration::from_millis(500)).await;
        let (from_small, theirs) = two.open(small, large.id()).await;
        until("it is parked", || large.pool.stats().parked == 1).await;
        assert_eq!(from_small.count(Way::ToInitiator), 1, "a parked connection is told nothing");
        match end {
            End::Broken => from_large.cut(),
            End::SilentlyDead => from_large.kill(),
            End::Refused => from_large.open_all(),
        }
        assert_eq!(served(theirs).await, served(ours).await, "{end:?}");
        if matches!(end, End::SilentlyDead) {
            from_large.cut();
        }
        two.whole().await;
        let stats = large.pool.stats();
        assert_eq!((stats.parked, stats.inbound_rows.committed_smaller), (1, 1));
        assert_eq!(stats.inbound_rows.uncommitted, 1, "judged again as if it had just come");
        assert_eq!(stats.simultaneous_opens, 1);
        assert_eq!(stats.backoffs, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_parked_connection_serves_the_waiters_of_a_dial_that_broke() {
    parked_connection_wins_after(End::Broken).await;
}

#[tokio::test(start_paused = true)]
async fn a_parked_connection_serves_the_waiters_of_a_dial_that_died_silently() {
    parked_connection_wins_after(End::SilentlyDead).await;
}

#[tokio::test(start_paused = true)]
async fn a_parked_connection_serves_the_waiters_of_a_dial_that_was_refused() {
    parked_connection_wins_after(End::Refused).await;
}

#[tokio::test(start_paused = true)]
async fn a_parked_connection_is_accepted_when_the_dial_that_parked_it_has_no_waiters_left() {
    for _ in 0..TIMES {
        let two = Two::new();
        let (small, large) = (&two.small, &two.large);
        let (from_large, ours) = two.commit(large, small.id()).await;
        let (_, theirs) = two.open(small, large.id()).await;
        until("it is parked", || large.pool.stats().parked == 1).await;
        ours.abort();
        from_large.cut();
        served(theirs).await;
        two.whole().await;
        assert_eq!(inbound(large).committed_smaller + inbound(large).absent, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_gave_its_session_up_gets_a_new_one() {
    for round in 0..TIMES {
        let two = Two::new();
        let (here, there) =
            if round % 2 == 0 { (&two.small, &two.large) } else { (&two.large, &two.small) };
        // Who opened the first session makes no difference.
        let (first, call) = if round % 4 < 2 {
            two.open(there, here.id()).await
        } else {
            two.open(here, there.id()).await
        };
        served(call).await;
        two.whole().await;
        // The word of the peer's drain is under way for long.
        first.hold_all();
        assert!(there.pool.disconnect(&here.id(), Disconnect::drain()));
        let (_, again) = two.open(there, here.id()).await;
        served(again).await;
        until("replaced", || inbound(here).superseding == 1).await;
        two.whole().await;
        assert_eq!(here.pool.stats().superseded, 1);
    }
}

// ---- late accepts ----------------------------------------------------------------------------

/// The smaller's dial is superseded while its message 3 waits at the gate, and the session that
/// superseded it is gone on the larger's side: only so can a superseded dial be accepted.
async fn superseded(two: &Two) -> Gate {
    let (small, large) = (&two.small, &two.large);
    let (late, ours) = two.commit(small, large.id()).await;
    let (_, theirs) = two.open(large, small.id()).await;
    assert_eq!(served(theirs).await, served(ours).await);
    until("all has arrived", || two.book.missing().is_empty()).await;
    assert_eq!(inbound(small).committed_larger, 1);
    assert!(large.pool.disconnect(&small.id(), Disconnect::drain()));
    until("both have let go", || small.sessions(large.id()) + large.sessions(small.id()) == 0)
        .await;
    late
}

/// A dial that waits for its verdict is no user of the session that has served its waiters: that one
/// can drain.
#[tokio::test(start_paused = true)]
async fn a_superseded_dial_has_no_share_of_the_session_that_took_its_place() {
    let two = Two::new();
    let (small, large) = (&two.small, &two.large);
    let (_late, ours) = two.commit(small, large.id()).await;
    let (_, theirs) = two.open(large, small.id()).await;
    assert_eq!(served(theirs).await, served(ours).await);
    let seen = small.pool.snapshot();
    assert!(matches!(&seen.dials[..], [dial] if dial.phase == DialPhase::Superseded), "{seen:?}");
    assert!(matches!(&seen.sessions[..], [session] if session.leases == 0), "{seen:?}");
    let report = small.pool.drain_peer(&large.id(), Duration::from_secs(1)).await;
    assert_eq!(report.leases_remaining, 0, "{report:?}");
}

/// Lets message 3 through; the verdict waits at the gate.
async fn hold_verdict(gate: &Gate) {
    gate.pass(Way::ToResponder, 1);
    gate.arrived(Way::ToInitiator, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_late_accept_fills_a_vacant_slot() {
    for _ in 0..TIMES {
        let two = Two::new();
        let gate = superseded(&two).await;
        gate.open_all();
        until("adopted", || late(&two.small).absent == 1).await;
        two.whole().await;
        assert_eq!(late(&two.small), rows!(LateAcceptRows { absent: 1 }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_accept_after_a_disconnect_is_drained() {
    for round in 0..TIMES {
        let two = Two::new();
        let (small, large) = (&two.small, &two.large);
        let mut events = small.pool.subscribe();
        let gate = match round % 2 {
            // The dial holds its slot.
            0 => {
                let (gate, call) = two.commit(small, large.id()).await;
                assert!(small.pool.disconnect(&large.id(), Disconnect::drain()));
                assert!(matches!(failed(call).await, DialError::Disconnected));
                gate
            }
            // It was superseded, and the mark reaches it through the session that did it.
            _ => {
                let (gate, ours) = two.commit(small, large.id()).await;
                let (_, theirs) = two.open(large, small.id()).await;
                assert_eq!(served(theirs).await, served(ours).await);
                assert!(small.pool.disconnect(&large.id(), Disconnect::drain()));
                until("both have let go", || {
                    small.sessions(large.id()) + large.sessions(small.id()) == 0
                })
                .await;
                gate
            }
        };
        gate.open_all();
        until("drained", || late(small).marked == 1).await;
        two.apart().await;
        assert_eq!(late(small), rows!(LateAcceptRows { marked: 1 }));
        assert_eq!(reasons(&mut events), vec![CloseReason::Disconnected; 1 + round % 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_accept_after_a_drain_is_drained() {
    for round in 0..TIMES {
        let two = Two::new();
        let (small, large) = (&two.small, &two.large);
        let (gate, ours) = two.commit(small, large.id()).await;
        if round % 2 == 0 {
            let (_, theirs) = two.open(large, small.id()).await;
            assert_eq!(served(theirs).await, served(ours).await);
        }
        let (pool, peer) = (small.pool.clone(), large.id());
        let draining = tokio::spawn(async move {
            if round % 4 < 2 {
                pool.drain_peer(&peer, Duration::from_secs(2)).await
            } else {
                pool.drain(Duration::from_secs(2)).await
            }
        });
        until("nothing is handed out", || small.pool.get(&large.id()).is_none()).await;
        until("both have let go", || small.sessions(large.id()) + large.sessions(small.id()) == 0)
            .await;
        gate.open_all();
        until("drained", || late(small).marked == 1).await;
        soon("the drain", draining).await.unwrap();
        two.apart().await;
        assert_eq!(late(small), rows!(LateAcceptRows { marked: 1 }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_accept_aborts_a_later_dial_that_is_not_committed() {
    for _ in 0..TIMES {
        let two = Two::new();
        let gate = superseded(&two).await;
        hold_verdict(&gate).await;
        let (_, later) = two.dial(&two.small, two.large.id()).await;
        gate.open_all();
        served(later).await;
        two.whole().await;
        let expected = rows!(LateAcceptRows { uncommitted: 1 });
        assert_eq!(late(&two.small), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_accept_supersedes_a_later_dial_and_is_superseded_by_its_accept() {
    for _ in 0..TIMES {
        let two = Two::new();
        let gate = superseded(&two).await;
        hold_verdict(&gate).await;
        let (later_gate, later) = two.commit(&two.small, two.large.id()).await;
        gate.open_all();
        served(later).await;
        assert_eq!(late(&two.small).committed, 1);
        // The larger takes the later dial, whose stamp is newer, for what it is.
        later_gate.open_all();
        until("adopted", || late(&two.small).superseding == 1).await;
        two.whole().await;
        let expected = rows!(LateAcceptRows { committed: 1, superseding: 1 });
        assert_eq!(late(&two.small), expected);
        assert_eq!(inbound(&two.large).superseding, 1);
    }
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs stamps")]
async fn a_late_accept_that_is_stale_is_drained() {
    for _ in 0..TIMES {
        let two = Two::new();
        let (small, large) = (&two.small, &two.large);
        let gate = superseded(&two).await;
        hold_verdict(&gate).await;
        // The larger gives the late session up, and makes another one.
        assert!(large.pool.disconnect(&small.id(), Disconnect::drain()));
        let (_, newer) = two.open(large, small.id()).await;
        served(newer).await;
        gate.open_all();
        until("drained", || late(small).duplicate == 1).await;
        two.whole().await;
        assert_eq!(late(small), rows!(LateAcceptRows { duplicate: 1 }));
    }
}

// ---- disconnect in every phase ---------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_dial_that_is_disconnected_leaves_nothing_whatever_its_phase() {
    for phase in 0..5 {
        let two = if phase == 2 { Two::with_hooks(NeverReady, Yes) } else { Two::new() };
        let (small, large) = (&two.small, &two.large);
        let (gate, call) = two.dial(small, large.id()).await;
        match phase {
            // Message 1 is out.
            0 => {}
            // Message 2 is on its way.
            1 => {
                gate.pass(Way::ToResponder, 1);
                gate.arrived(Way::ToInitiator, 1).await;
            }
            // Our own check runs.
            2 => gate.open_all(),
            // Message 3 is out.
            3 => hold_message_3(&gate).await,
            // The verdict is on its way.
            _ => {
                hold_message_3(&gate).await;
                hold_verdict(&gate).await;
            }
        }
        assert!(small.pool.disconnect(&large.id(), Disconnect::drain()));
        assert!(matches!(failed(call).await, DialError::Disconnected), "phase {phase}");
        gate.open_all();
        two.apart().await;
        // And nothing keeps the next dial from its way.
        let (from, to) = if phase == 2 { (large, small) } else { (small, large) };
        let (_, next) = two.open(from, to.id()).await;
        served(next).await;
        two.whole().await;
    }
}

/// Knows nobody, and never says so.
struct Lost;

impl Connector for Lost {
    fn resolve<'a>(
        &'a self,
        _: &'a PeerId,
        _: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<Vec<Address>>> {
        Box::pin(std::future::pending())
    }

    fn connect<'a>(
        &'a self,
        _: &'a Address,
        _: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_is_disconnected_before_it_has_a_stream_leaves_nothing() {
    let config = Config::default().max_concurrent_dials(1);
    let (pool, _inbox) =
        Pool::builder(Identity::generate()).config(config).connector(Lost).build().unwrap();
    let (one, other) = ordered_identities();
    let calls = [one.peer_id(), other.peer_id()].map(|peer| {
        let pool = pool.clone();
        (peer, tokio::spawn(async move { pool.get_or_dial(peer).await }))
    });
    let phase = |peer: PeerId| {
        pool.snapshot().dials.iter().find(|dial| dial.peer == peer).map(|dial| dial.phase)
    };
    let (resolving, queued) = (one.peer_id(), other.peer_id());
    until("the first is resolved", || phase(resolving) == Some(DialPhase::Resolving)).await;
    assert_eq!(phase(queued), Some(DialPhase::Queued));
    // The one that waits first, so that it never has its turn.
    for (peer, call) in calls.into_iter().rev() {
        assert!(pool.disconnect(&peer, Disconnect::drain()));
        assert!(matches!(failed(call).await, DialError::Disconnected));
    }
    let nothing = |limit: LimitUse| limit.held == 0;
    until("nothing is left", || {
        let limits = pool.snapshot().limits;
        [limits.sessions, limits.dials, limits.queued_dials].into_iter().all(nothing)
    })
    .await;
    assert_eq!(pool.snapshot().dials, []);
}

#[tokio::test(start_paused = true)]
async fn a_parked_connection_survives_the_disconnect_of_the_dial_that_parked_it() {
    for _ in 0..TIMES {
        let two = Two::new();
        let (small, large) = (&two.small, &two.large);
        let (from_large, ours) = two.commit(large, small.id()).await;
        let (_, theirs) = two.open(small, large.id()).await;
        until("it is parked", || large.pool.stats().parked == 1).await;
        assert!(large.pool.disconnect(&small.id(), Disconnect::drain()));
        assert!(matches!(failed(ours).await, DialError::Disconnected));
        // The peer comes of its own accord: only `refuse_for` keeps it out.
        served(theirs).await;
        from_large.open_all();
        two.whole().await;
    }
}

// ---- restarts --------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_restarted_peer_is_whole_again_with_its_first_dial() {
    for round in 0..TIMES {
        let (net, book) = (Net::default(), Book::default());
        let (small, large) = ordered_identities();
        let (stays, restarts) = if round % 2 == 0 { (small, large) } else { (large, small) };
        let stays = Talker::new(&net, stays, Config::default(), &book);
        let before = Talker::new(&net, restarts.clone(), Config::default(), &book);
        if round % 4 < 2 {
            served(stays.call(before.id())).await;
        } else {
            served(before.call(stays.id())).await;
        }
        whole(&stays, &before).await;
        until("all has arrived", || book.missing().is_empty()).await;
        // It dies without a word.
        for (from, to) in [(&stays, &before), (&before, &stays)] {
            net.gates(from.id(), to.id()).iter().for_each(Gate::kill);
        }
        before.pool.close().await;
        drop(before);

        let after = Talker::new(&net, restarts, Config::default(), &book);
        assert!(stays.pool.contains(&after.id()), "the dead session is still held");
        served(after.call(stays.id())).await;
        whole(&stays, &after).await;
        assert_eq!(inbound(&stays).superseding, 1);
        assert_eq!(stays.pool.stats().identity_conflicts, 0, "a restart is no conflict");
        until("all has arrived", || book.missing().is_empty()).await;
        assert_eq!(book.surplus(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_peer_is_let_in_while_a_dial_to_its_dead_self_is_committed() {
    for _ in 0..TIMES {
        let two = Two::new();
        let (small, large) = (&two.small, &two.large);
        let (gate, ours) = two.commit(large, small.id()).await;
        gate.kill();
        tokio::time::advance(Duration::from_millis(500)).await;
        small.pool.close().await;
        let reborn = Talker::new(&two.net, ordered_identities().0, Config::default(), &two.book);
        let (_, theirs) = two.open(&reborn, large.id()).await;
        assert_eq!(served(theirs).await, served(ours).await);
        assert_eq!(large.pool.stats().parked, 1);
        whole(large, &reborn).await;
        until("all has arrived", || two.book.missing().is_empty()).await;
    }
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs the number of the peer's pool")]
async fn two_processes_with_one_key_are_noticed() {
    for _ in 0..TIMES {
        let (net, book) = (Net::default(), Book::default());
        let (twin, peer) = ordered_identities();
        let peer = Talker::new(&net, peer, Config::default(), &book);
        let twins = [twin.clone(), twin]
            .map(|identity| Talker::new(&net, identity, Config::default(), &book));
        let mut events = peer.pool.subscribe();
        served(twins[0].call(peer.id())).await;
        served(twins[1].call(peer.id())).await;
        assert_eq!(peer.pool.stats().identity_conflicts, 0, "it might be a restart");
        until("the first has lost its session", || twins[0].session_hash(peer.id()).is_none())
            .await;
        served(twins[0].call(peer.id())).await;
        assert_eq!(peer.pool.stats().identity_conflicts, 1);
        let conflict = async {
            while let Some(event) = events.recv().await {
                if let Ok(PoolEvent::IdentityConflict { peer, .. }) = event {
                    return Some(peer);
                }
            }
            None
        };
        assert_eq!(soon("the event", conflict).await, Some(twins[0].id()));
        whole(&peer, &twins[0]).await;
        until("all has arrived", || book.missing().is_empty()).await;
    }
}

// ---- a current dial that is refused for the sake of another connection -----------------------

/// Two processes with one key, of which the second dials, and is refused because of the first.
struct Twins {
    net: Net,
    book: Book,
    peer: Talker,
    first: Talker,
    second: Talker,
}

impl Twins {
    fn new() -> Self {
        let (net, book) = (Net::default(), Book::default());
        let (twin, peer) = ordered_identities();
        let new = |identity: Identity| Talker::new(&net, identity, Config::default(), &book);
        // The one that began last is the one that is reached.
        let (peer, second, first) = (new(peer), new(twin.clone()), new(twin));
        net.default_line(Line::Gated);
        Self { net, book, peer, first, second }
    }

    async fn gate(&self, from: &Talker, to: &Talker, n: usize) -> Gate {
        self.net.gate(from.id(), to.id(), n).await
    }

    /// Brings the second's message 3, which waits at the gate, to be refused as a duplicate.
    async fn refuse_as_duplicate(&self, gate: &Gate, streams: usize) {
        let call = self.first.call(self.peer.id());
        self.gate(&self.first, &self.peer, streams).await.open_all();
        served(call).await;
        gate.open_all();
        until("refused", || self.second.pool.stats().rejected_by_peer.duplicate == 1).await;
    }

    /// Brings the second's message 3 to be parked and refused as simultaneous.
    async fn refuse_as_simultaneous(&self, gate: &Gate) {
        let call = self.peer.call(self.first.id());
        let to_first = self.gate(&self.peer, &self.first, 0).await;
        hold_message_3(&to_first).await;
        gate.open_all();
        until("it is parked", || self.peer.pool.stats().parked == 1).await;
        to_first.open_all();
        served(call).await;
        until("refused", || self.second.pool.stats().rejected_by_peer.simultaneous == 1).await;
    }

    async fn second_is_whole(&self) {
        whole(&self.second, &self.peer).await;
        until("the first is at rest", || self.first.is_at_rest()).await;
        until("all has arrived", || self.book.missing().is_empty()).await;
        assert_eq!(self.book.surplus(), []);
        assert_eq!(self.first.sessions(self.peer.id()), 0);
    }
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs refusals that say why")]
async fn a_current_dial_that_is_refused_as_duplicate_tries_again_for_its_waiters() {
    for _ in 0..TIMES {
        let twins = Twins::new();
        let call = twins.second.call(twins.peer.id());
        let gate = twins.gate(&twins.second, &twins.peer, 0).await;
        hold_message_3(&gate).await;
        twins.refuse_as_duplicate(&gate, 1).await;
        twins.gate(&twins.second, &twins.peer, 2).await.open_all();
        served(call).await;
        twins.second_is_whole().await;
        assert_eq!(inbound(&twins.peer).duplicate, 1);
        assert_eq!(inbound(&twins.peer).superseding, 1);
    }
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs refusals that say why")]
async fn a_current_dial_that_is_refused_as_simultaneous_tries_again_for_its_waiters() {
    for _ in 0..TIMES {
        let twins = Twins::new();
        let call = twins.second.call(twins.peer.id());
        let gate = twins.gate(&twins.second, &twins.peer, 0).await;
        hold_message_3(&gate).await;
        twins.refuse_as_simultaneous(&gate).await;
        twins.gate(&twins.second, &twins.peer, 1).await.open_all();
        served(call).await;
        twins.second_is_whole().await;
        assert_eq!(inbound(&twins.peer).superseding, 1);
    }
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs refusals that say why")]
async fn a_refused_dial_whose_stream_was_brought_goes_on_by_the_connector() {
    for _ in 0..TIMES {
        let twins = Twins::new();
        let (gate, near, far) = Gate::closed();
        let (pool, peer) = (twins.second.pool.clone(), twins.peer.id());
        let call = tokio::spawn(async move {
            pool.get_or_dial_with(peer, move || async move { Ok(near) }).await
        });
        let pool = twins.peer.pool.clone();
        let accepting = tokio::spawn(async move { pool.adopt(far, Role::Responder).await });
        hold_message_3(&gate).await;
        twins.refuse_as_duplicate(&gate, 0).await;
        assert!(soon("the refusal", accepting).await.unwrap().is_err());
        twins.gate(&twins.second, &twins.peer, 1).await.open_all();
        served(call).await;
        twins.second_is_whole().await;
    }
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs refusals that say why")]
async fn a_refused_dial_that_waits_for_the_other_connection_takes_it() {
    for _ in 0..TIMES {
        let twins = Twins::new();
        let call = twins.second.call(twins.peer.id());
        let gate = twins.gate(&twins.second, &twins.peer, 0).await;
        hold_message_3(&gate).await;
        twins.refuse_as_duplicate(&gate, 1).await;
        // The peer loses the first, and comes to the second before that tries again.
        assert!(twins.first.pool.disconnect(&twins.peer.id(), Disconnect::drain()));
        until("it is gone", || twins.peer.sessions(twins.first.id()) == 0).await;
        let (to_second, near, far) = Gate::open();
        let (pool, peer) = (twins.peer.pool.clone(), twins.second.id());
        let theirs = tokio::spawn(async move {
            pool.get_or_dial_with(Target::new(peer), move || async move { Ok(near) }).await
        });
        let pool = twins.second.pool.clone();
        tokio::spawn(async move { pool.adopt(far, Role::Responder).await });
        assert_eq!(served(theirs).await, served(call).await);
        to_second.open_all();
        twins.second_is_whole().await;
        assert_eq!(inbound(&twins.second).uncommitted, 1);
    }
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs refusals that say why")]
async fn a_refused_dial_that_is_given_up_or_disconnected_leaves_nothing() {
    for round in 0..TIMES {
        let twins = Twins::new();
        let call = twins.second.call(twins.peer.id());
        let gate = twins.gate(&twins.second, &twins.peer, 0).await;
        hold_message_3(&gate).await;
        if round % 3 == 0 {
            // Nobody waits any more when the refusal comes.
            call.abort();
            twins.refuse_as_duplicate(&gate, 1).await;
        } else {
            twins.refuse_as_duplicate(&gate, 1).await;
            if round % 3 == 1 {
                call.abort();
            } else {
                assert!(twins.second.pool.disconnect(&twins.peer.id(), Disconnect::drain()));
                assert!(matches!(failed(call).await, DialError::Disconnected));
            }
        }
        until("it is at rest", || twins.second.is_at_rest()).await;
        assert_eq!(twins.second.sessions(twins.peer.id()), 0);
        whole(&twins.first, &twins.peer).await;
        assert_eq!(twins.second.pool.stats().backoffs, 0);
        until("all has arrived", || twins.book.missing().is_empty()).await;
    }
}
