//! Two sessions joined by an in-memory stream, in paused time.

mod drain;
mod flow;
mod lease;
mod life;
mod plain;
mod succession;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::life::*;
use super::*;
use crate::base::config::{Config, Settings};
use crate::base::error::{CloseReason, PingError, SendErrorKind, SessionClosed};
use crate::base::id::{Origin, PeerId, SessionId};
use crate::base::io::{BoxFuture, BoxedStream};
use crate::base::metrics::SessionReport;
use crate::base::suite::Suite;
use crate::proto::HandshakeRole;
use crate::proto::native::connection::{ABILITIES, NativeConnection};
use crate::proto::wire::any::AnyConnection;
use crate::proto::wire::connection::Connection as _;
use crate::verify::pair::{accept, params, transports};

/// What a host was told, and how it behaves.
#[derive(Default)]
struct FakeHost {
    retired: Mutex<Vec<CloseReason>>,
    ended: Mutex<Vec<(CloseReason, SessionReport)>>,
    /// What sessions have left.
    unsent: Mutex<Vec<Unsent>>,
    /// Who takes it over, if it is not kept here.
    successor: Mutex<Option<Arc<Session>>>,
    panic_when_retired: AtomicBool,
    panic_when_ended: AtomicBool,
    /// What health checks answer; none: no check.
    healthy: Mutex<Option<bool>>,
    checks: AtomicUsize,
    /// What a pool keeps, dropped when the session is retired.
    slot: Mutex<Option<[UncountedRef; 2]>>,
}

fn kept(core: &LeaseHandle) -> [UncountedRef; 2] {
    std::array::from_fn(|_| UncountedRef::of(core))
}

impl Host for FakeHost {
    fn retired(&self, _: &Arc<Session>, why: CloseReason) {
        assert!(!self.panic_when_retired.load(Ordering::Relaxed), "as the test wants it");
        self.retired.lock().unwrap().push(why);
        let slot = self.slot.lock().unwrap().take();
        drop(slot);
    }

    fn ended(&self, session: &Arc<Session>, ended: Ended) {
        assert_eq!(session.ended(), Some(ended.why));
        self.ended.lock().unwrap().push((ended.why, ended.report));
        self.unsent.lock().unwrap().extend(ended.unsent);
        let slot = self.slot.lock().unwrap().take();
        drop(slot);
        assert!(!self.panic_when_ended.load(Ordering::Relaxed), "as the test wants it");
    }

    fn may_redial(&self, session: &Session) -> bool {
        session.remote().is_some()
    }

    fn left(&self, _: &Arc<Session>, unsent: Unsent) {
        let Some(successor) = self.successor.lock().unwrap().clone() else {
            return self.unsent.lock().unwrap().push(unsent);
        };
        let carried = successor.carry_over(unsent).unwrap_or_else(|_| panic!("it takes more"));
        if carried.wake {
            successor.wake();
        }
    }

    fn health_check(self: Arc<Self>, _: &Arc<Session>) -> Option<BoxFuture<'static, bool>> {
        let healthy = (*self.healthy.lock().unwrap())?;
        self.checks.fetch_add(1, Ordering::Relaxed);
        Some(Box::pin(async move { healthy }))
    }
}

/// One end of a session.
struct End {
    session: Arc<Session>,
    host: Arc<FakeHost>,
    inbox: Inbox,
    shared: Arc<SessionContext>,
    driver: JoinHandle<()>,
}

impl End {
    fn lease(&self) -> Lease {
        let slot = self.host.slot.lock().unwrap();
        Lease::try_checkout(&slot.as_ref().unwrap()[0]).unwrap()
    }

    fn core(&self) -> LeaseHandle {
        LeaseHandle::clone(&self.host.slot.lock().unwrap().as_ref().unwrap()[0])
    }

    /// What a pool does: out of the map, then retired.
    fn retire(&self, why: CloseReason) {
        let slot = self.host.slot.lock().unwrap().take();
        drop(slot);
        self.session.retire(why);
    }

    fn outcome(&self) -> (CloseReason, SessionReport) {
        let ended = self.host.ended.lock().unwrap();
        assert_eq!(ended.len(), 1, "a session ends exactly once");
        ended[0]
    }

    async fn end(&self) -> (CloseReason, SessionReport) {
        self.session.closed().await;
        self.outcome()
    }

    /// What is in the inbox now.
    fn received(&mut self) -> Vec<Bytes> {
        std::iter::from_fn(|| self.inbox.try_recv()).map(|message| message.body).collect()
    }

    /// Nothing is paid for any more, once what was left is dropped.
    fn assert_settled(&self) {
        self.host.unsent.lock().unwrap().clear();
        let settings = &self.shared.settings;
        assert_eq!(self.shared.budget.permits.available_permits(), settings.max_buffered_bytes);
        assert_eq!(self.session.queue.level().bytes, 0);
    }
}

fn spec(secret: u8, origin: Origin, settings: &Settings) -> SessionSpec {
    let public = crate::base::key::StaticKey::new([secret; 32]);
    SessionSpec {
        id: SessionId::next(),
        peer: PeerId::from_bytes(*public.public()),
        origin,
        remote: None,
        handshake_hash: [7; 32],
        handshake_time: Duration::from_millis(3),
        first_messages: 0,
        abilities: &ABILITIES,
        max_message: settings.max_message_size,
        peer_payload: Bytes::new(),
        expires_at: None,
        observed: Box::default(),
    }
}

fn settings(config: Config) -> Arc<Settings> {
    Arc::new(config.validate().unwrap())
}

/// Both ends over streams of the test's choice; nothing runs yet but the drivers' tasks.
fn join<A, B>(ours: Arc<Settings>, theirs: Arc<Settings>, a: A, b: B) -> (End, End)
where
    A: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (ours_shared, ours_inbox) = SessionContext::new(ours);
    let (theirs_shared, theirs_inbox) = SessionContext::new(theirs);
    join_shared((ours_shared, ours_inbox), (theirs_shared, theirs_inbox), a, b, |_| {})
}

fn join_shared<A, B>(
    (ours_shared, ours_inbox): (Arc<SessionContext>, Inbox),
    (theirs_shared, theirs_inbox): (Arc<SessionContext>, Inbox),
    a: A,
    b: B,
    change: impl Fn(&mut SessionSpec),
) -> (End, End)
where
    A: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (initiator, responder) = transports(Suite::default());
    let end = |shared: Arc<SessionContext>, inbox, stream: BoxedStream, transport, role| {
        let (secret, origin, first) = match role {
            HandshakeRole::Initiator => (2, Origin::Outbound, None),
            HandshakeRole::Responder => (1, Origin::Inbound, Some(accept())),
        };
        let mut spec = spec(secret, origin, &shared.settings);
        change(&mut spec);
        let session = Session::new(spec, &shared);
        let host = Arc::new(FakeHost::default());
        *host.slot.lock().unwrap() = Some(kept(&LeaseCore::new(Arc::clone(&session), None)));
        let mut params = params(role);
        params.pings_per_second = 1_000;
        let mut connection = NativeConnection::new(transport, params);
        first.into_iter().for_each(|verdict| connection.verdict(verdict));
        let driver = tokio::spawn(driver(&session, stream, connection, &host));
        End { session, host, inbox, shared, driver }
    };
    (
        end(ours_shared, ours_inbox, Box::new(a), initiator, HandshakeRole::Initiator),
        end(theirs_shared, theirs_inbox, Box::new(b), responder, HandshakeRole::Responder),
    )
}

fn driver(
    session: &Arc<Session>,
    stream: BoxedStream,
    connection: impl Into<AnyConnection>,
    host: &Arc<FakeHost>,
) -> Driver {
    let host: Arc<dyn Host> = host.clone();
    Driver::new(Arc::clone(session), stream, connection.into(), Vec::new(), host)
}

/// Two ends over a stream of `buffer` bytes, both with the given configuration, open for messages.
async fn pair(config: Config, buffer: usize) -> (End, End) {
    let (a, b) = tokio::io::duplex(buffer);
    let settings = settings(config);
    let ends = join(Arc::clone(&settings), settings, a, b);
    settle().await;
    ends
}

/// Lets all tasks go as far as they get without time passing.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

fn message(number: u64, size: usize) -> Bytes {
    let mut body = vec![number as u8; size.max(8)];
    body[..8].copy_from_slice(&number.to_be_bytes());
    body.into()
}

fn number(message: &Bytes) -> u64 {
    u64::from_be_bytes(message[..8].try_into().unwrap())
}

/// A stream that stops reading, writing, or both, when told to, and can fail.
struct Gated {
    stream: DuplexStream,
    window: Arc<Gates>,
}

#[derive(Default)]
struct Gates {
    closed_for_reading: AtomicBool,
    closed_for_writing: AtomicBool,
}

impl Gated {
    fn new(stream: DuplexStream) -> (Self, Arc<Gates>) {
        let window = Arc::new(Gates::default());
        (Self { stream, window: Arc::clone(&window) }, window)
    }
}

impl AsyncRead for Gated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.window.closed_for_reading.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.window.closed_for_writing.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Time since `start`, within a poll's grace.
fn passed(start: Instant) -> Duration {
    Instant::now() - start
}
