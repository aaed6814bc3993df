//! One dial: a task that the pool owns, whoever asked for it.
//!
//! Owns the way from an empty slot to a session or to one error for all who wait. Callers own only
//! their wait: any of them may be dropped at any await. Before message 3 the dial can be aborted by
//! its last waiter, an inbound connection or a disconnect; from then on it runs to its verdict.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, debug};

use crate::base::address::Address;
use crate::base::error::{DialError, HandshakeError, RejectReason};
use crate::base::event::{DialFailure, PoolEvent, RejectedBy};
use crate::base::id::{AttemptId, Origin, PeerId};
use crate::base::io::{BoxFuture, BoxedStream, TargetData};
use crate::base::metrics::DialPhase;
use crate::base::sync::{AtomicUsize, Mutex, Notify, OnceLock, lock};
use crate::pool::halt::Halt;
use crate::pool::hooks;
use crate::pool::inner::Inner;
use crate::pool::install::Arrival;
use crate::pool::outcome::Outcome;
use crate::pool::permit::Permit;
use crate::pool::race::{Candidate, Race};
use crate::pool::room::Room;
use crate::pool::target::Target;
use crate::proto::backoff;
use crate::proto::dial_policy::{
    DialPolicy, Failed, Lost, Next, Reopened, Step, Timeouts, Unanswered,
};
use crate::proto::native::record::Verdict;
use crate::proto::slot::{Claim, Ended};
use crate::session::{Driver, Session};

/// Opens the stream of a dial: a closure of the application, boxed.
pub(crate) type Opener =
    Box<dyn FnOnce() -> BoxFuture<'static, io::Result<BoxedStream>> + Send + 'static>;

/// How the stream of a dial is had.
pub(crate) enum Source {
    /// By the connector, over the dial's addresses or those that it resolves.
    Connector(Option<TargetData>),
    /// By the caller; a dial that has to go on without its stream asks the connector.
    Opener(Opener, Option<TargetData>),
}

/// Where a dial that begins stands.
pub(crate) enum Place {
    /// It is its turn.
    Turn(Permit),
    /// It waits for its turn.
    Queue(Permit),
}

/// A dial under way: the handle that the slot and the waiters share with the dial's task.
pub(crate) struct Dial {
    pub(crate) attempt: AttemptId,
    pub(crate) peer: PeerId,
    pub(crate) began: Instant,
    pub(crate) outcome: Outcome,
    /// Told when the dial leaves its committed phase: parked connections are judged again.
    pub(crate) settled: Notify,
    /// How many connections are parked because of this dial. Raised under the shard's lock.
    parked: AtomicUsize,
    /// Stops the task: aborted, while it is not committed; cut, when the pool closes.
    pub(crate) halt: Halt,
    room: Mutex<Option<Room>>,
    /// Those that it began with: callers who name the same ones need no lock.
    first_addresses: Box<[Address]>,
    addresses: Mutex<Addresses>,
    more: tokio::sync::Notify,
    phase: Mutex<DialPhase>,
    /// The session that came when it was not wanted any more, and drains.
    drained: OnceLock<Arc<Session>>,
}

#[derive(Default)]
struct Addresses {
    all: Vec<Address>,
    fresh: VecDeque<Address>,
}

impl Dial {
    pub(crate) fn new(attempt: AttemptId, peer: PeerId, addresses: &[Address]) -> Self {
        let dial = Self {
            attempt,
            peer,
            began: Instant::now(),
            outcome: Outcome::new(),
            settled: Notify::new(),
            parked: AtomicUsize::new(0),
            halt: Halt::default(),
            room: Mutex::new(None),
            first_addresses: addresses.into(),
            addresses: Mutex::default(),
            more: tokio::sync::Notify::new(),
            phase: Mutex::new(DialPhase::Queued),
            drained: OnceLock::new(),
        };
        dial.learn(addresses);
        dial
    }

    /// Adds addresses that the dial does not know; they join its race.
    pub(crate) fn add_addresses(&self, addresses: &[Address]) {
        if !addresses.iter().all(|address| self.first_addresses.contains(address)) {
            self.learn(addresses);
        }
    }

    fn learn(&self, addresses: &[Address]) {
        let mut known = lock(&self.addresses);
        let before = known.all.len();
        for address in addresses {
            if !known.all.contains(address) {
                known.all.push(address.clone());
                known.fresh.push_back(address.clone());
            }
        }
        let grew = known.all.len() > before;
        drop(known);
        if grew {
            self.more.notify_one();
        }
    }

    pub(crate) fn addresses(&self) -> Vec<Address> {
        lock(&self.addresses).all.clone()
    }

    pub(crate) fn next_address(&self) -> Option<Address> {
        lock(&self.addresses).fresh.pop_front()
    }

    pub(crate) fn has_address(&self) -> bool {
        !lock(&self.addresses).fresh.is_empty()
    }

    /// Tries all addresses again.
    fn renew_addresses(&self) {
        let mut known = lock(&self.addresses);
        known.fresh = known.all.iter().cloned().collect();
    }

    pub(crate) fn more_addresses(&self) -> impl Future<Output = ()> + '_ {
        self.more.notified()
    }

    /// The accept came too late, and its session drains. To be called before `settled` is told.
    pub(crate) fn note_drained(&self, session: Arc<Session>) {
        let _ = self.drained.set(session);
    }

    pub(crate) fn drained(&self) -> Option<Arc<Session>> {
        self.drained.get().cloned()
    }

    /// The room that the dial holds, for the session that takes its slot.
    pub(crate) fn take_room(&self) -> Option<Room> {
        lock(&self.room).take()
    }

    fn put_room(&self, room: Room) {
        *lock(&self.room) = Some(room);
    }

    pub(crate) fn phase(&self) -> DialPhase {
        *lock(&self.phase)
    }

    pub(crate) fn set_phase(&self, phase: DialPhase) {
        *lock(&self.phase) = phase;
    }
}

/// An inbound connection that waits for the dial's verdict; until it is dropped.
pub(crate) struct Parked(Arc<Dial>);

impl Parked {
    /// Called under the shard's lock, so that whoever ends the committed phase sees it.
    pub(crate) fn at(dial: &Arc<Dial>) -> Self {
        dial.parked.fetch_add(1, Ordering::Relaxed);
        Self(dial.clone())
    }

    pub(crate) fn dial(&self) -> &Arc<Dial> {
        &self.0
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.0.parked.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a dial's task ends, other than by a session.
enum Stop {
    /// The dial lost its slot; whoever took it has told the waiters.
    Displaced,
    /// It failed; the error goes to all waiters, with the backoff that it begins.
    Failed(Failed<DialError>),
}

/// What an error that ended the race means for the policy.
fn why_unanswered(error: &DialError) -> Unanswered {
    match error {
        DialError::Check(_) => Unanswered::Refused,
        DialError::PoolClosed | DialError::Limit(_) | DialError::NoAddress(_) => {
            Unanswered::NotTried
        }
        _ => Unanswered::Unreachable,
    }
}

/// Settles a dial whose task is dropped or panics, so that nobody waits for ever.
struct Unsettled {
    pool: Arc<Inner>,
    dial: Arc<Dial>,
    ended: bool,
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if !self.ended {
            let error =
                if self.pool.is_open() { DialError::Panicked } else { DialError::PoolClosed };
            self.pool.dial_failed(&self.dial, error, None);
        }
    }
}

impl Inner {
    /// Runs a dial that was just begun in its slot.
    pub(crate) fn spawn_dial(self: &Arc<Self>, dial: Arc<Dial>, source: Source, place: Place) {
        self.counters.dials.one();
        self.events.publish(|| PoolEvent::DialStarted { peer: dial.peer, attempt: dial.attempt });
        let span = tracing::info_span!(
            "dial", peer = %dial.peer.short(), attempt = %dial.attempt, role = "initiator"
        );
        let pool = self.clone();
        // Made here, so that it settles the dial also if the task never runs.
        let mut unsettled = Unsettled { pool: pool.clone(), dial: dial.clone(), ended: false };
        self.spawn_opening(
            async move {
                let ended = tokio::select! {
                    biased;
                    () = dial.halt.was_cut() => return None,
                    ended = pool.run_dial(&dial, source, place) => ended,
                };
                let driver = match ended {
                    Ok(driver) => Some(driver),
                    Err(Stop::Displaced) => {
                        pool.dial_displaced(&dial);
                        None
                    }
                    Err(Stop::Failed(Failed { error, outcome })) => {
                        debug!(error = %error, "dial failed");
                        pool.dial_failed(&dial, error, outcome);
                        None
                    }
                };
                unsettled.ended = true;
                drop((unsettled, dial));
                // It had a share of the session: if nobody else has one, that is idle now.
                pool.session_shared.note_idle();
                driver
            }
            .instrument(span),
        );
    }

    async fn run_dial(
        self: &Arc<Self>,
        dial: &Arc<Dial>,
        source: Source,
        place: Place,
    ) -> Result<Driver, Stop> {
        let turn = self.before_abort(dial, self.take_turn(dial, place)).await?;
        let _turn = turn.map_err(|error| Stop::Failed(Failed { error, outcome: None }))?;
        let timeouts =
            Timeouts { dial: self.settings.dial_timeout, verdict: self.settings.verdict_timeout };
        let mut policy = DialPolicy::new(timeouts, Instant::now().into_std());
        let (opener, data) = match source {
            Source::Connector(data) => (None, data),
            Source::Opener(opener, data) => (Some(opener), data),
        };
        let mut race = Race::new(self.clone(), dial.clone(), data.clone());
        match opener {
            Some(opener) => {
                dial.set_phase(DialPhase::Connecting);
                race.open_with(opener);
            }
            None if dial.has_address() => {}
            None => race.resolve(),
        }
        loop {
            let until = policy.answer_due().into();
            let answer = self.before_abort(dial, self.answer(dial, &mut race, until)).await?;
            let candidate = match answer {
                Ok(candidate) => candidate,
                Err(error) => {
                    let why = why_unanswered(&error);
                    return Err(Stop::Failed(policy.unanswered(why, error)));
                }
            };
            let (why, error) = match self.commit(dial, candidate).await? {
                Ok(driver) => return Ok(driver),
                Err(lost) => lost,
            };
            let slot = self.reopen(dial);
            let Next { pause, step } = policy.lost(why, error, slot, Instant::now().into_std());
            if let Some(pause) = pause {
                self.before_abort(dial, tokio::time::sleep(pause)).await?;
            }
            match step {
                Step::Fail(failed) => return Err(Stop::Failed(failed)),
                Step::AwaitSpare => {}
                Step::Redial => {
                    dial.renew_addresses();
                    race = Race::new(self.clone(), dial.clone(), data.clone());
                    if !dial.has_address() {
                        policy.resolves_anew();
                        race.resolve();
                    }
                }
            }
        }
    }

    /// The next connection of the race that the peer answers and that passes our checks.
    async fn answer(
        &self,
        dial: &Dial,
        race: &mut Race,
        until: Instant,
    ) -> Result<Candidate, DialError> {
        let candidate =
            timeout_at(until, race.answer()).await.unwrap_or(Err(DialError::TimedOut))?;
        dial.set_phase(DialPhase::Checking);
        // Our own checks: the responder is authenticated by message 2.
        self.check(&self.candidate(dial, &candidate)).await.map_err(DialError::Check)?;
        Ok(candidate)
    }

    /// Waits for `work`, unless the dial is aborted first. Only for what comes before the commit.
    async fn before_abort<T>(&self, dial: &Dial, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = dial.halt.aborted() => Err(Stop::Displaced),
            done = work => Ok(done),
        }
    }

    /// A turn among the dials and room for the session, both before anything is sent.
    async fn take_turn(self: &Arc<Self>, dial: &Dial, place: Place) -> Result<Permit, DialError> {
        let turn = match place {
            Place::Turn(turn) => turn,
            Place::Queue(_queued) => self.dialling.acquire().await.ok_or(DialError::PoolClosed)?,
        };
        let room = self.room_for_dial().await?;
        dial.put_room(room);
        Ok(turn)
    }

    /// The commit and what follows from it, up to a session, whose driver is to be run, or the loss of
    /// the connection. Never cut short, except by the pool's close.
    async fn commit(
        self: &Arc<Self>,
        dial: &Arc<Dial>,
        candidate: Candidate,
    ) -> Result<Result<Driver, (Lost, DialError)>, Stop> {
        let Some(stamp) = self.stamp_of_commit(dial) else { return Err(Stop::Displaced) };
        let Candidate { answered, address, mut timer } = candidate;
        let verdict = pin!(async { answered.commit(stamp).await?.verdict().await });
        let answer = timer.timeout(self.settings.verdict_timeout, verdict).await;
        Ok(match answer {
            Ok(Ok((Verdict::Accept { stamp, observed, payload }, mut established))) => {
                established.timer = timer;
                let claim = Claim::stamped(established.instance, stamp, established.heard);
                let arrival = Arrival { established, claim, address, observed, payload };
                Ok(self.dial_accepted(dial, arrival))
            }
            Ok(Ok((Verdict::Reject { reason, retry_after }, established))) => {
                self.spawn(established.part());
                Err(self.dial_rejected(dial, reason, retry_after))
            }
            Ok(Err(HandshakeError::TimedOut)) | Err(_) => {
                Err((Lost::Broken, DialError::VerdictTimedOut))
            }
            Ok(Err(error)) => Err((Lost::Broken, DialError::Handshake(error))),
        })
    }

    /// The commit itself, and the stamp of message 3. `None`: the dial lost its slot.
    pub(super) fn stamp_of_commit(&self, dial: &Dial) -> Option<u64> {
        // The stamp is drawn under the lock, so that stamps follow the order of decisions.
        let stamp = self
            .registry
            .with(&dial.peer, |slot, _| slot.commit(dial.attempt).then(|| self.next_stamp()))?;
        dial.set_phase(DialPhase::Committed);
        Some(stamp)
    }

    fn dial_rejected(
        &self,
        dial: &Dial,
        reason: RejectReason,
        retry_after: Option<Duration>,
    ) -> (Lost, DialError) {
        self.counters.rejected_by_peer.count(reason);
        self.events.publish(|| PoolEvent::Rejected {
            peer: dial.peer,
            reason,
            by: RejectedBy::Peer,
        });
        let why = match reason {
            RejectReason::Simultaneous | RejectReason::Duplicate => Lost::OtherConnection,
            RejectReason::Full | RejectReason::Draining => Lost::Busy { retry_after },
            RejectReason::Refused | RejectReason::Other(_) => Lost::Refused,
        };
        (why, DialError::Rejected { reason })
    }

    /// The committed connection has ended without a session. Another one, parked or on its way, may
    /// take the slot; otherwise the dial goes on for those who still wait.
    pub(super) fn reopen(&self, dial: &Dial) -> Reopened {
        let ours = self.registry.with(&dial.peer, |slot, _| slot.reopen(dial.attempt));
        dial.set_phase(DialPhase::Connecting);
        dial.settled.notify_waiters();
        match dial.parked.load(Ordering::Relaxed) {
            _ if !ours => Reopened::No,
            0 => Reopened::Yes,
            _ => Reopened::WithParked,
        }
    }

    /// Ends a dial without a session: settles the slot, then tells waiters and parked connections.
    pub(crate) fn dial_failed(
        &self,
        dial: &Arc<Dial>,
        error: DialError,
        outcome: Option<backoff::Outcome>,
    ) {
        // Drawn here: the source of randomness may be the application's.
        let random = self.random();
        let ended = self.registry.with(&dial.peer, |slot, _| match slot.dial_ended(dial.attempt) {
            // The backoff stands before the slot is free, so that no caller slips in between.
            Ended::Current(_) => Some(self.back_off(dial, error.clone(), outcome, random)),
            Ended::Forgotten => None,
        });
        drop(dial.take_room());
        match ended {
            Some((error, _spent)) => {
                self.count_failure(dial, &error);
                dial.outcome.settle(Err(error));
            }
            None => self.count_forgotten(dial),
        }
        dial.settled.notify_waiters();
    }

    /// A dial that lost its slot is gone.
    pub(super) fn dial_displaced(&self, dial: &Arc<Dial>) {
        self.registry.with(&dial.peer, |slot, _| slot.dial_ended(dial.attempt));
        drop(dial.take_room());
        self.count_forgotten(dial);
        dial.settled.notify_waiters();
    }

    /// Counts and tells the end of a dial that had lost its slot: why, its waiters were told then.
    fn count_forgotten(&self, dial: &Dial) {
        let (cause, detail) = match dial.outcome.settled() {
            Some(Err(error)) => return self.count_failure(dial, &error),
            Some(Ok(())) => (DialFailure::Superseded, "another session took its place"),
            None => (DialFailure::Cancelled, "nobody waits any more"),
        };
        self.counters.dial_failures.count(cause);
        self.events.publish(|| PoolEvent::DialFailed {
            peer: dial.peer,
            attempt: dial.attempt,
            cause,
            detail: detail.to_owned(),
            elapsed: dial.began.elapsed(),
        });
    }

    /// Counts and tells how a dial failed.
    pub(crate) fn count_failure(&self, dial: &Dial, error: &DialError) {
        self.counters.dial_failures.count(error.into());
        let elapsed = dial.began.elapsed();
        self.events.publish(|| PoolEvent::dial_failed(dial.peer, dial.attempt, error, elapsed));
    }
}

impl Inner {
    /// What the application's checks see of a peer that answered our dial.
    fn candidate(&self, dial: &Dial, candidate: &Candidate) -> hooks::Candidate {
        let answered = &candidate.answered;
        hooks::Candidate {
            peer: dial.peer,
            address: candidate.address.clone(),
            origin: Origin::Outbound,
            handshake_hash: answered.handshake_hash,
            our_instance: self.native.instance(),
            peer_instance: answered.instance,
            peer_max_message: answered.peer_max_message,
            application_payload: bytes::Bytes::new(),
        }
    }
}

impl Source {
    /// By the connector, with the target's own data.
    pub(crate) fn of(target: &Target) -> Self {
        Self::Connector(target.data.clone())
    }
}
