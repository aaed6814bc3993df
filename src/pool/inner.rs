//! The pool's state, and what follows from a change of a slot.
//!
//! Owns the parts that all tasks of the pool share, the installation of sessions, and their
//! retirement. The slot machine decides under a shard's lock; the methods here ask it, and act when
//! the lock is gone: first the map, then the waiters.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, info, warn};

use crate::config::Settings;
use crate::error::{CloseReason, DialError, Limit, Refusal};
use crate::event::{PoolEvent, Publisher};
use crate::id::{Origin, PeerId, SessionId};
use crate::pool::admission::Admission;
use crate::pool::dial::Dial;
use crate::pool::draining::Draining;
use crate::pool::hooks::{self, Hooks};
use crate::pool::idle::IdleIndex;
use crate::pool::keep::Keepers;
use crate::pool::permit::Gauge;
use crate::pool::reaper::Watched;
use crate::pool::registry::{Open, Registry, Seed};
use crate::pool::room::Room;
use crate::pool::stats::Counters;
use crate::pool::target::Target;
use crate::proto::backoff::{BackoffTable, Bounds, Outcome};
use crate::proto::record::Verdict;
use crate::proto::slot::{
    AcceptRow, Acceptance, Claim, Displaced, DrainRow, Ended, KeyOrder, Phase, Slot, View,
};
use crate::proto::stamp::StampSource;
use crate::proto::throttle::Throttle;
use crate::session::LeaseCore;
use crate::session::{self, Host, Session, SessionSpec};
use crate::snapshot::SessionReport;
use crate::sync::lock;
use crate::transport::native::{Established, Native};
use crate::transport::{Address, BoxFuture, Connector};

/// The slot of one peer, as the pool fills it.
pub(crate) type PeerSlot = Slot<Arc<Dial>, Held>;

/// A session in its slot: the slot's own share of it, and its room.
pub(crate) struct Held {
    pub(crate) core: Arc<LeaseCore>,
    /// Passed on when another session replaces this one.
    pub(crate) room: Option<Room>,
}

/// Errors that the table of failures has forgotten.
pub(crate) type Spent = Vec<DialError>;

/// A connection whose peer has authenticated, on its way into the slot.
pub(crate) struct Newcomer {
    pub(crate) peer: PeerId,
    pub(crate) origin: Origin,
    pub(crate) address: Option<Address>,
    /// How the peer sees our address; empty if it did not say.
    pub(crate) observed: String,
    pub(crate) handshake_hash: [u8; 32],
    pub(crate) peer_max_message: u32,
    /// The peer's application payload.
    pub(crate) payload: Bytes,
    pub(crate) handshake_time: Duration,
}

/// A dial of ours that the peer accepted.
pub(crate) struct Arrival {
    pub(crate) established: Established,
    pub(crate) claim: Claim,
    pub(crate) address: Option<Address>,
    /// How the peer sees our address; empty if it did not say.
    pub(crate) observed: String,
    /// The peer's application payload.
    pub(crate) payload: Bytes,
}

/// How far the pool's life is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Life {
    /// Dials and accepts.
    Open = 0,
    /// Neither; sessions flush and close.
    Draining = 1,
    /// Over.
    Closed = 2,
}

/// What all tasks of a pool share.
pub(crate) struct Inner {
    pub(crate) settings: Arc<Settings>,
    pub(crate) peer: PeerId,
    pub(crate) native: Native,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) hooks: Arc<dyn Hooks>,
    pub(crate) registry: Registry<Arc<Dial>, Held>,
    pub(crate) backoff: Mutex<BackoffTable<DialError>>,
    pub(crate) throttle: Mutex<Throttle>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) draining: Draining,
    pub(crate) idle: Mutex<IdleIndex<Instant, Watched>>,
    pub(crate) keepers: Keepers,
    pub(crate) sessions: Gauge,
    pub(crate) inbound: Gauge,
    pub(crate) dialling: Gauge,
    pub(crate) queued: Gauge,
    pub(crate) discarding: Gauge,
    pub(crate) session_shared: Arc<session::Shared>,
    pub(crate) events: Publisher,
    pub(crate) counters: Counters,
    pub(crate) listeners: Mutex<Vec<SocketAddr>>,
    /// Sums over the sessions that ended since a drain began.
    pub(crate) drained: Mutex<(usize, SessionReport)>,
    /// Told whenever a session or a dial has ended.
    pub(crate) ended: Notify,
    /// Told when the first session appears, so that expiry begins to watch.
    pub(crate) appeared: Notify,
    /// Ends listeners and handshakes that have not shown who they are.
    pub(crate) stop_accepting: CancellationToken,
    /// Ends every task but the sessions' own, which end by themselves.
    pub(crate) stop: CancellationToken,
    /// Dials, handshakes and sessions: a drain waits for them.
    pub(crate) work: TaskTracker,
    /// Listeners, keepers, expiry.
    pub(crate) service: TaskTracker,
    pub(crate) began: Instant,
    /// Addresses come from strangers too; the backoff remembers them as hashes.
    address_hasher: RandomState,
    stamps: StampSource,
    life: AtomicU8,
}

/// What [`Inner::new`] needs besides the settings.
pub(crate) struct Parts {
    pub(crate) settings: Arc<Settings>,
    pub(crate) native: Native,
    pub(crate) peer: PeerId,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) hooks: Arc<dyn Hooks>,
    pub(crate) session_shared: Arc<session::Shared>,
}

impl Inner {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { settings, native, peer, connector, hooks, session_shared } = parts;
        let random = || {
            let mut bytes = [0; 8];
            settings.entropy.fill(&mut bytes);
            u64::from_le_bytes(bytes)
        };
        // A random start hides how busy we are; the upper half stays free so that it never wraps.
        let start = random() >> 1;
        let seed = match settings.hasher_seed {
            Some(seed) => Seed::Fixed(seed),
            None => Seed::Secret { process: random(), map: random() },
        };
        Arc::new(Self {
            peer,
            native,
            connector,
            hooks,
            registry: Registry::new(seed),
            backoff: Mutex::new(BackoffTable::new(Bounds {
                first: settings.backoff_first,
                most: settings.backoff_most,
                refuse_most: settings.refuse_most,
                capacity: settings.backoff_table,
            })),
            throttle: Mutex::new(Throttle::new(
                settings.source_burst,
                settings.source_rate,
                settings.source_table,
                settings.limit_loopback,
            )),
            admission: Admission::new(settings.max_pending_handshakes),
            draining: Draining::new(settings.max_draining),
            idle: Mutex::new(IdleIndex::new()),
            keepers: Keepers::default(),
            sessions: Gauge::new(settings.max_sessions),
            inbound: Gauge::new(settings.max_inbound),
            dialling: Gauge::new(settings.max_concurrent_dials),
            queued: Gauge::new(settings.max_queued_dials),
            discarding: Gauge::new(settings.max_discarding),
            session_shared,
            events: Publisher::new(settings.event_capacity),
            counters: Counters::default(),
            listeners: Mutex::default(),
            drained: Mutex::default(),
            ended: Notify::new(),
            appeared: Notify::new(),
            stop_accepting: CancellationToken::new(),
            stop: CancellationToken::new(),
            work: TaskTracker::new(),
            service: TaskTracker::new(),
            began: Instant::now(),
            address_hasher: RandomState::new(),
            stamps: StampSource::new(start),
            life: AtomicU8::new(Life::Open as u8),
            settings,
        })
    }

    // ---- life ----------------------------------------------------------------------------------

    pub(crate) fn life(&self) -> Life {
        match self.life.load(Ordering::Acquire) {
            0 => Life::Open,
            1 => Life::Draining,
            _ => Life::Closed,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.life() == Life::Open
    }

    /// Moves on to `life`; it never goes back. Whether this call moved it.
    pub(crate) fn advance(&self, life: Life) -> bool {
        self.life.fetch_max(life as u8, Ordering::AcqRel) < life as u8
    }

    /// Runs work that a drain waits for and a close stops.
    pub(crate) fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.work.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// From the configured source, which may be the application's: not under a lock.
    pub(crate) fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        self.settings.entropy.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// The next stamp: strictly increasing, and never before an earlier one of any task.
    pub(crate) fn next_stamp(&self) -> u64 {
        self.stamps.next(self.began.elapsed())
    }

    pub(crate) fn key_order(&self, peer: &PeerId) -> KeyOrder {
        KeyOrder::of(peer, &self.peer)
    }

    // ---- checks --------------------------------------------------------------------------------

    /// Our authorisation and ready check of a peer that has authenticated.
    pub(crate) async fn check(&self, candidate: &hooks::Candidate) -> Result<(), Refusal> {
        let limit = self.settings.hook_timeout;
        let hooks = &self.hooks;
        let checked = async {
            hooks::ask(limit, || hooks.authorise(&candidate.peer, candidate.origin)).await?;
            hooks::ask(limit, || hooks.ready(candidate)).await
        };
        let answer = checked.await;
        if let Err(refusal) = answer {
            self.hook_refused(refusal);
        }
        answer
    }

    pub(crate) fn hook_refused(&self, refusal: Refusal) {
        self.counters.hooks.count(refusal);
        if refusal != Refusal::Refused {
            warn!(%refusal, "a callback of the application failed");
        }
    }

    // ---- backoff -------------------------------------------------------------------------------

    /// Notes a failure; the error that waiters and later callers get, and the errors that the table
    /// has forgotten for it. Called under a shard's lock: the table's lock is the inner one.
    pub(crate) fn back_off(
        &self,
        dial: &Dial,
        error: DialError,
        outcome: Option<Outcome>,
        random: u64,
    ) -> (DialError, Spent) {
        let Some(outcome) = outcome else { return (error, Spent::new()) };
        let (until, spent) = self.with_backoff(|backoff| {
            backoff.failed(
                dial.peer,
                outcome,
                error.clone(),
                &self.hashes(&dial.addresses()),
                Instant::now().into_std(),
                random,
            )
        });
        (DialError::Backoff { until: until.into(), cause: Arc::new(error) }, spent)
    }

    /// A session to the peer exists: its failures are forgotten.
    pub(crate) fn forget_failures(&self, peer: &PeerId) {
        drop(self.with_backoff(|backoff| backoff.clear(peer)));
    }

    /// Changes the table of failures. What it forgets comes back, to be dropped when no lock is held:
    /// the errors are the application's.
    pub(crate) fn with_backoff<R>(
        &self,
        change: impl FnOnce(&mut BackoffTable<DialError>) -> R,
    ) -> (R, Spent) {
        let mut backoff = lock(&self.backoff);
        let result = change(&mut backoff);
        (result, backoff.take_spent())
    }

    /// The error for a call that comes too early after a failure.
    pub(crate) fn backing_off(&self, target: &Target) -> Option<DialError> {
        let backoff = lock(&self.backoff);
        let now = Instant::now().into_std();
        let (until, cause) = backoff.check(&target.peer, &self.hashes(&target.addresses), now)?;
        Some(DialError::Backoff { until: until.into(), cause: Arc::new(cause.clone()) })
    }

    /// The error for a call for a peer that the application refuses.
    pub(crate) fn refused_by_application(&self, peer: &PeerId) -> Option<DialError> {
        let now = Instant::now().into_std();
        let until = lock(&self.backoff).refused_by_application(peer, now)?;
        Some(DialError::Backoff { until: until.into(), cause: Arc::new(DialError::Disconnected) })
    }

    fn hashes(&self, addresses: &[Address]) -> Vec<u64> {
        addresses.iter().map(|address| self.address_hasher.hash_one(address)).collect()
    }

    // ---- sessions ------------------------------------------------------------------------------

    /// A session without a task yet, for a connection whose peer has authenticated.
    pub(crate) fn new_session(&self, newcomer: Newcomer) -> Arc<LeaseCore> {
        let spec = SessionSpec {
            id: SessionId::next(),
            peer: newcomer.peer,
            origin: newcomer.origin,
            remote: newcomer.address,
            observed: newcomer.observed.into_boxed_str(),
            handshake_hash: newcomer.handshake_hash,
            handshake_time: newcomer.handshake_time,
            max_message: self.settings.max_message_size.min(newcomer.peer_max_message as usize),
            peer_payload: newcomer.payload,
            expires_at: self.expires_at(),
        };
        let session = Session::new(spec, &self.session_shared);
        LeaseCore::new(session, self.settings.max_leases)
    }

    /// When a session that begins now is too old: `max_age` less up to 10 %, so that sessions that
    /// began together do not end together.
    fn expires_at(&self) -> Option<Instant> {
        let age = self.settings.max_age?;
        let mut random = [0; 4];
        self.settings.entropy.fill(&mut random);
        let share = f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX);
        Some(Instant::now() + age.mul_f64(1.0 - 0.1 * share))
    }

    /// An accept arrived on a dial of ours: pools the session, or drains it.
    pub(crate) fn dial_accepted(self: &Arc<Self>, dial: &Arc<Dial>, arrival: Arrival) {
        let Arrival { established, claim, address, observed, payload } = arrival;
        let core = self.new_session(Newcomer {
            peer: dial.peer,
            origin: Origin::Outbound,
            address,
            observed,
            handshake_hash: established.handshake_hash,
            peer_max_message: established.peer_max_message,
            payload,
            handshake_time: dial.began.elapsed(),
        });
        let session = core.session().clone();
        let mut spare = None;
        // The pool's end has not come to this slot yet, and will not find the dial there.
        let mut untold = false;
        let step = loop {
            let step = self.registry.with(&dial.peer, |slot, open| {
                let row = match (slot.accepted(dial.attempt, &claim), open) {
                    (Acceptance::Adopt(row), Open::Yes) => row,
                    (Acceptance::Adopt(_), Open::No) => {
                        untold = matches!(slot.dial_ended(dial.attempt), Ended::Current(_));
                        return Step::Drain(DrainRow::Cancelled);
                    }
                    (Acceptance::Drain(row), _) => {
                        slot.dial_ended(dial.attempt);
                        return Step::Drain(row);
                    }
                };
                let Some(room) = room_of(slot).or_else(|| spare.take()) else {
                    return Step::NeedsRoom;
                };
                let held = Held { core: core.clone(), room: Some(room) };
                Step::Adopt(row, slot.install_outbound(dial.attempt, session.id(), claim, held))
            });
            match step {
                Step::NeedsRoom => match self.try_room_for_dial() {
                    Some(room) => spare = Some(room),
                    None => {
                        self.registry.with(&dial.peer, |slot, _| slot.dial_ended(dial.attempt));
                        self.events.publish(|| PoolEvent::LimitHit { limit: Limit::Sessions });
                        break Step::NoRoom;
                    }
                },
                step => break step,
            }
        };
        self.counters.dials_succeeded.one();
        self.events.publish(|| PoolEvent::DialSucceeded {
            peer: dial.peer,
            attempt: dial.attempt,
            session: session.id(),
            elapsed: dial.began.elapsed(),
        });
        match step {
            Step::Adopt(row, displaced) => {
                self.count_accept_row(row);
                self.forget_failures(&dial.peer);
                self.start(&session, established, None);
                self.watch(&session);
                self.settle(displaced, &core);
            }
            Step::Drain(row) => {
                self.count_drain_row(row);
                let why = match row {
                    DrainRow::Stale => CloseReason::Superseded,
                    DrainRow::Cancelled if self.is_open() => CloseReason::Disconnected,
                    DrainRow::Cancelled => CloseReason::Drained,
                };
                self.drain_late(dial, core, established, why);
            }
            Step::NeedsRoom | Step::NoRoom => {
                self.drain_late(dial, core, established, CloseReason::Evicted);
            }
        }
        if untold {
            drop(dial.take_room());
            dial.outcome.set(Err(DialError::PoolClosed));
        }
        dial.settled.notify_waiters();
        self.ended.notify_waiters();
    }

    /// A session that nobody is to have: the peer may have sent on it, so it is drained, not cut.
    fn drain_late(
        self: &Arc<Self>,
        dial: &Dial,
        core: Arc<LeaseCore>,
        established: Established,
        why: CloseReason,
    ) {
        dial.note_drained(core.session().clone());
        self.start(core.session(), established, None);
        self.retire_unheld(core, why);
    }

    /// What an installed session displaced: its waiters get the new one, its session retires.
    pub(crate) fn settle(&self, displaced: Displaced<Arc<Dial>, Held>, core: &Arc<LeaseCore>) {
        let session = core.session();
        if let Some((dial, phase)) = displaced.dial {
            dial.outcome.set(Ok(core.clone()));
            if phase == Phase::Open {
                dial.abort.cancel();
            }
            dial.settled.notify_waiters();
        }
        if let Some(old) = displaced.session {
            self.events.publish(|| PoolEvent::Superseded {
                peer: session.peer(),
                session: old.core.session().id(),
                by: session.id(),
            });
            self.retire_held(old, CloseReason::Superseded);
        }
        if displaced.conflict {
            self.counters.identity_conflicts.one();
            warn!(peer = %session.peer().short(), "two processes seem to run one identity");
            self.events.publish(|| PoolEvent::IdentityConflict { peer: session.peer() });
        }
    }

    /// Starts the session's driver. `first` is the responder's verdict.
    pub(crate) fn start(
        self: &Arc<Self>,
        session: &Arc<Session>,
        established: Established,
        first: Option<Verdict>,
    ) {
        self.counters.opened.one();
        self.events.publish(|| PoolEvent::Opened {
            peer: session.peer(),
            session: session.id(),
            origin: session.origin(),
            remote: session.remote().cloned(),
            handshake_time: session.handshake_time(),
        });
        let span = tracing::info_span!(
            "session", peer = %session.peer().short(), session = %session.id(),
            origin = ?session.origin()
        );
        span.in_scope(|| info!("opened"));
        let Established { stream, core, leftover, .. } = established;
        let host: Arc<dyn Host> = self.clone();
        let driver = session.drive(stream, core, leftover, host, first);
        self.work.spawn(driver.instrument(span));
        if self.life() == Life::Closed {
            session.close(CloseReason::PoolClosed);
        }
    }

    /// Puts a pooled session under the watch of expiry and eviction.
    pub(crate) fn watch(&self, session: &Arc<Session>) {
        if let Some(origin) = self.watchable(session) {
            lock(&self.idle).insert(Watched(session.clone()), origin, session.last_used());
            // It may have left its slot, or its peer may be kept, since we looked.
            if self.watchable(session).is_none() {
                self.unwatch(session);
            }
            self.session_shared.note_idle();
        }
        self.appeared.notify_one();
    }

    /// Whose choice the session was, if it is in its slot and its peer is not kept.
    fn watchable(&self, session: &Session) -> Option<Origin> {
        let peer = session.peer();
        let origin = self.registry.read(&peer, |slot| match slot.view() {
            View::Ready { id, session: held } if id == session.id() => {
                held.room.as_ref().map(Room::origin)
            }
            _ => None,
        });
        origin.flatten().filter(|_| !self.keepers.is_kept(&peer))
    }

    /// Retires a session that was taken out of its slot; its room is free at once.
    pub(crate) fn retire_held(&self, held: Held, why: CloseReason) {
        let Held { core, room } = held;
        self.counters.session_retired(why);
        self.unwatch(core.session());
        drop(room);
        self.retire_unheld(core, why);
    }

    /// Retires a session that is in no slot.
    fn retire_unheld(&self, core: Arc<LeaseCore>, why: CloseReason) {
        let session = core.session().clone();
        for cut in self.draining.add(session.clone()) {
            self.events.publish(|| PoolEvent::LimitHit { limit: Limit::Draining });
            cut.close(CloseReason::DrainingFull);
        }
        // Before the slot's share goes: the drain that its drop may begin knows its reason.
        session.retire(why);
        drop(core);
        self.keepers.lost(&session.peer());
        if session.ended().is_some() {
            self.draining.remove(session.id());
        }
        if self.life() == Life::Closed {
            session.close(CloseReason::PoolClosed);
        }
    }

    /// Takes a session out of its slot, if it is there.
    pub(crate) fn take(&self, session: &Session) -> Option<Held> {
        self.registry.with(&session.peer(), |slot, _| slot.remove(session.id()))
    }

    /// Adds what a session that has ended has carried.
    fn count_traffic(&self, session: &Session) {
        let picture = session.picture(Instant::now());
        self.counters.bytes_in.add(picture.bytes_in);
        self.counters.bytes_out.add(picture.bytes_out);
        self.counters.messages_in.add(picture.messages_in);
        self.counters.messages_out.add(picture.messages_out);
        self.counters.messages_expired.add(picture.expired);
    }

    fn count_accept_row(&self, row: AcceptRow) {
        let rows = &self.counters.late_accept_rows;
        match row {
            AcceptRow::Current => {}
            AcceptRow::LateVacant => rows.absent.one(),
            AcceptRow::LateAbortsDial => rows.uncommitted.one(),
            AcceptRow::LateSupersedesDial => rows.committed.one(),
            AcceptRow::LateRetiresSession => rows.superseding.one(),
        }
    }

    fn count_drain_row(&self, row: DrainRow) {
        let rows = &self.counters.late_accept_rows;
        match row {
            DrainRow::Cancelled => rows.marked.one(),
            DrainRow::Stale => rows.duplicate.one(),
        }
    }
}

/// What was decided of an accepted dial.
enum Step {
    Adopt(AcceptRow, Displaced<Arc<Dial>, Held>),
    Drain(DrainRow),
    /// To be asked again with room in hand.
    NeedsRoom,
    /// It was superseded, its slot is vacant, and there is no room.
    NoRoom,
}

/// The room that stands in the slot, for the session that takes it.
pub(crate) fn room_of(slot: &mut PeerSlot) -> Option<Room> {
    match slot.view() {
        View::Vacant => None,
        View::Dialing { dial, .. } => dial.take_room(),
        View::Ready { .. } => slot.session_mut().and_then(|held| held.room.take()),
    }
}

impl Host for Inner {
    fn retired(&self, session: &Arc<Session>, why: CloseReason) {
        if let Some(held) = self.take(session) {
            self.retire_held(held, why);
        }
    }

    fn ended(&self, session: &Arc<Session>, reason: CloseReason, report: SessionReport) {
        if let Some(held) = self.take(session) {
            self.unwatch(session);
            drop(held);
        }
        self.draining.remove(session.id());
        if !self.is_open() {
            let mut drained = lock(&self.drained);
            drained.0 += 1;
            drained.1 += report;
        }
        self.counters.closed.one();
        self.count_traffic(session);
        info!(%reason, "closed");
        self.events.publish(|| PoolEvent::Closed {
            peer: session.peer(),
            session: session.id(),
            reason,
            report,
        });
        self.keepers.lost(&session.peer());
        self.ended.notify_waiters();
    }

    fn health_check(self: Arc<Self>, session: &Arc<Session>) -> Option<BoxFuture<'static, bool>> {
        let info = hooks::SessionInfo {
            peer: session.peer(),
            session: session.id(),
            origin: session.origin(),
            address: session.remote().cloned(),
        };
        let hooks = &self.hooks;
        // The hook may panic before it returns a future.
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| hooks.health(info)));
        match asked {
            Ok(None) => None,
            Ok(Some(check)) => Some(Box::pin(async move {
                let answer = hooks::ask(self.settings.hook_timeout, || check).await;
                if let Err(refusal) = answer {
                    self.hook_refused(refusal);
                }
                answer.is_ok()
            })),
            Err(_panic) => {
                self.hook_refused(Refusal::Panicked);
                Some(Box::pin(std::future::ready(false)))
            }
        }
    }
}
