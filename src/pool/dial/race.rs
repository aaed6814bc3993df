//! The race of one dial over its addresses, up to the first valid message 2.
//!
//! Owns the connections under way, and the look-up of addresses. Addresses are started one after
//! another, staggered by `dial_stagger` (RFC 8305, section 5), the next one at once when one fails;
//! addresses that later callers bring join, also while the look-up goes on. All of it runs in the
//! dial's own task, since most dials have one connection and a task for it would cost more than it
//! does; so a race that is not asked for an answer stands still. Dropping the race closes what has
//! not answered: a peer that saw no message 3 has accepted nothing.

use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Instant, sleep_until};

use crate::base::address::Address;
use crate::base::error::{DialError, HandshakeError, Refusal};
use crate::base::id::PeerId;
use crate::base::io::{BoxFuture, BoxedStream, TargetData};
use crate::base::timer::Timer;
use crate::pool::checks::Checks;
use crate::pool::context::Context as PoolContext;
use crate::transport::seam::Transport as _;
use crate::transport::{AnyAnswered, AnyTransport, Connector};

use super::handle::Dial;

/// Opens the stream of a dial: a closure of the application, boxed.
pub(crate) type Opener =
    Box<dyn FnOnce() -> BoxFuture<'static, io::Result<BoxedStream>> + Send + 'static>;

/// What all races of a pool use.
pub(crate) struct RaceParts {
    pub(crate) ctx: Arc<PoolContext>,
    pub(crate) checks: Arc<Checks>,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) transport: AnyTransport,
}

/// A connection on which the peer has answered, and where it leads.
pub(crate) struct AnsweredDial {
    pub(crate) answered: AnyAnswered,
    pub(crate) address: Option<Address>,
    /// The connection's own.
    pub(crate) timer: Timer,
}

/// The connections of one dial that are under way.
pub(crate) struct Race {
    parts: Arc<RaceParts>,
    dial: Arc<Dial>,
    data: Option<TargetData>,
    /// Connections, and perhaps the look-up, in the order in which they began.
    under_way: Vec<Runner>,
    next_start: Instant,
    /// The most telling failure so far.
    failure: Option<DialError>,
}

impl Race {
    pub(crate) fn new(parts: Arc<RaceParts>, dial: Arc<Dial>, data: Option<TargetData>) -> Self {
        Self { parts, dial, data, under_way: Vec::new(), next_start: Instant::now(), failure: None }
    }

    /// Begins with a stream that the caller opens or has brought.
    pub(crate) fn open_with(&mut self, opener: Opener) {
        let (parts, peer) = (self.parts.clone(), self.dial.peer);
        self.next_start = Instant::now() + self.parts.ctx.settings.dial_stagger;
        self.run(async move {
            let mut timer = Timer::default();
            let stream = open(&parts, opener).await?;
            let answered = initiate(&parts, &peer, stream, &mut timer).await?;
            Ok(Some(AnsweredDial { answered, address: None, timer }))
        });
    }

    /// Begins with the addresses that the connector knows; they join those that callers bring.
    pub(crate) fn resolve(&mut self) {
        let (parts, dial, data) = (self.parts.clone(), self.dial.clone(), self.data.clone());
        self.dial.resolves();
        self.run(async move {
            let addresses = resolve(&parts, dial.peer, data.as_ref()).await?;
            dial.add_addresses(&addresses);
            Ok(None)
        });
    }

    /// The next connection on which a valid message 2 arrives.
    ///
    /// # Errors
    /// The most telling failure, when every address has failed.
    ///
    /// # Cancel safety
    /// Safe: connections under way stay under way.
    pub(crate) async fn answer(&mut self) -> Result<AnsweredDial, DialError> {
        loop {
            let due = self.under_way.is_empty() || Instant::now() >= self.next_start;
            if due && let Some(address) = self.dial.next_address() {
                self.start(address);
                continue;
            }
            if self.under_way.is_empty() {
                return Err(self.failure.take().unwrap_or(DialError::NoAddress(self.dial.peer)));
            }
            let more = self.dial.more_addresses();
            let waiting = self.dial.has_address();
            tokio::select! {
                biased;
                ended = poll_fn(|cx| poll_next(&mut self.under_way, cx)) => match ended {
                    Ok(Some(candidate)) => return Ok(candidate),
                    Ok(None) => {}
                    Err(failure) => self.failed(failure),
                },
                () = sleep_until(self.next_start), if waiting => {}
                () = more => {}
            }
        }
    }

    fn run(&mut self, work: impl Future<Output = Ended> + Send + 'static) {
        self.under_way.push(Runner(Some(Box::pin(work))));
    }

    fn start(&mut self, address: Address) {
        self.dial.connects();
        self.next_start = Instant::now() + self.parts.ctx.settings.dial_stagger;
        let (parts, peer, data) = (self.parts.clone(), self.dial.peer, self.data.clone());
        self.run(async move {
            let mut timer = Timer::default();
            let stream = connect(&parts, &address, data.as_ref(), &mut timer).await?;
            let answered = initiate(&parts, &peer, stream, &mut timer).await?;
            Ok(Some(AnsweredDial { answered, address: Some(address), timer }))
        });
    }

    fn failed(&mut self, failure: DialError) {
        self.next_start = Instant::now();
        // A handshake that failed tells more than a connection that did.
        if !matches!(self.failure, Some(DialError::Handshake(_))) {
            self.failure = Some(failure);
        }
    }
}

/// What a runner ends with: a connection with its answer, the look-up without one.
type Ended = Result<Option<AnsweredDial>, DialError>;

/// A connection or a look-up under way. What panics in it, and be it when it is dropped, ends it and
/// nothing else: streams and connectors are the application's.
struct Runner(Option<BoxFuture<'static, Ended>>);

impl Runner {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let Some(work) = &mut self.0 else { return Poll::Ready(Ok(None)) };
        catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)))
            .unwrap_or(Poll::Ready(Err(DialError::Panicked)))
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let work = self.0.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(work)));
    }
}

/// Takes out the first runner that has ended. All are polled at each wake-up: they are few.
fn poll_next(under_way: &mut Vec<Runner>, cx: &mut Context<'_>) -> Poll<Ended> {
    for at in 0..under_way.len() {
        if let Poll::Ready(ended) = under_way[at].poll(cx) {
            drop(under_way.remove(at));
            return Poll::Ready(ended);
        }
    }
    Poll::Pending
}

async fn resolve(
    parts: &RaceParts,
    peer: PeerId,
    data: Option<&TargetData>,
) -> Result<Vec<Address>, DialError> {
    let failed = |source| DialError::Resolve { peer, source: Arc::new(source) };
    let limit = parts.ctx.settings.hook_timeout;
    let look_up = || parts.connector.resolve(&peer, data);
    let resolved = parts.checks.call(&mut Timer::default(), limit, look_up).await;
    match resolved {
        Ok(resolved) => resolved.map_err(failed),
        Err(Refusal::TimedOut) => Err(failed(io::Error::new(
            io::ErrorKind::TimedOut,
            "the connector did not resolve the peer within hook_timeout",
        ))),
        Err(_panicked) => Err(DialError::Panicked),
    }
}

async fn connect(
    parts: &RaceParts,
    address: &Address,
    data: Option<&TargetData>,
    timer: &mut Timer,
) -> Result<BoxedStream, DialError> {
    let failed = |source| DialError::Connect { address: address.clone(), source: Arc::new(source) };
    let limit = parts.ctx.settings.connect_timeout;
    let connect = || parts.connector.connect(address, data);
    let connected = parts.checks.call(timer, limit, connect).await;
    match connected {
        Ok(connected) => connected.map_err(failed),
        Err(Refusal::TimedOut) => Err(failed(timed_out())),
        Err(_panicked) => Err(DialError::Panicked),
    }
}

async fn open(parts: &RaceParts, opener: Opener) -> Result<BoxedStream, DialError> {
    let failed = |source| DialError::Open { source: Arc::new(source) };
    let limit = parts.ctx.settings.connect_timeout;
    match parts.checks.call(&mut Timer::default(), limit, opener).await {
        Ok(opened) => opened.map_err(failed),
        Err(Refusal::TimedOut) => Err(failed(timed_out())),
        Err(_panicked) => Err(DialError::Panicked),
    }
}

async fn initiate(
    parts: &RaceParts,
    peer: &PeerId,
    stream: BoxedStream,
    timer: &mut Timer,
) -> Result<AnyAnswered, DialError> {
    // A peer that is not ours to dial closes at a moment of its own choice, or never.
    timer
        .timeout(parts.ctx.settings.handshake_timeout, pin!(parts.transport.initiate(peer, stream)))
        .await
        .unwrap_or(Err(HandshakeError::NoAnswer))
        .map_err(DialError::Handshake)
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "not connected within connect_timeout")
}
