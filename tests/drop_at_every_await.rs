//! Every public future is dropped after every number of steps, and nothing leaks.
//!
//! Owns the harness [`at_every_await`] and the table of futures, [`CASES`]. The pools talk over
//! streams that move one byte at a time and are pending every other poll, so that there is a step
//! between any two bytes. The future is polled after every turn of the scheduler, woken or not: the
//! drop then falls into every state of the tasks behind it, not only into those that wake it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use noise_pool::{
    Address, BoxFuture, BoxedStream, Config, Connector, DialError, DialPhase, Disconnect, Events,
    ExclusiveLease, Identity, Inbox, Lease, LimitUse, Message, PeerId, Pool, PoolEvent, Role,
    SendErrorKind, SendOptions, Target, TargetData,
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::time::Instant;

use support::net::address;
use support::{alive_tasks, at_rest, identity, soon, until};

// ---- the transport -----------------------------------------------------------------------------

/// What all streams of one world share.
#[derive(Default)]
struct Wire {
    /// Whether bytes go one by one; otherwise as they come, to save time.
    by_byte: AtomicBool,
    /// Bytes that have moved: while it stands still, only time can go on.
    moved: AtomicU64,
    pools: Mutex<Vec<Pool>>,
}

/// One end of a stream that moves one byte and is pending every other poll.
struct ByByte {
    inner: DuplexStream,
    wire: Arc<Wire>,
    /// Whether the next read, and the next write, may move a byte.
    ready: [bool; 2],
}

impl ByByte {
    fn pair(wire: &Arc<Wire>) -> (Self, Self) {
        let (near, far) = duplex(64);
        let end = |inner| Self { inner, wire: Arc::clone(wire), ready: [false; 2] };
        (end(near), end(far))
    }

    fn is_by_byte(&self) -> bool {
        self.wire.by_byte.load(Ordering::Relaxed)
    }

    /// Whether this poll may move a byte; if not, the task is woken for the next.
    fn turn(&mut self, way: usize, cx: &Context<'_>) -> bool {
        self.ready[way] = !self.ready[way];
        if !self.ready[way] || !self.is_by_byte() {
            return true;
        }
        cx.waker().wake_by_ref();
        false
    }

    fn count(&self) {
        self.wire.moved.fetch_add(1, Ordering::Relaxed);
    }
}

impl AsyncRead for ByByte {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.turn(0, cx) {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = if self.is_by_byte() {
            let mut byte = [0];
            let mut one = ReadBuf::new(&mut byte[..buf.remaining().min(1)]);
            let polled = Pin::new(&mut self.inner).poll_read(cx, &mut one);
            buf.put_slice(one.filled());
            polled
        } else {
            Pin::new(&mut self.inner).poll_read(cx, buf)
        };
        if buf.filled().len() > before {
            self.count();
        }
        polled
    }
}

impl AsyncWrite for ByByte {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.turn(1, cx) {
            return Poll::Pending;
        }
        let most = if self.is_by_byte() { buf.len().min(1) } else { buf.len() };
        let polled = Pin::new(&mut self.inner).poll_write(cx, &buf[..most]);
        if matches!(polled, Poll::Ready(Ok(1..))) {
            self.count();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Connecting to this identity never ends.
const SILENT: u8 = 3;

/// Leads to the pools of one world.
struct Network(Arc<Wire>);

impl Network {
    fn open(wire: &Arc<Wire>, to: &Address) -> io::Result<BoxedStream> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let named = |pool: &&Pool| address(pool.id(), 1) == *to;
        let pool = wire.pools.lock().unwrap().iter().find(named).cloned().ok_or_else(refused)?;
        let (near, far) = ByByte::pair(wire);
        tokio::spawn(async move { drop(pool.adopt(far, Role::Responder).await) });
        Ok(Box::new(near))
    }
}

impl Connector for Network {
    fn resolve<'a>(
        &'a self,
        peer: &'a PeerId,
        _: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<Vec<Address>>> {
        Box::pin(async { Ok(vec![address(*peer, 1)]) })
    }

    fn connect<'a>(
        &'a self,
        to: &'a Address,
        _: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async {
            if *to == address(identity(SILENT).peer_id(), 1) {
                return std::future::pending().await;
            }
            Self::open(&self.0, to)
        })
    }
}

// ---- the world ---------------------------------------------------------------------------------

/// Two pools, and whatever a case needs besides.
struct World {
    wire: Arc<Wire>,
    a: Pool,
    a_inbox: Inbox,
    b: Pool,
    b_inbox: Inbox,
    lease: Option<Lease>,
    exclusive: Option<ExclusiveLease>,
    events: Option<Events>,
    /// What the future under test received, in order.
    heard: Vec<Bytes>,
    told: Vec<PoolEvent>,
    /// What A's callers were told is accepted for B, in order.
    accepted: Vec<Bytes>,
    /// What B sent to A, in order.
    to_a: Vec<Bytes>,
    /// A was closed, and what it had accepted may be lost.
    cut: bool,
    /// Tasks before the future began.
    tasks: usize,
    next: u8,
}

/// Messages of the greatest size fill a queue by twos.
const MESSAGE: usize = 64;

fn config() -> Config {
    Config::default()
        .max_message_size(MESSAGE)
        .min_queue(256)
        .max_queue(256)
        .max_undelivered(256)
        .inbox_bytes(256)
}

impl World {
    fn pool(wire: &Arc<Wire>, identity: Identity) -> (Pool, Inbox) {
        let builder = Pool::builder(identity).config(config()).connector(Network(wire.clone()));
        let (pool, inbox) = builder.build().unwrap();
        wire.pools.lock().unwrap().push(pool.clone());
        (pool, inbox)
    }

    fn new() -> Self {
        let wire = Arc::default();
        let (a, a_inbox) = Self::pool(&wire, identity(1));
        let (b, b_inbox) = Self::pool(&wire, identity(2));
        Self {
            wire,
            a,
            a_inbox,
            b,
            b_inbox,
            lease: None,
            exclusive: None,
            events: None,
            heard: Vec::new(),
            told: Vec::new(),
            accepted: Vec::new(),
            to_a: Vec::new(),
            cut: false,
            tasks: 0,
            next: 0,
        }
    }

    /// A message that was not sent before.
    fn message(&mut self) -> Bytes {
        self.next += 1;
        Bytes::from(vec![self.next; MESSAGE])
    }

    async fn connect(&mut self) {
        self.lease = Some(soon("a lease", self.a.get_or_dial(self.b.id())).await.unwrap());
        until("B has it too", || self.b.contains(&self.a.id())).await;
    }

    async fn connect_exclusively(&mut self) {
        let taken = soon("all leases", self.a.get_exclusive(self.b.id())).await.unwrap();
        self.exclusive = Some(taken);
        until("B has it too", || self.b.contains(&self.a.id())).await;
    }

    /// Sends a message if the queue has room.
    fn offer(&mut self) -> Result<(), SendErrorKind> {
        let message = self.message();
        let sent = self.lease.as_ref().unwrap().try_send(message.clone());
        sent.map_err(|error| error.kind)?;
        self.accepted.push(message);
        Ok(())
    }

    /// Sends until B's inbox, the stream and our queue take no more.
    async fn fill(&mut self) {
        self.connect().await;
        let mut full = 0;
        while full < 2 {
            match self.offer() {
                Ok(()) => full = 0,
                Err(kind) => {
                    assert_eq!(kind, SendErrorKind::Full);
                    full += 1;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }

    /// Ends A and starts it again, with the same identity.
    async fn restart(&mut self) {
        soon("A closes", self.a.close()).await;
        all_released(&self.a, &mut self.a_inbox).await;
        self.wire.pools.lock().unwrap().retain(|pool| pool.id() != self.a.id());
        until("B has noticed", || !self.b.contains(&self.a.id())).await;
        (self.a, self.a_inbox) = Self::pool(&self.wire, identity(1));
    }

    /// A fresh call, messages and their way back, and all leases at once. What came to B before it.
    async fn works(&mut self) -> Vec<Bytes> {
        let fresh = Bytes::from_static(b"fresh");
        let lease = soon("a fresh lease", self.a.get_or_dial(self.b.id())).await.unwrap();
        let (sent, came) = soon("a round trip", async {
            tokio::join!(lease.send(fresh.clone()), read_up_to(&mut self.b_inbox, &fresh))
        })
        .await;
        sent.unwrap();
        // No caller that has gone still stands in the line for room.
        soon("a flush", lease.flush()).await.unwrap();
        lease.try_send(fresh.clone()).unwrap();
        assert_eq!(soon("no wait", read_up_to(&mut self.b_inbox, &fresh)).await, [] as [Bytes; 0]);
        let back = self.b.get(&self.a.id()).expect("the other end of the session");
        back.send(fresh.clone()).await.unwrap();
        drop(back);
        self.heard.extend(soon("the answer", read_up_to(&mut self.a_inbox, &fresh)).await);
        drop(lease);
        drop(soon("all leases", self.a.get_exclusive(self.b.id())).await.unwrap());
        came
    }
}

async fn read_up_to(inbox: &mut Inbox, last: &Bytes) -> Vec<Bytes> {
    let mut came = Vec::new();
    loop {
        match inbox.recv().await.expect("the pool lives").body {
            body if body == last => return came,
            body => came.push(body),
        }
    }
}

/// Every permit of a pool that has ended is back, once its inbox was read out.
async fn all_released(pool: &Pool, inbox: &mut Inbox) {
    while soon("the inbox ends", inbox.recv()).await.is_some() {}
    let picture = pool.snapshot();
    let l = &picture.limits;
    let uses = [
        ("sessions", &l.sessions),
        ("inbound", &l.inbound),
        ("draining", &l.draining),
        ("dials", &l.dials),
        ("queued dials", &l.queued_dials),
        ("pending handshakes", &l.pending_handshakes),
        ("discarding", &l.discarding),
        ("buffered bytes", &l.buffered_bytes),
        ("inbox bytes", &l.inbox_bytes),
    ];
    let held: Vec<(&str, &LimitUse)> = uses.into_iter().filter(|(_, u)| u.held > 0).collect();
    assert_eq!(held, [], "released by the end");
    assert_eq!((picture.sessions.len(), picture.dials.len()), (0, 0));
    assert_eq!(support::slots(pool), 0);
}

// ---- the harness -------------------------------------------------------------------------------

type Step<'a> = BoxFuture<'a, ()>;

/// One future and what surrounds it.
struct Case {
    name: &'static str,
    /// Brings the world to where the future begins. Not cut.
    before: for<'a> fn(&'a mut World) -> Step<'a>,
    /// What is dropped. What it borrows from the world stays.
    future: for<'a> fn(&'a mut World) -> Step<'a>,
    /// What must hold of the world then; the flag says whether the future had ended.
    after: for<'a> fn(&'a mut World, bool) -> Step<'a>,
    /// At least so many steps are in it, or the case does not show what it says.
    steps: usize,
}

/// Drops the case's future after 0, 1, 2, … steps, each time in a world of its own, until it ends
/// before it is dropped.
async fn at_every_await(case: &Case) {
    let tasks = alive_tasks();
    let mut steps = 0;
    loop {
        let mut world = World::new();
        soon("before", (case.before)(&mut world)).await;
        let wire = Arc::clone(&world.wire);
        wire.by_byte.store(true, Ordering::Relaxed);
        let done = {
            let mut future = (case.future)(&mut world);
            advance(&mut future, steps, &wire).await
        };
        wire.by_byte.store(false, Ordering::Relaxed);
        soon("after", (case.after)(&mut world, done)).await;
        leaves_nothing(&mut world).await;
        drop(world);
        until(case.name, || alive_tasks() == tasks).await;
        if done {
            break;
        }
        steps += 1;
    }
    println!("{}: {steps} steps", case.name);
    assert!(steps >= case.steps, "{}: {steps} steps are too few", case.name);
}

/// Polls the future once per step, after everything else had its turn. Whether it has ended.
async fn advance(future: &mut Step<'_>, steps: usize, wire: &Wire) -> bool {
    /// So many turns without a byte, and only time can go on.
    const QUIET: u32 = 16;
    let (mut moved, mut quiet) = (0, 0);
    for _ in 0..steps {
        if poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await.is_ready() {
            return true;
        }
        let now = wire.moved.load(Ordering::Relaxed);
        quiet = if now == moved { quiet + 1 } else { 0 };
        moved = now;
        if quiet > QUIET {
            tokio::time::sleep(Duration::from_millis(1)).await;
        } else {
            turn().await;
        }
    }
    false
}

/// Lets every other task that can run be polled once; within a spawned task.
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

/// No wait, entry, lease, byte or permit stays, the world still works, and nothing accepted is lost
/// or comes twice.
async fn leaves_nothing(world: &mut World) {
    world.lease = None;
    world.exclusive = None;
    at_rest(&world.a).await;
    at_rest(&world.b).await;
    let leases = |pool: &Pool| pool.snapshot().sessions.iter().map(|s| s.leases).sum::<u32>();
    until("all leases are back", || leases(&world.a) + leases(&world.b) == 0).await;

    let came = world.works().await;
    if !(world.cut && came.is_empty()) {
        assert_eq!(came, world.accepted, "what was accepted has arrived once, and nothing else");
    }
    assert_eq!(world.heard, world.to_a, "the same the other way");
    at_rest(&world.a).await;
    at_rest(&world.b).await;
    for pool in [&world.a, &world.b] {
        let picture = pool.snapshot();
        assert_eq!(picture.sessions.len(), 1);
        assert_eq!(picture.sessions[0].leases, 0);
        until("the bytes are back", || {
            let now = pool.snapshot();
            let held = [&now.limits.buffered_bytes, &now.limits.inbox_bytes].map(|use_| use_.held);
            held == [0, 0] && now.sessions[0].queue_bytes == 0
        })
        .await;
    }

    soon("A closes", world.a.close()).await;
    soon("B closes", world.b.close()).await;
    all_released(&world.a, &mut world.a_inbox).await;
    all_released(&world.b, &mut world.b_inbox).await;
    world.wire.pools.lock().unwrap().clear();
}

// ---- the futures -------------------------------------------------------------------------------

fn nothing(_: &mut World) -> Step<'_> {
    Box::pin(async {})
}

fn connected(world: &mut World) -> Step<'_> {
    Box::pin(world.connect())
}

/// Connected, and one message was sent.
fn sent(world: &mut World) -> Step<'_> {
    Box::pin(async {
        world.connect().await;
        let message = world.message();
        world.lease.take().unwrap().send(message.clone()).await.unwrap();
        world.accepted.push(message);
    })
}

/// What goes on beside the future, from its first step on.
fn beside(work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(work);
}

/// Connected as `how` says; B sends three messages.
fn spoken_to<'a>(world: &'a mut World, how: for<'b> fn(&'b mut World) -> Step<'b>) -> Step<'a> {
    Box::pin(async move {
        how(world).await;
        world.to_a = (0..3).map(|_| world.message()).collect();
        let (back, messages) = (world.b.get(&world.a.id()).unwrap(), world.to_a.clone());
        beside(async move {
            for message in messages {
                back.send(message).await.unwrap();
            }
        });
    })
}

/// Connected, and the queue is full until the stream has moved something.
fn full_for_now(world: &mut World) -> Step<'_> {
    Box::pin(async {
        world.connect().await;
        while world.offer().is_ok() {}
        assert!(world.accepted.len() > 1);
    })
}

/// Nobody waits in A at the very moment of the drop: a dial is gone with its caller, unless the peer
/// may have accepted it already.
fn nobody_waits(world: &mut World, _: bool) -> Step<'_> {
    let dials = world.a.snapshot().dials;
    let committed = |phase| matches!(phase, DialPhase::Committed | DialPhase::Superseded);
    assert!(dials.iter().all(|dial| dial.waiters == 0 && committed(dial.phase)), "{dials:?}");
    Box::pin(async {})
}

fn listens(world: &mut World, done: bool) -> Step<'_> {
    Box::pin(async move { assert_eq!(world.a.local_addrs().len(), usize::from(done)) })
}

/// The event that a session opened comes once, to the future or to whoever reads next.
fn opened_once(world: &mut World, _: bool) -> Step<'_> {
    Box::pin(async {
        let opened = |event: &PoolEvent| matches!(event, PoolEvent::Opened { .. });
        until("a session", || world.b.contains(&world.a.id())).await;
        let events = world.events.as_mut().unwrap();
        world.told.extend(std::iter::from_fn(|| events.try_recv()).map(Result::unwrap));
        assert_eq!(world.told.iter().filter(|event| opened(event)).count(), 1);
    })
}

/// Whoever asks next is told, too.
fn told_of_the_end(world: &mut World, _: bool) -> Step<'_> {
    Box::pin(async { _ = soon("the end", world.lease.as_ref().unwrap().closed()).await })
}

/// A pool that drains ends, and its identity may come back.
fn drained(world: &mut World, _: bool) -> Step<'_> {
    Box::pin(async {
        soon("the drain's end", world.a.drain(Duration::from_secs(5))).await;
        world.restart().await;
    })
}

fn closed(world: &mut World, _: bool) -> Step<'_> {
    Box::pin(async {
        world.cut = true;
        world.restart().await;
    })
}

/// A dial that nobody waits for stops at once, however long its peer is silent.
fn stops_at_once(world: &mut World, _: bool) -> Step<'_> {
    Box::pin(async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let picture = world.a.snapshot();
        assert_eq!((picture.dials.len(), picture.limits.dials.held), (0, 0));
        assert_eq!(alive_tasks(), world.tasks);
    })
}

const CASES: &[Case] = &[
    Case {
        name: "Pool::listen",
        before: nothing,
        future: |world| {
            Box::pin(async {
                world.a.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
            })
        },
        after: listens,
        steps: 1,
    },
    Case {
        name: "Pool::get_or_dial",
        before: nothing,
        future: |world| Box::pin(async { drop(world.a.get_or_dial(world.b.id()).await.unwrap()) }),
        after: nobody_waits,
        steps: 200,
    },
    Case {
        name: "Pool::get_or_dial of a silent peer",
        before: |world| Box::pin(async { world.tasks = alive_tasks() }),
        future: |world| {
            Box::pin(async {
                let target = Target::new(identity(SILENT).peer_id());
                let call = world.a.get_or_dial(target.timeout(Duration::from_millis(20))).await;
                assert!(matches!(call, Err(DialError::Deadline)));
            })
        },
        after: stops_at_once,
        steps: 20,
    },
    Case {
        name: "Pool::get_or_dial_with",
        before: nothing,
        future: |world| {
            Box::pin(async {
                let (wire, to) = (Arc::clone(&world.wire), address(world.b.id(), 1));
                let open = move || async move { Network::open(&wire, &to) };
                drop(world.a.get_or_dial_with(world.b.id(), open).await.unwrap());
            })
        },
        after: nobody_waits,
        steps: 200,
    },
    Case {
        name: "Pool::get_exclusive",
        before: nothing,
        future: |world| {
            Box::pin(async { drop(world.a.get_exclusive(world.b.id()).await.unwrap()) })
        },
        after: nobody_waits,
        steps: 200,
    },
    Case {
        name: "Pool::get_exclusive behind a lease",
        before: |world| {
            Box::pin(async {
                world.connect().await;
                assert_eq!(world.offer(), Ok(()));
                let lease = world.lease.take().unwrap();
                beside(async move { lease.flush().await.unwrap() });
            })
        },
        future: |world| {
            Box::pin(async { drop(world.a.get_exclusive(world.b.id()).await.unwrap()) })
        },
        after: nobody_waits,
        steps: 50,
    },
    Case {
        name: "Pool::adopt as initiator",
        before: nothing,
        future: |world| {
            Box::pin(async {
                let (near, far) = ByByte::pair(&world.wire);
                let b = world.b.clone();
                beside(async move { drop(b.adopt(far, Role::Responder).await) });
                let peer = world.b.id();
                drop(world.a.adopt(near, Role::Initiator { peer }).await.unwrap());
            })
        },
        after: nobody_waits,
        steps: 200,
    },
    Case {
        name: "Pool::adopt as responder",
        before: nothing,
        future: |world| {
            Box::pin(async {
                let (near, far) = ByByte::pair(&world.wire);
                let (b, peer) = (world.b.clone(), world.a.id());
                beside(async move { drop(b.adopt(far, Role::Initiator { peer }).await) });
                drop(world.a.adopt(near, Role::Responder).await.unwrap());
            })
        },
        after: nobody_waits,
        steps: 200,
    },
    Case {
        name: "Pool::send",
        before: nothing,
        future: |world| {
            Box::pin(async {
                let message = world.message();
                world.a.send(world.b.id(), message.clone()).await.unwrap();
                world.accepted.push(message);
            })
        },
        after: nobody_waits,
        steps: 200,
    },
    Case {
        name: "Pool::drain",
        before: sent,
        future: |world| {
            Box::pin(async {
                let report = world.a.drain(Duration::from_secs(5)).await;
                assert_eq!(report.messages.delivered, 1);
            })
        },
        after: drained,
        steps: 100,
    },
    Case {
        name: "Pool::drain_peer",
        before: sent,
        future: |world| {
            Box::pin(async {
                let report = world.a.drain_peer(&world.b.id(), Duration::from_secs(5)).await;
                assert_eq!(report.messages.delivered, 1);
            })
        },
        after: nobody_waits,
        steps: 100,
    },
    Case {
        name: "Pool::close",
        before: sent,
        future: |world| Box::pin(world.a.close()),
        after: closed,
        steps: 2,
    },
    Case {
        name: "Lease::send on a full queue",
        before: full_for_now,
        future: |world| {
            Box::pin(async {
                let message = world.message();
                world.lease.as_ref().unwrap().send(message.clone()).await.unwrap();
                world.accepted.push(message);
            })
        },
        after: nobody_waits,
        steps: 2,
    },
    Case {
        name: "Lease::send_with until a deadline",
        before: |world| Box::pin(world.fill()),
        future: |world| {
            Box::pin(async {
                let message = world.message();
                let deadline = Instant::now() + Duration::from_millis(20);
                let options = SendOptions::default().deadline(deadline);
                let sending = world.lease.as_ref().unwrap().send_with(message, options);
                assert_eq!(sending.await.unwrap_err().kind, SendErrorKind::Expired);
            })
        },
        after: nobody_waits,
        steps: 20,
    },
    Case {
        name: "Lease::flush",
        before: full_for_now,
        future: |world| Box::pin(async { world.lease.as_ref().unwrap().flush().await.unwrap() }),
        after: nobody_waits,
        steps: 100,
    },
    Case {
        name: "Lease::ping",
        before: connected,
        future: |world| Box::pin(async { _ = world.lease.as_ref().unwrap().ping().await.unwrap() }),
        after: nobody_waits,
        steps: 50,
    },
    Case {
        name: "Lease::closed",
        before: |world| {
            Box::pin(async {
                world.connect().await;
                let (b, a) = (world.b.clone(), world.a.id());
                beside(async move { assert!(b.disconnect(&a, Disconnect::default())) });
            })
        },
        future: |world| Box::pin(async { _ = world.lease.as_ref().unwrap().closed().await }),
        after: told_of_the_end,
        steps: 50,
    },
    Case {
        name: "ExclusiveLease::recv",
        before: |world| spoken_to(world, |world| Box::pin(world.connect_exclusively())),
        future: |world| {
            Box::pin(async {
                while world.heard.len() < world.to_a.len() {
                    let message = world.exclusive.as_mut().unwrap().recv().await;
                    world.heard.push(message.unwrap());
                }
            })
        },
        after: nobody_waits,
        steps: 100,
    },
    Case {
        name: "Inbox::recv",
        before: |world| spoken_to(world, connected),
        future: |world| {
            Box::pin(async {
                while world.heard.len() < world.to_a.len() {
                    world.heard.push(world.a_inbox.recv().await.unwrap().body);
                }
            })
        },
        after: nobody_waits,
        steps: 100,
    },
    Case {
        name: "Inbox::recv_many",
        before: |world| spoken_to(world, connected),
        future: |world| {
            Box::pin(async {
                while world.heard.len() < world.to_a.len() {
                    let mut some = Vec::new();
                    assert!(world.a_inbox.recv_many(&mut some, 2).await > 0);
                    world.heard.extend(some.into_iter().map(|message: Message| message.body));
                }
            })
        },
        after: nobody_waits,
        steps: 100,
    },
    Case {
        name: "Events::recv",
        before: |world| {
            Box::pin(async {
                world.events = Some(world.b.subscribe());
                let (a, b) = (world.a.clone(), world.b.id());
                beside(async move { drop(a.get_or_dial(b).await.unwrap()) });
            })
        },
        future: |world| {
            Box::pin(async {
                let opened = |event: &PoolEvent| matches!(event, PoolEvent::Opened { .. });
                while !world.told.iter().any(opened) {
                    world.told.push(world.events.as_mut().unwrap().recv().await.unwrap().unwrap());
                }
            })
        },
        after: opened_once,
        steps: 100,
    },
];

/// A test for each line; the list and the tests must agree.
macro_rules! every_await {
    ($($test:ident: $name:literal;)+) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $test() {
                let case = CASES.iter().find(|case| case.name == $name).unwrap();
                tokio::spawn(at_every_await(case)).await.unwrap();
            }
        )+

        #[test]
        fn every_case_has_its_test() {
            let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
            assert_eq!(names, [$($name),+]);
        }
    };
}

every_await! {
    listen: "Pool::listen";
    get_or_dial: "Pool::get_or_dial";
    get_or_dial_of_a_silent_peer: "Pool::get_or_dial of a silent peer";
    get_or_dial_with: "Pool::get_or_dial_with";
    get_exclusive: "Pool::get_exclusive";
    get_exclusive_behind_a_lease: "Pool::get_exclusive behind a lease";
    adopt_as_initiator: "Pool::adopt as initiator";
    adopt_as_responder: "Pool::adopt as responder";
    send: "Pool::send";
    drain: "Pool::drain";
    drain_peer: "Pool::drain_peer";
    close: "Pool::close";
    send_on_a_full_queue: "Lease::send on a full queue";
    send_until_a_deadline: "Lease::send_with until a deadline";
    flush: "Lease::flush";
    ping: "Lease::ping";
    lease_closed: "Lease::closed";
    recv_exclusively: "ExclusiveLease::recv";
    recv: "Inbox::recv";
    recv_many: "Inbox::recv_many";
    recv_an_event: "Events::recv";
}
