//! The driver itself: the one future that owns a session's socket and keys.
//!
//! Owns the stream, the connection, and every buffer of the session. It is what makes a send safe to
//! cancel: once sealed, a frame is written whole or the session dies. Each poll looks at, in this order,
//! commands from other tasks, what can be read, what can be written, and what is due; it does a bounded
//! amount of each. It must end its session exactly once, however it goes: by its own decision, by a
//! panic, or dropped with its runtime.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use crate::base::error::{CloseReason, GoodbyeReason, PingError, SendErrorKind};
use crate::base::io::{BoxFuture, BoxedStream};
use crate::base::timer::Timer;
use crate::proto::liveness::Liveness;
use crate::proto::wire::any::AnyConnection;
use crate::proto::wire::connection::Connection;
use crate::session::host::Host;
use crate::session::life::Command;
use crate::session::receive::queue::ReceiveQueue;
use crate::session::send::buffer::{QueuedMessages, Terms};
use crate::session::send::quota::Reserved;
use crate::session::signal::{CAPACITY, COMMAND, LEASES, PROBE, SUCCESSOR, SUSPENDED};
use crate::session::state::Session;

use super::input::Input;
use super::outgoing::Outgoing;
use super::pace::Pace;

/// See the module.
pub(crate) struct Driver {
    pub(super) session: Arc<Session>,
    pub(super) host: Arc<dyn Host>,
    pub(super) stream: BoxedStream,
    pub(super) connection: AnyConnection,
    span: Span,
    /// One for all deadlines: the handshake's, or made at the first poll.
    pub(super) timer: Timer,
    pub(super) liveness: Liveness,
    pub(super) reading: Reading,
    pub(super) writing: Writing,
    pub(super) drain: Drain,
    pub(super) peer: Peer,
    /// Number of the last ping.
    pings: u64,
    /// The application's own check of a peer that has answered a probe.
    pub(super) check: Option<Check>,
    run: Run,
}

/// What has come, as far as it is not delivered.
pub(super) struct Reading {
    /// Received bytes that are not opened: the beginning of a frame, or while paused some frames.
    pub(super) input: Input,
    /// There may be whole frames in `input`, or messages in the connection.
    pub(super) unopened: bool,
    /// Messages that found no room.
    pub(super) pending: ReceiveQueue,
    /// The peer has answered our ping: to be looked at when the messages before it are delivered.
    pub(super) pong: Option<Duration>,
    /// The peer has said that it is alive: likewise.
    pub(super) keep_alive: bool,
    pub(super) end_of_stream: bool,
}

/// What is on its way out.
pub(super) struct Writing {
    /// Accepted messages that were taken out of the queue.
    pub(super) taken: QueuedMessages,
    /// The last message taken, while it is not sealed whole: the connection has its bytes.
    pub(super) current: Option<Terms>,
    /// Messages given to the connection since the session began.
    pub(super) begun: u64,
    pub(super) out: Outgoing,
    /// What becomes free and done when `out` is written.
    pub(super) batch: Batch,
    pub(super) unflushed: bool,
    /// We write no more.
    pub(super) half_closed: bool,
    pub(super) ping: PingOut,
    pub(super) pace: Pace,
}

/// How far our last ping has come on its way out. Queued → Sealed → Left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PingOut {
    Queued,
    Sealed,
    /// The socket has taken it.
    Left(Instant),
}

/// What a batch that is being written will have done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Batch {
    pub(super) messages: u64,
    pub(super) expired: u64,
    /// What the expired ones had cost.
    pub(super) expired_cost: Reserved,
}

/// Our direction. It is left for good: Open → Begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    /// Messages are accepted.
    Open,
    /// No more are; what was accepted goes out, and then our goodbye. The reason is ours, or none when
    /// the peer began.
    Begun(Option<CloseReason>),
}

/// The peer's direction, as far as its messages were taken from the connection. Open → Drained → Gone;
/// on a wire without a drain Open → Gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// It may send messages.
    Open,
    /// It sends no more messages.
    Drained,
    /// It has said goodbye.
    Gone {
        why: GoodbyeReason,
        /// How many of our messages it has confirmed.
        delivered: u64,
    },
}

/// A health check under way, and the round-trip time that it is about.
pub(super) struct Check {
    future: BoxFuture<'static, bool>,
    rtt: Duration,
}

/// Where the future stands. Between → Polling → Between, until Ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    Between,
    /// Left standing by a panic, and then seen by `drop`.
    Polling,
    Ended,
}

/// Batches for which an idle session keeps memory (640 B).
const LARGE_IDLE: usize = 16;

/// Rounds of reading and writing in one poll, before other tasks have their turn.
const ROUNDS: usize = 4;

impl Driver {
    /// A driver, to be run by a task. `leftover` are bytes that were read past the handshake. Dropped
    /// before it is done, it ends the session with [`CloseReason::PoolClosed`].
    pub(crate) fn new(
        session: Arc<Session>,
        stream: BoxedStream,
        connection: AnyConnection,
        leftover: Vec<u8>,
        host: Arc<dyn Host>,
    ) -> Self {
        let span = tracing::info_span!(
            "session", peer = %session.peer().short(), session = %session.id(),
            origin = ?session.origin()
        );
        let expires_at = session.spec.expires_at.map(Instant::into_std);
        Self {
            host,
            stream,
            connection,
            span,
            timer: Timer::default(),
            liveness: Liveness::new(Instant::now().into_std(), expires_at),
            reading: Reading {
                input: Input::Held(leftover),
                unopened: true,
                pending: ReceiveQueue::default(),
                pong: None,
                keep_alive: false,
                end_of_stream: false,
            },
            writing: Writing {
                taken: QueuedMessages::default(),
                current: None,
                begun: session.spec.first_messages,
                out: Outgoing::default(),
                batch: Batch::default(),
                unflushed: false,
                half_closed: false,
                ping: PingOut::Queued,
                pace: Pace::default(),
            },
            drain: Drain::Open,
            peer: Peer::Open,
            pings: 0,
            check: None,
            run: Run::Between,
            session,
        }
    }

    /// The session's span, in which its events are.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Does some of everything that there is to do. `Err` says why the session ends.
    fn poll_once(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        let flags = self.session.signal.take(cx.waker());
        let now = Instant::now();
        if flags != 0 {
            self.handle_signals(flags, now)?;
        }
        let mut more = true;
        for _ in 0..ROUNDS {
            let read = self.read_once(cx, now)?;
            self.say_goodbye_when_due();
            let wrote = self.write_once(cx, now)?;
            self.finish_if_closed()?;
            // Nothing is left to do but wait: for the socket, for room, or for a message.
            more = read || wrote || (self.wants_messages() && !self.session.queue.sleep());
            if !more {
                break;
            }
        }
        self.reading.input.shrink(&self.session.context.buffers);
        self.poll_check(cx)?;
        self.poll_deadlines(cx, now)?;
        if more {
            cx.waker().wake_by_ref();
        } else {
            self.shrink();
        }
        Ok(())
    }

    /// Does what other tasks have asked for.
    fn handle_signals(&mut self, flags: u32, now: Instant) -> Result<(), CloseReason> {
        if flags & CAPACITY != 0 {
            self.resume(now);
        }
        if flags & (COMMAND | LEASES) != 0 {
            match self.session.life.command() {
                None => {}
                Some(Command::Close(why)) => return Err(why),
                Some(Command::Drain(why)) => self.begin_drain(Some(why), now),
                Some(Command::Retire(why)) => {
                    self.liveness.retired(why, &self.session.context.settings, now.into_std());
                    if self.session.leases.live() == 0 {
                        self.begin_drain(Some(why), now);
                    }
                }
            }
        }
        if flags & SUCCESSOR != 0 {
            self.leave_to_successor(now);
        }
        if flags & SUSPENDED != 0 && self.connection.abilities().probe {
            self.liveness.suspended();
            self.session.mark_needs_probe();
        }
        if flags & PROBE != 0 {
            self.begin_probe(now);
        }
        Ok(())
    }

    /// Tells the pool to stop handing the session out, and then stops it here.
    pub(super) fn retire(&mut self, why: CloseReason) {
        self.host.retired(&self.session, why);
        self.session.retire(why);
    }

    fn begin_probe(&mut self, now: Instant) {
        if self.liveness.is_probing() || self.check.is_some() {
            return;
        }
        if !self.connection.abilities().probe {
            self.session.probes.resolve(Err(PingError::Unsupported));
        } else if !self.connection.is_open() {
            let why = self.session.retired().unwrap_or(CloseReason::PoolClosed);
            self.session.probes.resolve(Err(PingError::Closed(why)));
        } else {
            self.ping(now);
            self.liveness.probe_asked(now.into_std());
        }
    }

    pub(super) fn ping(&mut self, now: Instant) {
        if self.connection.open_ping().is_none() {
            self.writing.ping = PingOut::Queued;
        }
        self.pings += 1;
        self.connection.ping(self.pings, now.into_std());
    }

    /// The peer has answered a caller's probe, or is alive beyond doubt.
    pub(super) fn probe_answered(&mut self, rtt: Duration) {
        match Arc::clone(&self.host).health_check(&self.session) {
            Some(future) => self.check = Some(Check { future, rtt }),
            None => self.session.probes.resolve(Ok(rtt)),
        }
    }

    fn poll_check(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        let Some(Check { future, rtt }) = &mut self.check else {
            return Ok(());
        };
        let rtt = *rtt;
        let Poll::Ready(healthy) = future.as_mut().poll(cx) else {
            return Ok(());
        };
        self.check = None;
        if healthy {
            self.session.probes.resolve(Ok(rtt));
            return Ok(());
        }
        let why = CloseReason::Unhealthy;
        Err(self.probe_failed(why, PingError::Closed(why)))
    }

    /// A failed probe ends the session. The pool hears of it first, so that the next call dials.
    pub(super) fn probe_failed(&mut self, why: CloseReason, error: PingError) -> CloseReason {
        self.host.retired(&self.session, why);
        self.session.queue.refuse(SendErrorKind::Closed(why));
        self.session.probes.resolve(Err(error));
        why
    }

    /// An idle session keeps no memory that only traffic needs.
    fn shrink(&mut self) {
        self.writing.taken.shrink();
        self.writing.out.shrink_idle();
        self.reading.pending.shrink(LARGE_IDLE);
    }

    /// Ends the session, unless that was done.
    fn end(&mut self, why: CloseReason) {
        if std::mem::replace(&mut self.run, Run::Ended) != Run::Ended {
            self.end_session(why);
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let span = this.span.clone();
        let _entered = span.enter();
        if this.run == Run::Ended {
            return Poll::Ready(());
        }
        this.run = Run::Polling;
        let polled = this.poll_once(cx);
        this.run = Run::Between;
        match polled {
            Ok(()) => Poll::Pending,
            Err(why) => {
                this.end(why);
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let span = self.span.clone();
        let _entered = span.enter();
        self.end(match self.run {
            Run::Polling => CloseReason::Internal,
            Run::Between | Run::Ended => CloseReason::PoolClosed,
        });
    }
}
