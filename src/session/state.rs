//! One session, as its leases, its driver and the pool share it.
//!
//! Owns the session's parts and the steps of its life as other tasks take them: each changes the state,
//! then what leases see, and then wakes. The driver is a future apart. It must never block on the
//! socket, and never decide by itself that the session ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::base::address::Address;
use crate::base::error::{CloseReason, PingError, SendErrorKind, SessionClosed};
use crate::base::id::{Origin, PeerId, SessionId};
use crate::base::metrics::{SessionReport, SessionSnapshot};
use crate::base::sync::{Mutex, lock};
use crate::proto::wire::connection::Abilities;

use super::context::Context;
use super::lease::core::{LeaseCore, LeaseHandle, Leased};
use super::lease::table::LeaseTable;
use super::life::{Availability, Life, Marks, NEEDS_PROBE, Stage};
use super::metrics::SessionMetrics;
use super::probe::Probes;
use super::receive::exclusive_receiver::ExclusiveReceiver;
use super::receive::window::ReceiveWindow;
use super::send::queue::Queue;
use super::send::unsent::Unsent;
use super::signal::{COMMAND, DriverSignal, LEASES, PROBE, SUCCESSOR, SUSPENDED};

/// What all sessions of one pool share.
pub(crate) type SessionContext = Context<LeaseCore<Session>>;

/// What is known of a session when it begins.
#[derive(Clone, Debug)]
pub(crate) struct SessionSpec {
    pub(crate) id: SessionId,
    pub(crate) peer: PeerId,
    pub(crate) origin: Origin,
    pub(crate) remote: Option<Address>,
    pub(crate) handshake_hash: [u8; 32],
    pub(crate) handshake_time: Duration,
    /// How many messages of ours travelled with the handshake.
    pub(crate) first_messages: u64,
    /// What its wire can do.
    pub(crate) abilities: &'static Abilities,
    /// The least of both sides' `max_message_size`.
    pub(crate) max_message: usize,
    /// The peer's application payload.
    pub(crate) peer_payload: Bytes,
    /// `max_age` with jitter, decided by the pool.
    pub(crate) expires_at: Option<Instant>,
    /// How the peer sees our address; empty if it did not say.
    pub(crate) observed: Box<str>,
}

/// A session that sends nothing until this is dropped.
#[derive(Debug)]
struct SuccessorHold(Arc<Session>);

impl Drop for SuccessorHold {
    fn drop(&mut self) {
        if self.0.queue.release_hold() {
            self.0.wake();
        }
    }
}

/// What has become of messages that a session has taken over.
#[must_use = "the driver may sleep"]
pub(crate) struct CarriedOver {
    /// How many it sends.
    pub(crate) messages: u64,
    /// The driver has to be woken, by [`Session::wake`].
    pub(crate) wake: bool,
    /// Those that are too long for this session.
    pub(crate) longer: Option<Unsent>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) life: Life,
    /// When a lease was last checked out or returned, by the coarse clock, as far as the cores that
    /// have gone knew.
    lease_mark: AtomicU64,
    pub(super) context: Arc<SessionContext>,
    pub(super) spec: SessionSpec,
    born: Instant,
    pub(super) queue: Queue,
    pub(super) signal: Arc<DriverSignal>,
    pub(super) window: Arc<ReceiveWindow>,
    pub(super) receiver: ExclusiveReceiver,
    pub(super) leases: LeaseTable<Self>,
    pub(super) metrics: SessionMetrics,
    pub(super) probes: Probes,
    /// The session that waits for what this one leaves.
    successor: Mutex<Option<SuccessorHold>>,
    /// Notified when a lease core has gone, and at retirement and end.
    pub(super) changed: Notify,
    /// Notified when `SessionMetrics::done` has grown, and at the end.
    pub(super) flushed: Notify,
}

impl Session {
    /// A session without a driver yet.
    pub(crate) fn new(spec: SessionSpec, context: &Arc<SessionContext>) -> Arc<Self> {
        let signal = Arc::new(DriverSignal::default());
        let born = Instant::now();
        context.tick(born);
        let metrics = SessionMetrics::new(context.millis(born));
        metrics.finished(spec.first_messages, 0);
        Arc::new(Self {
            queue: Queue::new(&context.settings, spec.abilities, spec.first_messages),
            window: ReceiveWindow::new(spec.peer, spec.id, Arc::clone(&signal)),
            receiver: ExclusiveReceiver::default(),
            life: Life::new(),
            leases: LeaseTable::default(),
            lease_mark: AtomicU64::new(context.millis(born)),
            metrics,
            probes: Probes::default(),
            successor: Mutex::new(None),
            changed: Notify::new(),
            flushed: Notify::new(),
            signal,
            born,
            spec,
            context: Arc::clone(context),
        })
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
        self.life.availability()
    }

    /// Stops the session from being handed out. Callers who wait for a lease get an error. From Ready
    /// to Retired, or to Draining.
    ///
    /// For age, idleness, eviction and a draining pool, leases in hand send on, and the session drains
    /// when the last has returned, at the latest after `retire_timeout`. For any other reason sends
    /// are refused from now on, and it drains at once.
    pub(crate) fn retire(&self, why: CloseReason) {
        if !lets_leases_finish(why) {
            return self.drain_now(why);
        }
        self.life.retire(why);
        self.stop_handing_out(Stage::Retired);
        self.signal.set(COMMAND);
    }

    /// Drains the session at once, leases or not: sends are refused from now on. From Ready or Retired
    /// to Draining.
    pub(crate) fn drain_now(&self, why: CloseReason) {
        let why = self.life.drain(why);
        self.queue.refuse(SendErrorKind::Retired(why));
        self.stop_handing_out(Stage::Draining);
        self.signal.set(COMMAND);
    }

    /// A newer session of the peer takes the place of this one, which drains for its sake or will at
    /// once: it leaves what it has not sent to the newer one, which sends nothing before. May be called
    /// under a lock; [`tell_successor`](Self::tell_successor) is to follow.
    pub(crate) fn succeeded_by(&self, successor: &Arc<Self>) {
        let mut waiting = lock(&self.successor);
        // Looked at under the lock, which the driver takes once more when it has ended the session.
        if waiting.is_none() && self.ended().is_none() {
            successor.queue.hold();
            *waiting = Some(SuccessorHold(successor.clone()));
        }
    }

    /// Has the driver leave what it has.
    pub(crate) fn tell_successor(&self) {
        self.signal.set(SUCCESSOR);
    }

    /// Lets the successor send, if there is one that waits for this session.
    pub(super) fn release_successor(&self) {
        let hold = lock(&self.successor).take();
        drop(hold);
    }

    /// Takes over what an earlier session of the peer has left unsent: it goes out before all that waits.
    /// May be called under a lock: the driver is not woken.
    ///
    /// # Errors
    ///
    /// The messages, if this session takes no more.
    pub(crate) fn carry_over(&self, mut unsent: Unsent) -> Result<CarriedOver, Unsent> {
        let longer = unsent.split_longer(self.spec.max_message);
        let messages = unsent.messages();
        match self.queue.carry_over(unsent) {
            Ok(wake) => Ok(CarriedOver { messages, wake, longer }),
            Err(mut unsent) => {
                longer.into_iter().for_each(|longer| unsent.append(longer));
                Err(unsent)
            }
        }
    }

    /// Wakes the driver.
    pub(crate) fn wake(&self) {
        self.signal.wake();
    }

    /// How many messages it has taken over.
    pub(crate) fn carried(&self) -> u64 {
        self.queue.level().carried
    }

    /// Ends the session now. What is queued is left unsent, and the report says so. From any state to Closing;
    /// the driver takes it from there.
    pub(crate) fn close(&self, why: CloseReason) {
        let why = self.life.close(why);
        self.queue.refuse(SendErrorKind::Closed(why));
        self.stop_handing_out(Stage::Retired);
        self.signal.set(COMMAND);
    }

    /// For the driver, before the pool hears of it: the session has ended. From any state to Ended.
    pub(super) fn end(&self, why: CloseReason, report: SessionReport) {
        self.life.end(why, report);
        self.mark(Marks::of(Stage::Retired));
    }

    /// For the driver, after the pool has heard of it: wakes all who wait for the end, and will look
    /// into the pool's map.
    pub(super) fn announce_end(&self, why: CloseReason) {
        self.mark(Marks::of(Stage::Closed));
        drop(self.context.inbox.leave(&self.window));
        self.receiver.end();
        self.probes.end(why);
        self.stop_handing_out(Stage::Retired);
        self.flushed.notify_waiters();
    }

    /// The machine was suspended: the session is to be probed before it is handed out, if it can be.
    pub(crate) fn note_suspended(&self) {
        self.signal.set(SUSPENDED);
    }

    /// Asks for a probe without waiting for its outcome.
    pub(crate) fn request_probe(&self) {
        if self.ended().is_none() && self.probes.ask().is_some_and(|ticket| ticket.first) {
            self.signal.set(PROBE);
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
    /// [`PingError`]; unless the wire has no ping, the session is then being closed.
    pub(crate) async fn probe(&self) -> Result<Duration, PingError> {
        let Some(ticket) = self.probes.ask() else {
            return Err(PingError::Closed(self.closed().await));
        };
        if ticket.first {
            self.signal.set(PROBE);
        }
        self.probes.answer(ticket).await
    }

    /// Waits for the end of the driver. Cancel safe.
    pub(crate) async fn closed(&self) -> CloseReason {
        loop {
            let changed = self.changed.notified();
            if self.life.is(Stage::Closed)
                && let Some(why) = self.ended()
            {
                return why;
            }
            changed.await;
        }
    }

    /// Why the session has ended, if it has.
    pub(crate) fn ended(&self) -> Option<CloseReason> {
        self.life.ended()
    }

    /// What became of its messages; nothing yet before it has ended.
    pub(crate) fn report(&self) -> SessionReport {
        self.life.report().unwrap_or_default()
    }

    /// Waits until all messages accepted before the call are written and flushed, or expired. Cancel
    /// safe.
    pub(crate) async fn flush(&self) -> Result<(), SessionClosed> {
        let target = self.queue.level().accepted;
        loop {
            let flushed = self.flushed.notified();
            if self.metrics.done() >= target {
                return Ok(());
            }
            if let Some(why) = self.ended() {
                return Err(SessionClosed(why));
            }
            flushed.await;
        }
    }

    /// When it was last used: data either way, or a lease checked out or returned. A lease's mark is
    /// as precise as the coarse clock ([`Context::tick`]).
    pub(crate) fn last_used(&self) -> Instant {
        // In this order: the mark of a core that goes meanwhile has been noted then.
        let leased = self.leases.last_use().unwrap_or(0);
        let leased = leased.max(self.lease_mark.load(Ordering::Relaxed));
        self.context.instant(leased.max(self.metrics.last_data()))
    }

    /// Whether messages wait to get out of the session: to the peer, or to an application that takes
    /// no more for now. It is in use then, however long they do not read. What has reached the inbox
    /// outlives the session.
    pub(crate) fn has_backlog(&self) -> bool {
        self.queue.level().bytes > 0 || self.window.is_shut() || self.receiver.is_full()
    }

    /// Leases out, for a snapshot. A handle may be on its way to a caller who will have to wait for a
    /// lease: where leases are limited, their permits tell.
    fn leases_held(&self) -> u32 {
        let Some(max) = self.context.settings.max_leases else { return self.leases_out() };
        let given = |permits: &Arc<Semaphore>| {
            max.get().saturating_sub(u32::try_from(permits.available_permits()).unwrap_or(0))
        };
        self.leases.permits().map_or(0, |permits| given(&permits)).min(self.leases_out())
    }

    /// Leases out, and handles that may become leases, as of some moment during the call.
    pub(crate) fn leases_out(&self) -> u32 {
        u32::try_from(self.leases.leases()).unwrap_or(u32::MAX)
    }

    /// What can be seen of the session now.
    pub(crate) fn snapshot(&self, now: Instant) -> SessionSnapshot {
        let level = self.queue.level();
        let numbers = self.metrics.read(self.context.millis(now));
        SessionSnapshot {
            peer: self.spec.peer,
            session: self.spec.id,
            origin: self.spec.origin,
            remote: self.spec.remote.clone(),
            state: self.life.named(),
            age: now.saturating_duration_since(self.born),
            idle: now.saturating_duration_since(self.last_used()),
            leases: self.leases_held(),
            bytes_in: numbers.bytes_in,
            bytes_out: numbers.bytes_out,
            messages_in: numbers.messages_in,
            messages_out: numbers.messages_out,
            rate_in: numbers.rate_in,
            rate_out: numbers.rate_out,
            queue_messages: level.accepted.saturating_sub(level.left + self.metrics.done()),
            queue_bytes: level.bytes as u64,
            undelivered_bytes: (self.window.undelivered() + self.receiver.undelivered()) as u64,
            expired: numbers.expired,
            rtt: numbers.rtt,
            last_ping: numbers.last_ping,
            rekeys: numbers.rekeys,
            handshake_time: self.spec.handshake_time,
        }
    }

    /// Why it is retired, or has ended.
    pub(crate) fn retired(&self) -> Option<CloseReason> {
        self.life.retired()
    }

    /// The next checkout has to probe.
    pub(super) fn mark_needs_probe(&self) {
        self.mark(NEEDS_PROBE);
    }

    /// The next checkout need not probe.
    pub(super) fn clear_needs_probe(&self) {
        self.life.clear_needs_probe();
        self.leases.unmark(NEEDS_PROBE);
    }

    /// Marks the session, and then what its leases see of it.
    fn mark(&self, marks: Marks) {
        self.life.mark(marks);
        self.leases.mark(marks);
    }

    fn stop_handing_out(&self, stage: Stage) {
        self.mark(Marks::of(stage));
        // After the mark: a core that is made from now on sees it and closes its own permits.
        self.leases.close_permits();
        self.changed.notify_waiters();
    }
}

impl AsRef<LeaseTable<Self>> for Session {
    fn as_ref(&self) -> &LeaseTable<Self> {
        &self.leases
    }
}

impl Leased for Session {
    fn id(&self) -> SessionId {
        self.spec.id
    }

    fn peer(&self) -> PeerId {
        self.spec.peer
    }

    fn context(&self) -> &Arc<SessionContext> {
        &self.context
    }

    fn core_added(&self, core: &LeaseHandle<Self>, permits: Option<Arc<Semaphore>>) {
        self.leases.add(core, permits.clone(), || self.life.marks());
        if self.life.is(Stage::Retired)
            && let Some(permits) = permits
        {
            permits.close();
        }
    }

    fn core_gone(&self, last_use: u64) {
        self.lease_mark.fetch_max(last_use, Ordering::Relaxed);
        self.leases.gone();
        self.changed.notify_waiters();
        if self.life.is(Stage::Retired) {
            self.signal.set(LEASES);
        }
    }

    fn leases_out(&self) -> u32 {
        Self::leases_out(self)
    }
}

/// Whether leases in hand may go on sending on a session that is retired for this reason.
fn lets_leases_finish(why: CloseReason) -> bool {
    matches!(
        why,
        CloseReason::Age | CloseReason::Idle | CloseReason::Evicted | CloseReason::Drained
    )
}
