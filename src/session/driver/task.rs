//! The driver: the one future that owns a session's socket and keys.
//!
//! Owns the stream, the protocol state, and every buffer of the session. It is what makes a send safe
//! to cancel: once sealed, a frame is written whole or the session dies. Each poll looks at, in this
//! order, orders from other tasks, what can be read, what can be written, and what is due; it does a
//! bounded amount of each. It must end its session exactly once, however it goes: by its own
//! decision, by a panic, or dropped with its runtime.

mod drain;
mod input;
mod read;
mod timers;
mod write;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use crate::base::error::{CloseReason, PingError, SendErrorKind};
use crate::base::io::{BoxFuture, BoxedStream};
use crate::base::metrics::SessionReport;
use crate::base::sync::lock;
use crate::base::timer::Timer;
use crate::proto::native::connection::SessionCore;
use crate::proto::native::record::Verdict;

use super::control::{CAPACITY, COMMAND, LEASES, PROBE};
use super::inbox::Priority;
use super::line::SendBuffer;
use super::parcels::ReceiveQueue;
use super::queue::Reserved;
use super::{Host, Session};
use input::Input;

/// See the module.
pub(crate) struct Driver {
    session: Arc<Session>,
    host: Arc<dyn Host>,
    stream: BoxedStream,
    core: SessionCore,
    span: Span,
    /// One for all deadlines: the handshake's, or made at the first poll.
    timer: Timer,

    /// Received bytes that are not opened: the beginning of a frame, or while paused some frames.
    input: Input,
    /// Messages that found no room.
    pending: ReceiveQueue,
    /// Since when the socket is not read for lack of room, and when the next keep-alive is due.
    paused: Option<Paused>,
    /// There may be whole frames in `input`.
    unopened: bool,
    /// What the peer said among its messages, until they are handed over.
    pong: Option<Duration>,
    kept_alive: bool,
    peer_drained: bool,
    end_of_stream: bool,
    /// The confirmation in the peer's goodbye.
    delivered: Option<u64>,

    /// Accepted messages that were taken out of the queue.
    taken: SendBuffer,
    /// What the last message taken had cost, while it is not sealed whole.
    current: Option<Reserved>,
    /// Messages given to the core since the session began.
    begun: u64,
    out: Vec<u8>,
    written: usize,
    /// What becomes free and done when `out` is written.
    batch: Batch,
    unflushed: bool,
    /// Since when a write makes no progress.
    blocked_since: Option<Instant>,
    half_closed: bool,

    last_heard: Instant,
    /// When the peer last said that it is alive but does not read.
    keep_alive_heard: Option<Instant>,
    pings: u64,
    probe: Option<Probe>,
    retire_deadline: Option<Instant>,
    drain: Option<Drain>,

    polling: bool,
    finished: bool,
}

#[derive(Clone, Copy, Debug)]
struct Paused {
    keep_alive_at: Instant,
}

/// What a batch that is being written will have done.
#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    reserved: Reserved,
    messages: u64,
    expired: u64,
}

/// A probe under way.
enum Probe {
    /// The ping is out.
    Ping { since: Instant },
    /// The peer has answered; the application's own check runs.
    Check { check: BoxFuture<'static, bool>, rtt: Duration },
}

#[derive(Clone, Copy, Debug)]
struct Drain {
    deadline: Instant,
    /// Ours; none when the peer began.
    why: Option<CloseReason>,
    /// What the peer's goodbye said.
    peers_reason: Option<crate::base::error::GoodbyeReason>,
}

/// ReceiveQueue for which an idle session keeps memory (640 B).
const LARGE_IDLE: usize = 16;

/// Rounds of reading and writing in one poll, before other tasks have their turn.
const ROUNDS: usize = 4;

impl Driver {
    pub(super) fn new(
        session: Arc<Session>,
        stream: BoxedStream,
        mut core: SessionCore,
        leftover: Vec<u8>,
        host: Arc<dyn Host>,
        first: Option<Verdict>,
    ) -> Self {
        let span = tracing::info_span!(
            "session", peer = %session.peer().short(), session = %session.id(),
            origin = ?session.origin()
        );
        if let Some(verdict) = first {
            core.verdict(verdict);
        }
        Self {
            host,
            stream,
            core,
            span,
            timer: Timer::default(),
            input: Input::Held(leftover),
            pending: ReceiveQueue::default(),
            paused: None,
            unopened: true,
            pong: None,
            kept_alive: false,
            peer_drained: false,
            end_of_stream: false,
            delivered: None,
            taken: SendBuffer::default(),
            current: None,
            begun: 0,
            out: Vec::new(),
            written: 0,
            batch: Batch::default(),
            unflushed: false,
            blocked_since: None,
            half_closed: false,
            last_heard: Instant::now(),
            keep_alive_heard: None,
            pings: 0,
            probe: None,
            retire_deadline: None,
            drain: None,
            polling: false,
            finished: false,
            session,
        }
    }

    /// The session's span, in which its events are.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// One turn of everything. `Err` says why the session ends.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        let flags = self.session.control.take(cx.waker());
        let now = Instant::now();
        if flags != 0 {
            self.control(flags, now)?;
        }
        let mut more = true;
        for _ in 0..ROUNDS {
            let read = self.read_once(cx, now)?;
            self.say_goodbye_when_due();
            let wrote = self.write_once(cx, now)?;
            self.end_when_parted()?;
            // Nothing is left to do but wait: for the socket, for room, or for a message.
            more = read || wrote || (self.wants_messages() && !self.session.queue.sleep());
            if !more {
                break;
            }
        }
        self.input.rest(&self.session.shared.stock);
        self.poll_check(cx)?;
        self.poll_timers(cx, now)?;
        if more {
            cx.waker().wake_by_ref();
        } else {
            self.give_up_memory();
        }
        Ok(())
    }

    /// Looks at what other tasks have ordered.
    fn control(&mut self, flags: u32, now: Instant) -> Result<(), CloseReason> {
        if flags & CAPACITY != 0 {
            self.resume(now);
        }
        if flags & (COMMAND | LEASES) != 0 {
            let commands = *lock(&self.session.commands);
            if let Some(why) = commands.close {
                return Err(why);
            }
            if let Some(why) = commands.drain {
                self.begin_drain(Some(why), now);
            } else if let Some(why) = commands.retire {
                // Whoever drains the pool has a deadline of its own, and orders the rest then.
                if why != CloseReason::Drained {
                    let timeout = self.session.shared.settings.retire_timeout;
                    self.retire_deadline.get_or_insert(now + timeout);
                }
                if self.session.cores.live() == 0 {
                    self.begin_drain(Some(why), now);
                }
            }
        }
        if flags & PROBE != 0 {
            self.begin_probe(now);
        }
        Ok(())
    }

    /// Tells the pool to stop handing the session out, and then stops it here.
    fn retire(&mut self, why: CloseReason) {
        self.host.retired(&self.session, why);
        self.session.retire(why);
    }

    fn begin_probe(&mut self, now: Instant) {
        if self.probe.is_some() {
            return;
        }
        if !self.core.is_open() {
            let why = self.session.retired().unwrap_or(CloseReason::PoolClosed);
            self.session.probes.resolve(Err(PingError::Closed(why)));
            return;
        }
        self.ping(now);
        self.probe = Some(Probe::Ping { since: now });
    }

    fn ping(&mut self, now: Instant) {
        self.pings += 1;
        self.core.ping(self.pings, now.into_std());
    }

    /// The peer has answered, or is alive beyond doubt.
    fn probe_answered(&mut self, rtt: Duration) {
        let Some(Probe::Ping { .. }) = self.probe else {
            return;
        };
        self.probe = match Arc::clone(&self.host).health_check(&self.session) {
            Some(check) => Some(Probe::Check { check, rtt }),
            None => {
                self.session.probes.resolve(Ok(rtt));
                None
            }
        };
    }

    fn poll_check(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        let Some(Probe::Check { check, rtt }) = &mut self.probe else {
            return Ok(());
        };
        let Poll::Ready(healthy) = check.as_mut().poll(cx) else {
            return Ok(());
        };
        let outcome = if healthy { Ok(*rtt) } else { Err(CloseReason::Unhealthy) };
        self.probe = None;
        match outcome {
            Ok(rtt) => {
                self.session.probes.resolve(Ok(rtt));
                Ok(())
            }
            Err(why) => Err(self.probe_failed(why, PingError::Closed(why))),
        }
    }

    /// A failed probe ends the session; the pool is told first, so that the next call dials.
    fn probe_failed(&mut self, why: CloseReason, error: PingError) -> CloseReason {
        self.host.retired(&self.session, why);
        self.session.queue.refuse(SendErrorKind::Closed(why));
        self.session.probes.resolve(Err(error));
        why
    }

    /// An idle session keeps no memory that only traffic needs.
    fn give_up_memory(&mut self) {
        self.taken.give_up_memory();
        self.pending.slim(LARGE_IDLE);
    }

    /// Ends the session: exactly once, and last of all.
    fn end(&mut self, reason: CloseReason) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let session = Arc::clone(&self.session);
        if reason != CloseReason::Internal {
            self.deliver_rest();
        }
        session.shared.inbox.note_discarded(self.pending.load().messages);
        self.pending.clear();

        // Nothing is accepted from here on, so the report is final.
        session.queue.refuse(SendErrorKind::Closed(reason));
        let accepted = session.queue.held().accepted;
        self.taken.clear();
        session.shared.note_buffered();
        session.queue.clear(&session.shared.budget);
        let expired = session.metrics.expired() + self.batch.expired;
        let delivered = self.delivered.unwrap_or(0);
        let report = SessionReport {
            accepted,
            delivered,
            unknown: accepted.saturating_sub(expired).saturating_sub(delivered),
            expired,
            received: self.core.received(),
        };
        lock(&session.commands).retire.get_or_insert(reason);
        // First the fact, then the pool's map, and only then those who wait and will look there.
        let _ = session.report.set(Box::new(report));
        let _ = session.ended.set(reason);
        session.mark(super::RETIRED);
        let host = &self.host;
        if catch_unwind(AssertUnwindSafe(|| host.ended(&session, reason, report))).is_err() {
            tracing::error!("the pool panicked while it was told of a session's end");
        }
        session.mark(super::CLOSED);
        session.shared.inbox.leave(&session.window);
        session.holder.end();
        session.probes.end(reason);
        session.stop_handing_out(super::RETIRED);
        session.flushed.notify_waiters();
    }

    /// Hands over what has come in, as far as the second bound allows.
    fn deliver_rest(&mut self) {
        loop {
            self.session.deliver(&mut self.pending, Priority::Ending);
            if !self.pending.is_empty() || !self.next_messages() {
                return;
            }
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let span = this.span.clone();
        let _entered = span.enter();
        // Left standing by a panic, and then seen by `drop`.
        this.polling = true;
        let turn = this.turn(cx);
        this.polling = false;
        match turn {
            Ok(()) => Poll::Pending,
            Err(reason) => {
                this.end(reason);
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let span = self.span.clone();
        let _entered = span.enter();
        self.end(if self.polling { CloseReason::Internal } else { CloseReason::PoolClosed });
    }
}
