//! The application's callbacks may panic, hang, refuse and call the pool: it stays usable.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use noise_pool::error::{DialError, Refusal};
use noise_pool::io::{BoxFuture, BoxedStream, TargetData};
use noise_pool::{
    Address, Candidate, Config, Connector, Disconnect, Hooks, Identity, Inbox, Lease, Origin,
    PeerId, Pool, SessionInfo, Target,
};
use support::net::{Net, address};
use support::{Node, identity, soon, until};

/// Which callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Callback {
    Admit,
    Authorise,
    Ready,
    Health,
    Resolve,
    Connect,
    Opener,
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// Panics before it has made its future.
    PanicsAtOnce,
    /// Panics in its future, after an await.
    PanicsLater,
    Hangs,
    /// Says no, or gives an error.
    Refuses,
    /// Looks at the pool from all sides, and has it dial another peer.
    CallsThePool,
    /// Waits for a session to the very peer that it is asked about.
    AsksForThePeer,
    /// Disconnects the peer that it is asked about.
    Disconnects,
}

use Deed::{AsksForThePeer, CallsThePool, Disconnects, Hangs, PanicsAtOnce, PanicsLater, Refuses};

const DEEDS: [Deed; 7] =
    [PanicsAtOnce, PanicsLater, Hangs, Refuses, CallsThePool, AsksForThePeer, Disconnects];

/// How often each deed is done, and how often the pool must work afterwards.
const TIMES: u64 = 10;

/// The application: does its deed in one of its callbacks, and says yes in all others.
#[derive(Clone, Default)]
struct Application(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    deed: Option<(Callback, Deed)>,
    done: u64,
    /// The pool whose callbacks these are, and a peer that it can reach.
    world: Option<(Pool, PeerId)>,
}

impl Application {
    fn will(&self, deed: Option<(Callback, Deed)>) {
        self.0.lock().unwrap().deed = deed;
    }

    fn done(&self) -> u64 {
        self.0.lock().unwrap().done
    }

    /// The callback's answer; `about` is the peer that it is asked about, where it is told one.
    fn called(&self, callback: Callback, about: Option<PeerId>) -> BoxFuture<'static, bool> {
        let (deed, world) = {
            let mut state = self.0.lock().unwrap();
            let deed = state.deed.filter(|(at, _)| *at == callback).map(|(_, deed)| deed);
            // Nested calls of the pool come back here: the deed is done once.
            let deed = deed.filter(|_| about != state.world.as_ref().map(|(_, other)| *other));
            state.done += u64::from(deed.is_some());
            (deed, state.world.clone())
        };
        if deed == Some(PanicsAtOnce) {
            wanted_panic();
        }
        Box::pin(async move {
            let (Some(deed), Some((pool, other))) = (deed, world) else { return true };
            tokio::task::yield_now().await;
            let about = about.unwrap_or(other);
            match deed {
                PanicsAtOnce | PanicsLater => wanted_panic(),
                Hangs => std::future::pending().await,
                Refuses => return false,
                CallsThePool => {
                    let snapshot = pool.snapshot();
                    assert_eq!(snapshot.peer, pool.id());
                    let _ = (pool.stats(), pool.peers(), pool.get(&about), pool.contains(&about));
                    assert_eq!(pool.get_or_dial(other).await.unwrap().peer(), other);
                }
                AsksForThePeer => drop(pool.get_or_dial(about).await),
                Disconnects => {
                    pool.disconnect(&about, Disconnect::drain());
                }
            }
            true
        })
    }
}

/// Unwinds like any panic, without a report on the terminal.
fn wanted_panic() -> ! {
    std::panic::resume_unwind(Box::new("wanted"))
}

impl Hooks for Application {
    fn admit<'a>(&'a self, _source: &'a SocketAddr) -> BoxFuture<'a, bool> {
        self.called(Callback::Admit, None)
    }

    fn authorise<'a>(&'a self, peer: &'a PeerId, _origin: Origin) -> BoxFuture<'a, bool> {
        self.called(Callback::Authorise, Some(*peer))
    }

    fn ready<'a>(&'a self, candidate: &'a Candidate) -> BoxFuture<'a, bool> {
        self.called(Callback::Ready, Some(candidate.peer))
    }

    fn health(&self, session: SessionInfo) -> Option<BoxFuture<'static, bool>> {
        Some(self.called(Callback::Health, Some(session.peer)))
    }
}

/// The application's connector, over the in-memory network.
struct Way<C> {
    application: Application,
    network: C,
}

impl<C: Connector> Connector for Way<C> {
    fn resolve<'a>(
        &'a self,
        peer: &'a PeerId,
        data: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<Vec<Address>>> {
        let answer = self.application.called(Callback::Resolve, Some(*peer));
        Box::pin(async move {
            if answer.await { self.network.resolve(peer, data).await } else { Err(no()) }
        })
    }

    fn connect<'a>(
        &'a self,
        address: &'a Address,
        data: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<BoxedStream>> {
        let text = address.to_string();
        let peer = text.split(':').next().unwrap().parse().unwrap();
        let answer = self.application.called(Callback::Connect, Some(peer));
        Box::pin(async move {
            if answer.await { self.network.connect(address, data).await } else { Err(no()) }
        })
    }
}

fn no() -> io::Error {
    io::Error::other("the application says no")
}

/// A pool with a misbehaving application, on a network with a well-behaved peer.
struct World {
    net: Net,
    application: Application,
    pool: Pool,
    inbox: Inbox,
    next: u8,
    others: Vec<(Pool, Inbox)>,
}

impl World {
    fn new(config: Config) -> Self {
        let net = Net::default();
        let application = Application::default();
        let own = identity(0);
        let network = net.port(own.peer_id());
        let (pool, inbox) = Pool::builder(own)
            .config(config)
            .connector(Way { application: application.clone(), network })
            .hooks(application.clone())
            .build()
            .unwrap();
        net.join(&pool);
        let other = net.pool(identity(1), Config::default());
        application.0.lock().unwrap().world = Some((pool.clone(), other.0.id()));
        Self { net, application, pool, inbox, next: 2, others: vec![other] }
    }

    /// Tight limits: whatever leaks a permit is noticed by the eleventh operation. Two dials, since
    /// a callback may dial as well.
    fn tight() -> Self {
        Self::new(
            Config::default()
                .max_concurrent_dials(2)
                .max_queued_dials(2)
                .max_sessions(4)
                .max_pending_handshakes(4),
        )
    }

    /// A new peer on the network.
    fn peer(&mut self) -> Pool {
        let (pool, inbox) = self.net.pool(identity(self.next), Config::default());
        self.next += 1;
        self.others.push((pool.clone(), inbox));
        pool
    }

    /// One call that has the callback called for a new peer.
    async fn provoke(&mut self, callback: Callback, origin: Origin) -> Result<Lease, DialError> {
        let peer = self.peer();
        let call = async {
            match (callback, origin) {
                (Callback::Opener, _) => {
                    let answer = self.application.clone();
                    let (id, network) = (peer.id(), self.net.port(self.pool.id()));
                    let open = move || {
                        let answer = answer.called(Callback::Opener, Some(id));
                        async move {
                            if !answer.await {
                                return Err(no());
                            }
                            network.connect(&address(id, 1), None).await
                        }
                    };
                    self.pool.get_or_dial_with(Target::new(id), open).await
                }
                (Callback::Health, _) => {
                    // A session that was silent for longer than `ping_after`.
                    drop(self.pool.get_or_dial(peer.id()).await?);
                    tokio::time::sleep(Duration::from_secs(40)).await;
                    self.pool.get_or_dial(peer.id()).await
                }
                (_, Origin::Outbound) => self.pool.get_or_dial(peer.id()).await,
                (_, Origin::Inbound) => peer.get_or_dial(self.pool.id()).await,
            }
        };
        soon("a call with a misbehaving callback", call).await
    }

    /// Ten sessions to new peers, from both sides in turn, each of which carries a message.
    async fn must_work(&mut self, what: &str) {
        self.part_with_all().await;
        for n in 0..TIMES {
            let peer = self.peer();
            let message = Bytes::from(format!("{what} {n}"));
            let sent = async {
                if n % 2 == 0 {
                    self.pool.send(peer.id(), message.clone()).await
                } else {
                    peer.send(self.pool.id(), message.clone()).await
                }
            };
            soon(what, sent).await.unwrap_or_else(|error| panic!("{what} {n}: {error:?}"));
            let inbox =
                if n % 2 == 0 { &mut self.others.last_mut().unwrap().1 } else { &mut self.inbox };
            assert_eq!(soon(what, inbox.recv()).await.unwrap().body, message, "{what} {n}");
            // Strangers do not push our own sessions out: make room for the next.
            self.pool.disconnect(&peer.id(), Disconnect::drain());
        }
        self.part_with_all().await;
    }

    /// Ends all sessions: nothing is left, and no permit is out.
    async fn part_with_all(&mut self) {
        for peer in self.pool.peers() {
            self.pool.disconnect(&peer, Disconnect::drain());
        }
        until("nothing is left", || {
            let snapshot = self.pool.snapshot();
            let limits = snapshot.limits;
            let held = [
                limits.sessions,
                limits.inbound,
                limits.draining,
                limits.dials,
                limits.queued_dials,
                limits.pending_handshakes,
            ];
            held.iter().all(|limit| limit.held == 0) && snapshot.dials.is_empty()
        })
        .await;
    }
}

/// What must come of a call whose callback does this; `None`: it only must end.
fn expected(callback: Callback, deed: Deed) -> Option<bool> {
    match (callback, deed) {
        (_, CallsThePool) => Some(true),
        // The session that was found unhealthy, or disconnected, is followed by another.
        (Callback::Health, _) => Some(true),
        (_, AsksForThePeer | Disconnects) => None,
        (_, PanicsAtOnce | PanicsLater | Hangs | Refuses) => Some(false),
    }
}

/// Does the deed in the callback ten times; then the pool must work ten times.
async fn ten_times(callback: Callback, deed: Deed, origin: Origin) {
    let what = format!("{callback:?} {deed:?} {origin:?}");
    let mut world = World::tight();
    world.application.will(Some((callback, deed)));
    for _ in 0..TIMES {
        let outcome = world.provoke(callback, origin).await;
        if let Some(served) = expected(callback, deed) {
            assert_eq!(outcome.is_ok(), served, "{what}: {outcome:?}");
        }
        if let (Err(error), Origin::Outbound) = (&outcome, origin) {
            assert_telling(callback, deed, error);
        }
        drop(outcome);
    }
    assert!(world.application.done() >= TIMES, "{what}");
    let hooks = world.pool.stats().hooks;
    let counted = (hooks.panicked, hooks.timed_out, hooks.refused);
    match (callback, deed) {
        (_, PanicsAtOnce | PanicsLater) => assert_eq!(counted, (TIMES, 0, 0), "{what}"),
        // These are failures of a dial, and counted there.
        (Callback::Resolve | Callback::Connect | Callback::Opener, Hangs | Refuses) => {
            let failures = world.pool.stats().dial_failures;
            assert_eq!(failures.resolve + failures.connect, TIMES, "{what}: {failures:?}");
        }
        (_, Hangs) => assert_eq!(counted, (0, TIMES, 0), "{what}"),
        (_, Refuses) => assert_eq!(counted, (0, 0, TIMES), "{what}"),
        (_, CallsThePool) => assert_eq!(counted, (0, 0, 0), "{what}"),
        (_, AsksForThePeer | Disconnects) => {}
    }
    world.application.will(None);
    world.must_work(&what).await;
}

/// The error says what the callback did.
fn assert_telling(callback: Callback, deed: Deed, error: &DialError) {
    let refusal = match deed {
        PanicsAtOnce | PanicsLater => Refusal::Panicked,
        Hangs => Refusal::TimedOut,
        Refuses => Refusal::Refused,
        CallsThePool | AsksForThePeer | Disconnects => return,
    };
    let told = match (callback, error.cause()) {
        (Callback::Authorise | Callback::Ready, DialError::Check(why)) => *why == refusal,
        (_, DialError::Panicked) => refusal == Refusal::Panicked,
        (Callback::Resolve, DialError::Resolve { .. })
        | (Callback::Connect, DialError::Connect { .. })
        | (Callback::Opener, DialError::Open { .. }) => refusal != Refusal::Panicked,
        _ => false,
    };
    assert!(told, "{callback:?} {deed:?}: {error:?}");
}

async fn every_deed(callback: Callback, origin: Origin) {
    for deed in DEEDS {
        ten_times(callback, deed, origin).await;
    }
}

#[tokio::test(start_paused = true)]
async fn authorising_a_peer_that_we_dial() {
    every_deed(Callback::Authorise, Origin::Outbound).await;
}

#[tokio::test(start_paused = true)]
async fn authorising_a_peer_that_dials_us() {
    every_deed(Callback::Authorise, Origin::Inbound).await;
}

#[tokio::test(start_paused = true)]
async fn the_ready_check_of_a_peer_that_we_dial() {
    every_deed(Callback::Ready, Origin::Outbound).await;
}

#[tokio::test(start_paused = true)]
async fn the_ready_check_of_a_peer_that_dials_us() {
    every_deed(Callback::Ready, Origin::Inbound).await;
}

#[tokio::test(start_paused = true)]
#[cfg_attr(noise_pool_plain_wire, ignore = "needs a ping")]
async fn the_health_check() {
    every_deed(Callback::Health, Origin::Outbound).await;
}

#[tokio::test(start_paused = true)]
async fn resolving() {
    every_deed(Callback::Resolve, Origin::Outbound).await;
}

#[tokio::test(start_paused = true)]
async fn connecting() {
    every_deed(Callback::Connect, Origin::Outbound).await;
}

#[tokio::test(start_paused = true)]
async fn the_callers_opener() {
    every_deed(Callback::Opener, Origin::Outbound).await;
}

/// Only a listener asks for an admission: over TCP, where time cannot be paused. Connections are
/// begun one after another, so that each waits for what became of the one before.
async fn admitting(deed: Deed) {
    let application = Application::default();
    let config =
        Config::default().hook_timeout(Duration::from_millis(20)).max_pending_handshakes(4);
    let (pool, mut inbox) = Pool::builder(identity(0))
        .config(config)
        .hooks(application.clone())
        .connector(Net::default().port(identity(0).peer_id()))
        .build()
        .unwrap();
    let at = pool.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let target = Target::new(pool.id()).address(at);
    let other = Node::start(Config::default()).await;
    // The pool and the other one have a session: what the callback asks for is there.
    other.pool.send(target.clone(), Bytes::from_static(b"first")).await.unwrap();
    assert_eq!(soon("the first message", inbox.recv()).await.unwrap().body, "first");
    application.0.lock().unwrap().world = Some((pool.clone(), other.id()));
    application.will(Some((Callback::Admit, deed)));
    for n in 1..=TIMES {
        let (stranger, _inbox) = Pool::builder(Identity::generate()).build().unwrap();
        let outcome = soon("a dial", stranger.get_or_dial(target.clone())).await;
        let admitted = matches!(deed, CallsThePool | AsksForThePeer | Disconnects);
        assert_eq!(outcome.is_ok(), admitted, "{deed:?}: {outcome:?}");
        let turned_away = if admitted { 0 } else { n };
        assert_eq!(pool.stats().handshake_failures.not_admitted, turned_away);
    }
    assert_eq!(application.done(), TIMES);
    let hooks = pool.stats().hooks;
    let counted = (hooks.panicked, hooks.timed_out, hooks.refused);
    let expected = match deed {
        PanicsAtOnce | PanicsLater => (TIMES, 0, 0),
        Hangs => (0, TIMES, 0),
        Refuses => (0, 0, TIMES),
        CallsThePool | AsksForThePeer | Disconnects => (0, 0, 0),
    };
    assert_eq!(counted, expected, "{deed:?}");
    application.will(None);
    for n in 0..TIMES {
        let friend = Node::start(Config::default()).await;
        let message = Bytes::from(n.to_string());
        soon("a send", friend.pool.send(target.clone(), message.clone())).await.unwrap();
        assert_eq!(soon("a message", inbox.recv()).await.unwrap().body, message);
    }
    until("no handshake is pending", || pool.snapshot().limits.pending_handshakes.held == 0).await;
}

#[tokio::test]
async fn admitting_an_address() {
    for deed in DEEDS {
        admitting(deed).await;
    }
}
