//! One established session: its leases, its queues, and the driver that owns socket and keys.
//!
//! Owns everything between a caller's `send` and the bytes on the stream, and back to the inbox.
//! It must never decide which session a peer has: the pool does, and is told through [`Host`].

mod control;
mod cores;
mod driver;
mod exclusive;
mod inbox;
mod lease;
mod line;
mod metrics;
mod parcels;
mod probe;
mod queue;
mod shared;
mod slab;
mod stock;
#[cfg(test)]
#[path = "../verify/session/mod.rs"]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::base::address::Address;
use crate::base::error::{CloseReason, PingError, SendErrorKind, SessionClosed};
use crate::base::id::{Origin, PeerId, SessionId};
use crate::base::io::{BoxFuture, BoxedStream};
use crate::base::metrics::{SessionReport, SessionSnapshot, SessionState};
use crate::base::sync::{AtomicU32, Mutex, lock};
use crate::proto::native::connection::SessionCore;
use crate::proto::native::record::Verdict;

use control::{COMMAND, DriverSignal, LEASES, PROBE};
use cores::LeaseTable;
use exclusive::ExclusiveReceiver;
use inbox::ReceiveWindow;
use metrics::SessionMetrics;
use probe::Probes;
use queue::Queue;

pub use exclusive::ExclusiveLease;
pub use inbox::{Inbox, Message};
pub use lease::{Lease, SendOptions};

pub(crate) use cores::UncountedRef;
pub(crate) use driver::Driver;
pub(crate) use lease::{LeaseCore, LeaseHandle, LeaseWaiter};
pub(crate) use shared::Shared;

/// What a session tells the pool. Called by the session's driver, outside every lock.
pub(crate) trait Host: Send + Sync + 'static {
    /// The session is not to be handed out any more: its age is reached, the peer drains it, or a
    /// probe failed. Called before the session refuses anything. Idempotent.
    fn retired(&self, session: &Arc<Session>, why: CloseReason);

    /// The session has ended. Called exactly once per driver, last of all, after its last message has
    /// reached the inbox and before those who wait for its end are woken.
    fn ended(&self, session: &Arc<Session>, reason: CloseReason, report: SessionReport);

    /// The application's own health check, if it has one; run after a probe's pong. The host bounds
    /// its time.
    fn health_check(self: Arc<Self>, session: &Arc<Session>) -> Option<BoxFuture<'static, bool>>;
}

/// What is settled about a session when it begins.
#[derive(Clone, Debug)]
pub(crate) struct SessionSpec {
    pub(crate) id: SessionId,
    pub(crate) peer: PeerId,
    pub(crate) origin: Origin,
    pub(crate) remote: Option<Address>,
    pub(crate) handshake_hash: [u8; 32],
    pub(crate) handshake_time: Duration,
    /// The least of both sides' `max_message_size`.
    pub(crate) max_message: usize,
    /// The peer's application payload.
    pub(crate) peer_payload: Bytes,
    /// `max_age` with jitter, decided by the pool.
    pub(crate) expires_at: Option<Instant>,
    /// How the peer sees our address; empty if it did not say.
    pub(crate) observed: Box<str>,
}

/// What a checkout has to know of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    /// Hand it out.
    Ready,
    /// Nothing was heard for `ping_after`: probe it first.
    NeedsProbe,
    /// It is not to be handed out any more.
    Retired,
}

impl Availability {
    #[inline]
    fn of(marks: u32) -> Self {
        match marks {
            0 => Self::Ready,
            NEEDS_PROBE => Self::NeedsProbe,
            _ => Self::Retired,
        }
    }
}

/// Nothing was heard for `ping_after`.
const NEEDS_PROBE: u32 = 1;
/// It is not handed out any more.
const RETIRED: u32 = 1 << 1;
/// It drains.
const DRAINING: u32 = 1 << 2;
/// It has ended, and the pool knows.
const CLOSED: u32 = 1 << 3;

/// What other tasks have ordered; the first of each kind stands.
#[derive(Clone, Copy, Debug, Default)]
struct Commands {
    retire: Option<CloseReason>,
    drain: Option<CloseReason>,
    close: Option<CloseReason>,
}

/// One session, as its leases and the pool see it. The driver is a future apart.
#[derive(Debug)]
pub(crate) struct Session {
    /// What its cores are told too.
    marks: AtomicU32,
    /// When a lease was last checked out or returned, by the coarse clock: as far as it was of cores
    /// that have gone.
    lease_mark: AtomicU64,
    shared: Arc<Shared>,
    spec: SessionSpec,
    born: Instant,
    queue: Queue,
    control: Arc<DriverSignal>,
    window: Arc<ReceiveWindow>,
    holder: ExclusiveReceiver,
    commands: Mutex<Commands>,
    cores: LeaseTable,
    metrics: SessionMetrics,
    probes: Probes,
    /// Told when a lease core has gone, and at retirement and end.
    changed: Notify,
    /// Told when `SessionMetrics::done` has grown, and at the end.
    flushed: Notify,
    ended: OnceLock<CloseReason>,
    /// Set before `ended`.
    report: OnceLock<Box<SessionReport>>,
}

impl Session {
    /// A session without a driver yet.
    pub(crate) fn new(spec: SessionSpec, shared: &Arc<Shared>) -> Arc<Self> {
        let control = Arc::new(DriverSignal::default());
        let born = Instant::now();
        shared.tick(born);
        Arc::new(Self {
            queue: Queue::new(&shared.settings),
            window: ReceiveWindow::new(spec.peer, spec.id, Arc::clone(&control)),
            holder: ExclusiveReceiver::default(),
            marks: AtomicU32::new(0),
            commands: Mutex::default(),
            cores: LeaseTable::default(),
            lease_mark: AtomicU64::new(shared.millis(born)),
            metrics: SessionMetrics::new(shared.millis(born)),
            probes: Probes::default(),
            changed: Notify::new(),
            flushed: Notify::new(),
            ended: OnceLock::new(),
            report: OnceLock::new(),
            control,
            born,
            spec,
            shared: Arc::clone(shared),
        })
    }

    /// The driver, to be run by a task. `leftover` are bytes that were read past the verdict; `first` is the
    /// responder's verdict, which goes out before anything else. Dropped before it is done, the
    /// driver ends the session with [`CloseReason::PoolClosed`].
    pub(crate) fn drive(
        self: &Arc<Self>,
        stream: BoxedStream,
        core: SessionCore,
        leftover: Vec<u8>,
        host: Arc<dyn Host>,
        first: Option<Verdict>,
    ) -> Driver {
        Driver::new(Arc::clone(self), stream, core, leftover, host, first)
    }

    pub(crate) fn id(&self) -> SessionId {
        self.spec.id
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.spec.peer
    }

    pub(crate) fn origin(&self) -> Origin {
        self.spec.origin
    }

    pub(crate) fn remote(&self) -> Option<&Address> {
        self.spec.remote.as_ref()
    }

    pub(crate) fn observed(&self) -> &str {
        &self.spec.observed
    }

    pub(crate) fn handshake_time(&self) -> Duration {
        self.spec.handshake_time
    }

    pub(crate) fn handshake_hash(&self) -> &[u8; 32] {
        &self.spec.handshake_hash
    }

    pub(crate) fn peer_payload(&self) -> &Bytes {
        &self.spec.peer_payload
    }

    /// One load: whether a checkout may hand it out.
    #[inline]
    pub(crate) fn availability(&self) -> Availability {
        Availability::of(self.marks.load(Ordering::Relaxed))
    }

    /// Stops the session from being handed out. Callers who wait for a turn get an error.
    ///
    /// For age, idleness, eviction and a draining pool, leases in hand send on, and the session drains
    /// when the last has returned, at the latest after `retire_timeout`. For any other reason sends
    /// are refused from now on, and it drains at once.
    pub(crate) fn retire(&self, why: CloseReason) {
        if !lets_leases_finish(why) {
            return self.drain_now(why);
        }
        lock(&self.commands).retire.get_or_insert(why);
        self.stop_handing_out(RETIRED);
        self.control.set(COMMAND);
    }

    /// Drains the session at once, leases or not: sends are refused from now on.
    pub(crate) fn drain_now(&self, why: CloseReason) {
        let why = {
            let mut commands = lock(&self.commands);
            commands.retire.get_or_insert(why);
            *commands.drain.get_or_insert(why)
        };
        self.queue.refuse(SendErrorKind::Retired(why));
        self.stop_handing_out(RETIRED | DRAINING);
        self.control.set(COMMAND);
    }

    /// Ends the session now. What is queued is lost, and the report says so.
    pub(crate) fn close(&self, why: CloseReason) {
        let why = {
            let mut commands = lock(&self.commands);
            commands.retire.get_or_insert(why);
            *commands.close.get_or_insert(why)
        };
        self.queue.refuse(SendErrorKind::Closed(why));
        self.stop_handing_out(RETIRED);
        self.control.set(COMMAND);
    }

    /// Asks for a probe without waiting for its outcome.
    pub(crate) fn request_probe(&self) {
        if self.ended.get().is_none() && self.probes.ask().is_some_and(|ask| ask.first) {
            self.control.set(PROBE);
        }
    }

    /// Asks the peer for a sign of life, once for all who ask at the same time, and then the
    /// application's own health check. The round-trip time, or at least the time that has passed when
    /// the peer is known to be alive but its application (or ours) does not read.
    ///
    /// Cancel safe: the driver owns the probe.
    ///
    /// # Errors
    ///
    /// [`PingError`]; the session is then being closed.
    pub(crate) async fn probe(&self) -> Result<Duration, PingError> {
        let Some(ask) = self.probes.ask() else {
            return Err(PingError::Closed(self.closed().await));
        };
        if ask.first {
            self.control.set(PROBE);
        }
        self.probes.answer(ask).await
    }

    /// Waits for the end of the driver. Cancel safe.
    pub(crate) async fn closed(&self) -> CloseReason {
        loop {
            let changed = self.changed.notified();
            if self.marks.load(Ordering::Acquire) & CLOSED != 0
                && let Some(&reason) = self.ended.get()
            {
                return reason;
            }
            changed.await;
        }
    }

    /// Why the session has ended, if it has.
    pub(crate) fn ended(&self) -> Option<CloseReason> {
        self.ended.get().copied()
    }

    /// What became of its messages; nothing yet before it has ended.
    pub(crate) fn report(&self) -> SessionReport {
        self.report.get().map(|report| **report).unwrap_or_default()
    }

    /// Waits until all messages accepted before the call are written and flushed, or expired. Cancel
    /// safe.
    pub(crate) async fn flush(&self) -> Result<(), SessionClosed> {
        let target = self.queue.held().accepted;
        loop {
            let flushed = self.flushed.notified();
            if self.metrics.done() >= target {
                return Ok(());
            }
            if let Some(&reason) = self.ended.get() {
                return Err(SessionClosed(reason));
            }
            flushed.await;
        }
    }

    /// When it was last used: data either way, or a lease checked out or returned. A lease's mark is
    /// as precise as the coarse clock ([`Shared::tick`]).
    pub(crate) fn last_used(&self) -> Instant {
        // In this order: the mark of a core that goes meanwhile has been noted then.
        let leased = self.cores.last_use().unwrap_or(0);
        let leased = leased.max(self.lease_mark.load(Ordering::Relaxed));
        self.shared.instant(leased.max(self.metrics.last_data()))
    }

    /// Whether messages wait to get out of the session: to the peer, or to an application that takes
    /// no more for now. It is in use then, however long they do not read. What has reached the inbox
    /// outlives the session.
    pub(crate) fn has_backlog(&self) -> bool {
        self.queue.held().bytes > 0 || self.window.is_shut() || self.holder.is_full()
    }

    /// Leases out, for a picture. A handle may be on its way to a caller who will have to wait for a
    /// lease: where leases are limited, their permits tell.
    fn leases_held(&self) -> u32 {
        let Some(max) = self.shared.settings.max_leases else { return self.leases_out() };
        let given = |permits: &Arc<Semaphore>| {
            max.get().saturating_sub(u32::try_from(permits.available_permits()).unwrap_or(0))
        };
        self.cores.permits().map_or(0, |permits| given(&permits)).min(self.leases_out())
    }

    /// Leases out, and handles that may become leases, as of some moment during the call.
    pub(crate) fn leases_out(&self) -> u32 {
        u32::try_from(self.cores.leases()).unwrap_or(u32::MAX)
    }

    /// A picture of the session.
    pub(crate) fn snapshot(&self, now: Instant) -> SessionSnapshot {
        let held = self.queue.held();
        let numbers = self.metrics.read(self.shared.millis(now));
        let marks = self.marks.load(Ordering::Relaxed);
        SessionSnapshot {
            peer: self.spec.peer,
            session: self.spec.id,
            origin: self.spec.origin,
            remote: self.spec.remote.clone(),
            state: if marks & DRAINING != 0 {
                SessionState::Draining
            } else if marks & RETIRED != 0 {
                SessionState::Retired
            } else {
                SessionState::Ready
            },
            age: now.saturating_duration_since(self.born),
            idle: now.saturating_duration_since(self.last_used()),
            leases: self.leases_held(),
            bytes_in: numbers.bytes_in,
            bytes_out: numbers.bytes_out,
            messages_in: numbers.messages_in,
            messages_out: numbers.messages_out,
            rate_in: numbers.rate_in,
            rate_out: numbers.rate_out,
            queue_messages: held.accepted.saturating_sub(self.metrics.done()),
            queue_bytes: held.bytes as u64,
            undelivered_bytes: (self.window.undelivered() + self.holder.undelivered()) as u64,
            expired: numbers.expired,
            rtt: numbers.rtt,
            last_ping: numbers.last_ping,
            rekeys: numbers.rekeys,
            handshake_time: self.spec.handshake_time,
        }
    }

    /// Why it is retired, or has ended.
    pub(crate) fn retired(&self) -> Option<CloseReason> {
        if self.marks.load(Ordering::Acquire) & RETIRED == 0 {
            return None;
        }
        self.ended().or_else(|| lock(&self.commands).retire)
    }

    /// Marks the session, and what its leases see of it.
    fn mark(&self, marks: u32) {
        self.marks.fetch_or(marks, Ordering::AcqRel);
        self.cores.mark(marks);
    }

    /// Takes marks back.
    fn unmark(&self, marks: u32) {
        self.marks.fetch_and(!marks, Ordering::AcqRel);
        self.cores.unmark(marks);
    }

    fn stop_handing_out(&self, marks: u32) {
        self.mark(marks);
        // After the mark: a core that is made from now on sees it and closes its own permits.
        self.cores.close_permits();
        self.changed.notify_waiters();
    }

    fn add_core(&self, core: &LeaseHandle, permits: Option<Arc<Semaphore>>) {
        self.cores.add(core, permits.clone(), || self.marks.load(Ordering::Acquire));
        if self.marks.load(Ordering::Acquire) & RETIRED != 0
            && let Some(permits) = permits
        {
            permits.close();
        }
    }

    fn core_gone(&self, last_use: u64) {
        self.lease_mark.fetch_max(last_use, Ordering::Relaxed);
        self.cores.gone();
        self.changed.notify_waiters();
        if self.marks.load(Ordering::Acquire) & RETIRED != 0 {
            self.control.set(LEASES);
        }
    }
}

/// Whether leases in hand may go on sending on a session that is retired for this reason.
fn lets_leases_finish(why: CloseReason) -> bool {
    matches!(
        why,
        CloseReason::Age | CloseReason::Idle | CloseReason::Evicted | CloseReason::Drained
    )
}
