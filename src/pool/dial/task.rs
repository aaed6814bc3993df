//! The task of a dial: from an empty slot to a session, or to one error for all who wait.
//!
//! Owns the run of each dial. The pool owns the task, and callers own only their wait: any of them may
//! be dropped at any await. Before message 3 the dial can be aborted by its last waiter, an inbound
//! connection or a disconnect; from then on it runs to its verdict.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{Instrument as _, debug};

use crate::base::address::Address;
use crate::base::error::{CloseReason, DialError, HandshakeError, Limit, RejectReason};
use crate::base::event::{DialFailure, PoolEvent, RejectedBy};
use crate::base::id::Origin;
use crate::base::io::TargetData;
use crate::base::metrics::LimitUse;
use crate::pool::context::Context;
use crate::pool::hooks::Candidate;
use crate::pool::lifecycle::Lifecycle;
use crate::pool::limits::{Capacity, CountedLimit, Permit, Reserved, with_permit};
use crate::pool::pooled::{PooledSession, permit_of};
use crate::pool::sessions::{NewSession, SessionTable};
use crate::pool::slots::Open;
use crate::proto::backoff;
use crate::proto::slot::{AcceptCase, Acceptance, Displaced, DrainCase, Ended};
use crate::session::{Driver, LeaseHandle, UncountedRef};
use crate::transport::seam::{Accepted, Answered as _, Committed as _, Transport as _, Verdict};

use super::handle::Dial;
use super::race::{AnsweredDial, Opener, Race, RaceParts};

/// How often a dial that was refused for the sake of another connection tries again for its
/// waiters. Without a fault once is enough: the other connection takes the slot.
const REOPENINGS: u32 = 3;

/// How long such a dial waits for the other connection before it tries again. The other connection
/// was judged by the peer already, so it is at most a round trip away.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);

/// How the stream of a dial is had.
pub(crate) enum StreamSource {
    /// By the connector, over the dial's addresses or those that it resolves.
    Connector(Option<TargetData>),
    /// By the caller; a dial that has to go on without its stream asks the connector.
    Opener(Opener, Option<TargetData>),
}

/// Where a dial that begins stands.
pub(crate) enum DialSlot {
    /// It is its turn.
    Turn(Permit),
    /// It waits for its turn.
    Queue(Permit),
}

/// What the dials of a pool share: their limits, and the parts of the pool that they work with.
pub(crate) struct Dialer {
    ctx: Arc<Context>,
    lifecycle: Arc<Lifecycle>,
    sessions: Arc<SessionTable>,
    capacity: Arc<Capacity>,
    race_parts: Arc<RaceParts>,
    /// Dials under way.
    turns: CountedLimit,
    /// Dials that wait for their turn.
    queued: CountedLimit,
}

impl Dialer {
    pub(crate) fn new(
        lifecycle: Arc<Lifecycle>,
        sessions: Arc<SessionTable>,
        capacity: Arc<Capacity>,
        race_parts: RaceParts,
    ) -> Arc<Self> {
        let ctx = race_parts.ctx.clone();
        Arc::new(Self {
            lifecycle,
            sessions,
            capacity,
            race_parts: Arc::new(race_parts),
            turns: CountedLimit::new(ctx.settings.max_concurrent_dials),
            queued: CountedLimit::new(ctx.settings.max_queued_dials),
            ctx,
        })
    }

    /// A turn, or a place among those that wait for one: the queue is for dials that find no turn.
    pub(crate) fn try_slot(&self) -> Option<DialSlot> {
        let turn = self.turns.try_acquire().map(DialSlot::Turn);
        turn.or_else(|| self.queued.try_acquire().map(DialSlot::Queue))
    }

    /// Lets no dial wait for its turn any longer.
    pub(crate) fn close(&self) {
        self.turns.close();
    }

    /// What is held of `max_concurrent_dials` and of `max_queued_dials`.
    pub(crate) fn held(&self) -> (LimitUse, LimitUse) {
        (self.turns.snapshot(), self.queued.snapshot())
    }

    /// Runs a dial that was just begun in its slot.
    pub(crate) fn spawn(self: &Arc<Self>, dial: Arc<Dial>, source: StreamSource, slot: DialSlot) {
        self.ctx.counters.dials.one();
        let (peer, attempt) = (dial.peer, dial.attempt);
        self.ctx.events.publish(|| PoolEvent::DialStarted { peer, attempt });
        let span = tracing::info_span!(
            "dial", peer = %peer.short(), attempt = %attempt, role = "initiator"
        );
        // Made here, so that it settles the dial also if the task never runs.
        let mut guard = SettleGuard { dialer: self.clone(), dial: dial.clone(), ended: false };
        let mut task = DialTask { dialer: self.clone(), dial };
        self.lifecycle.spawn_connection(
            async move {
                let dial = task.dial.clone();
                let ended = tokio::select! {
                    biased;
                    () = dial.stop.killed() => return None,
                    ended = task.run(source, slot) => ended,
                };
                let driver = match ended {
                    Ok(driver) => Some(driver),
                    Err(DialEnd::Displaced) => {
                        task.displaced();
                        None
                    }
                    Err(DialEnd::Failed(error, outcome)) => {
                        debug!(%error, "dial failed");
                        task.failed(error, outcome);
                        None
                    }
                };
                guard.ended = true;
                let sessions = task.dialer.sessions.clone();
                drop((guard, task, dial));
                // It had a share of the session: if there is no other, that is idle now.
                sessions.shared.note_idle();
                driver
            }
            .instrument(span),
        );
    }
}

/// How a dial's task ends, other than by a session.
enum DialEnd {
    /// The dial lost its slot; whatever took it has settled the waiters.
    Displaced,
    /// It failed; the error goes to all waiters, with the backoff that it begins.
    Failed(DialError, Option<backoff::Outcome>),
}

impl From<DialError> for DialEnd {
    fn from(error: DialError) -> Self {
        let outcome = match &error {
            DialError::Check(_) => Some(backoff::Outcome::Refused),
            // A reason of a later version is taken for a refusal by policy.
            DialError::Rejected { reason: RejectReason::Refused | RejectReason::Other(_) } => {
                Some(backoff::Outcome::Refused)
            }
            DialError::PoolClosed | DialError::Limit(_) | DialError::NoAddress(_) => None,
            DialError::Rejected {
                reason: RejectReason::Simultaneous | RejectReason::Duplicate,
            } => None,
            _ => Some(backoff::Outcome::Unreachable),
        };
        Self::Failed(error, outcome)
    }
}

/// Why a committed connection did not become a session.
enum ConnectionLost {
    /// The peer refused it because of another connection between us.
    Other(RejectReason),
    /// The peer has no room, or ends, and may have said for how long.
    Busy { reason: RejectReason, retry_after: Option<Duration> },
    /// The peer does not want us.
    Refused(RejectReason),
    /// It broke, and no verdict came.
    Broken(DialError),
}

impl From<ConnectionLost> for DialEnd {
    fn from(lost: ConnectionLost) -> Self {
        match lost {
            ConnectionLost::Other(reason) | ConnectionLost::Refused(reason) => {
                DialError::Rejected { reason }.into()
            }
            ConnectionLost::Busy { reason, retry_after } => Self::Failed(
                DialError::Rejected { reason },
                Some(backoff::Outcome::Busy { retry_after }),
            ),
            ConnectionLost::Broken(error) => error.into(),
        }
    }
}

/// What a committed connection came to.
enum Committed {
    /// A session, whose driver is to be run.
    Session(Driver),
    Lost(ConnectionLost),
}

/// Settles a dial whose task is dropped or panics, so that no caller waits for ever.
struct SettleGuard {
    dialer: Arc<Dialer>,
    dial: Arc<Dial>,
    ended: bool,
}

impl Drop for SettleGuard {
    fn drop(&mut self) {
        if !self.ended {
            let open = self.dialer.lifecycle.is_open();
            let error = if open { DialError::Panicked } else { DialError::PoolClosed };
            let task = DialTask { dialer: self.dialer.clone(), dial: self.dial.clone() };
            task.failed(error, None);
        }
    }
}

/// One dial's run.
pub(crate) struct DialTask {
    dialer: Arc<Dialer>,
    dial: Arc<Dial>,
}

impl DialTask {
    #[cfg(all(test, noise_pool_loom))]
    pub(crate) fn new(dialer: Arc<Dialer>, dial: Arc<Dial>) -> Self {
        Self { dialer, dial }
    }

    async fn run(&mut self, source: StreamSource, slot: DialSlot) -> Result<Driver, DialEnd> {
        let settings = self.dialer.ctx.settings.clone();
        let _turn = self.unless_aborted(self.take_turn(slot)).await??;
        let mut until_commit = Instant::now() + settings.dial_timeout;
        let (opener, data) = match source {
            StreamSource::Connector(data) => (None, data),
            StreamSource::Opener(opener, data) => (Some(opener), data),
        };
        let mut race = self.race(data.clone());
        match opener {
            Some(opener) => {
                self.dial.connects();
                race.open_with(opener);
            }
            None if self.dial.has_address() => {}
            None => race.resolve(),
        }
        let mut reopenings = 0;
        let mut failure = None;
        loop {
            let answer = self.unless_aborted(self.answer(&mut race, until_commit)).await?;
            let answered = match answer {
                Ok(answered) => answered,
                // That a committed connection was lost tells more than what came after it.
                Err(error) => return Err(failure.unwrap_or(error).into()),
            };
            let lost = match self.commit(answered).await? {
                Committed::Session(driver) => return Ok(driver),
                Committed::Lost(lost) => lost,
            };
            if !self.reopen() {
                return Err(lost.into());
            }
            self.yield_to_parked().await?;
            match lost {
                ConnectionLost::Other(reason) if reopenings < REOPENINGS => {
                    reopenings += 1;
                    self.unless_aborted(sleep(REOPEN_PAUSE)).await?;
                    until_commit = Instant::now() + settings.dial_timeout;
                    failure = None;
                    self.dial.renew_addresses();
                    race = self.race(data.clone());
                    if !self.dial.has_address() {
                        // A stream that the caller brought is used up; without a way of its own
                        // the dial can only say why.
                        failure = Some(DialError::Rejected { reason });
                        race.resolve();
                    }
                }
                // Another connection that has answered may commit, with a new stamp.
                ConnectionLost::Broken(error) => {
                    until_commit = Instant::now() + settings.verdict_timeout;
                    failure = Some(error);
                }
                lost => return Err(lost.into()),
            }
        }
    }

    fn race(&self, data: Option<TargetData>) -> Race {
        Race::new(self.dialer.race_parts.clone(), self.dial.clone(), data)
    }

    /// Waits for `work`, unless the dial is aborted first. Only for what comes before the commit.
    async fn unless_aborted<T>(&self, work: impl Future<Output = T>) -> Result<T, DialEnd> {
        tokio::select! {
            biased;
            () = self.dial.stop.aborted() => Err(DialEnd::Displaced),
            done = work => Ok(done),
        }
    }

    /// A turn among the dials and room for the session, both before anything is sent.
    async fn take_turn(&self, slot: DialSlot) -> Result<Permit, DialError> {
        let turn = match slot {
            DialSlot::Turn(turn) => turn,
            DialSlot::Queue(_queued) => {
                self.dialer.turns.acquire().await.ok_or(DialError::PoolClosed)?
            }
        };
        self.dial.put_permit(self.dialer.capacity.for_dial().await?);
        Ok(turn)
    }

    /// The next connection of the race that the peer answers and that passes our checks.
    async fn answer(&self, race: &mut Race, until: Instant) -> Result<AnsweredDial, DialError> {
        let answered =
            timeout_at(until, race.answer()).await.unwrap_or(Err(DialError::TimedOut))?;
        self.dial.checks();
        // Our own checks: the responder is authenticated by message 2.
        let candidate = self.candidate(&answered);
        self.dialer.race_parts.checks.candidate(&candidate).await.map_err(DialError::Check)?;
        Ok(answered)
    }

    /// What the application's checks see of a peer that answered our dial.
    fn candidate(&self, dial: &AnsweredDial) -> Candidate {
        let hello = dial.answered.hello();
        Candidate {
            peer: self.dial.peer,
            address: dial.address.clone(),
            origin: Origin::Outbound,
            handshake_hash: hello.handshake_hash,
            our_instance: self.dialer.race_parts.transport.instance(),
            peer_instance: hello.instance,
            peer_max_message: hello.max_message,
            application_payload: Bytes::new(),
        }
    }

    // ---- the commit and what follows from it ---------------------------------------------------

    /// Commits a connection and waits for the peer's verdict on it. Never cut short, except by the
    /// pool's close.
    async fn commit(&self, dial: AnsweredDial) -> Result<Committed, DialEnd> {
        let Some(stamp) = self.stamp_of_commit() else { return Err(DialEnd::Displaced) };
        let AnsweredDial { answered, address, mut timer } = dial;
        let verdict = pin!(async { answered.commit(stamp).await?.verdict().await });
        let verdict = timer.timeout(self.dialer.ctx.settings.verdict_timeout, verdict).await;
        Ok(match verdict {
            Ok(Ok(Verdict::Accepted(mut accepted))) => {
                accepted.established.timer = timer;
                Committed::Session(self.accepted(accepted, address))
            }
            Ok(Ok(Verdict::Rejected { reason, retry_after, closing })) => {
                self.dialer.lifecycle.spawn(closing);
                Committed::Lost(self.rejected(reason, retry_after))
            }
            Ok(Err(HandshakeError::TimedOut)) | Err(_) => {
                Committed::Lost(ConnectionLost::Broken(DialError::VerdictTimedOut))
            }
            Ok(Err(error)) => Committed::Lost(ConnectionLost::Broken(DialError::Handshake(error))),
        })
    }

    /// The commit itself, and the stamp of message 3. `None`: the dial lost its slot.
    pub(crate) fn stamp_of_commit(&self) -> Option<u64> {
        let (sessions, dial) = (&self.dialer.sessions, &self.dial);
        // The stamp is drawn under the lock, so that stamps follow the order of decisions.
        let stamp = sessions
            .slots
            .with(&dial.peer, |slot, _| slot.commit(dial.attempt).then(|| sessions.next_stamp()))?;
        dial.commits();
        Some(stamp)
    }

    /// The peer has accepted: pools the session, or drains it. Its driver is to be run.
    #[must_use = "a session whose driver is dropped ends"]
    pub(crate) fn accepted(&self, accepted: Accepted, address: Option<Address>) -> Driver {
        let Self { dialer, dial } = self;
        let (sessions, attempt) = (&dialer.sessions, dial.attempt);
        let Accepted { established, claim, observed, application_payload } = accepted;
        let spec = sessions.spec(NewSession {
            peer: dial.peer,
            origin: Origin::Outbound,
            address,
            observed,
            handshake_hash: established.handshake_hash,
            peer_max_message: established.peer_max_message,
            payload: application_payload,
            handshake_time: dial.began.elapsed(),
        });
        let decide = |spare: &mut Option<_>| {
            sessions.slots.with(&dial.peer, |slot, open| {
                let case = match (slot.accepted(attempt, &claim), open) {
                    (Acceptance::Adopt(case), Open::Yes) => case,
                    (Acceptance::Adopt(_), Open::No) => {
                        // The pool's end has not come to this slot yet, and will not find the dial.
                        let unreported = matches!(slot.dial_ended(attempt), Ended::Current(_));
                        return Reserved::Decided(Step::Drain(DrainCase::Cancelled, unreported));
                    }
                    (Acceptance::Drain(case), _) => {
                        slot.dial_ended(attempt);
                        return Reserved::Decided(Step::Drain(case, false));
                    }
                };
                let Some(permit) = permit_of(slot).or_else(|| spare.take()) else {
                    return Reserved::NeedsPermit;
                };
                let leases = sessions.build(spec.clone());
                let pooled =
                    PooledSession { leases: UncountedRef::of(&leases), permit: Some(permit) };
                let id = leases.session().id();
                let displaced = slot.install_outbound(attempt, id, claim, pooled);
                Reserved::Decided(Step::Adopt(case, leases, displaced))
            })
        };
        let step = with_permit(decide, || dialer.capacity.try_for_dial().ok_or(()));
        let step = step.unwrap_or_else(|()| {
            sessions.slots.with(&dial.peer, |slot, _| slot.dial_ended(attempt));
            dialer.ctx.limit_hit(Limit::Sessions);
            Step::NoRoom
        });
        let leases = match &step {
            Step::Adopt(_, leases, _) => leases.clone(),
            // The peer may have sent on it: it lives, and is drained.
            Step::Drain(..) | Step::NoRoom => sessions.build(spec),
        };
        let session = leases.session().clone();
        dialer.ctx.counters.dials_succeeded.one();
        dialer.ctx.events.publish(|| PoolEvent::DialSucceeded {
            peer: dial.peer,
            attempt,
            session: session.id(),
            elapsed: dial.began.elapsed(),
        });
        let driver = sessions.start(&session, established);
        match step {
            Step::Adopt(case, leases, displaced) => {
                self.count_accept(case);
                sessions.installed(&leases, displaced);
            }
            Step::Drain(case, unreported) => {
                self.count_drain(case);
                let why = match case {
                    DrainCase::Stale => CloseReason::Superseded,
                    DrainCase::Cancelled if dialer.lifecycle.is_open() => CloseReason::Disconnected,
                    DrainCase::Cancelled => CloseReason::Drained,
                };
                self.drain_late(leases, why);
                if unreported {
                    drop(dial.take_permit());
                    dial.outcome.settle(Err(DialError::PoolClosed));
                }
            }
            Step::NoRoom => self.drain_late(leases, CloseReason::Evicted),
        }
        dial.uncommitted.notify_waiters();
        sessions.ended.notify_waiters();
        driver
    }

    /// A session that came too late to be handed out: the peer may have sent on it, so it is drained,
    /// not cut.
    fn drain_late(&self, leases: LeaseHandle, why: CloseReason) {
        self.dial.note_drained(leases.session().clone());
        self.dialer.sessions.retire(leases.session().clone(), leases, why);
    }

    fn rejected(&self, reason: RejectReason, retry_after: Option<Duration>) -> ConnectionLost {
        self.dialer.ctx.counters.rejected_by_peer.count(reason);
        let peer = self.dial.peer;
        self.dialer.ctx.events.publish(|| PoolEvent::Rejected {
            peer,
            reason,
            by: RejectedBy::Peer,
        });
        match reason {
            RejectReason::Simultaneous | RejectReason::Duplicate => ConnectionLost::Other(reason),
            RejectReason::Full | RejectReason::Draining => {
                ConnectionLost::Busy { reason, retry_after }
            }
            _ => ConnectionLost::Refused(reason),
        }
    }

    /// The committed connection has ended without a session. Another one, parked or on its way, may
    /// take the slot; otherwise the dial goes on for those who still wait. False: the slot is taken
    /// already, or there are no waiters.
    pub(crate) fn reopen(&self) -> bool {
        let dial = &self.dial;
        let ours = self.dialer.sessions.slots.with(&dial.peer, |slot, _| slot.reopen(dial.attempt));
        dial.reopens();
        dial.uncommitted.notify_waiters();
        ours
    }

    /// A reopened dial does nothing while a connection that it has parked is about to be judged: that
    /// one's session is for the dial's waiters.
    async fn yield_to_parked(&self) -> Result<(), DialEnd> {
        if self.dial.has_parked() {
            self.unless_aborted(sleep(REOPEN_PAUSE)).await?;
        }
        Ok(())
    }

    // ---- the end without a session -------------------------------------------------------------

    /// Ends the dial: settles the slot, then waiters and parked connections.
    pub(crate) fn failed(&self, error: DialError, outcome: Option<backoff::Outcome>) {
        let Self { dialer, dial } = self;
        let sessions = &dialer.sessions;
        // Drawn here: the source of randomness may be the application's.
        let random = dialer.ctx.random();
        let ended =
            sessions.slots.with(&dial.peer, |slot, _| match slot.dial_ended(dial.attempt) {
                // The backoff stands before the slot is free, so that no caller slips in between.
                Ended::Current(_) => Some(match outcome {
                    Some(outcome) => {
                        let error = error.clone();
                        sessions.failures.note(dial.peer, &dial.addresses(), error, outcome, random)
                    }
                    None => (error.clone(), Vec::new()),
                }),
                Ended::Forgotten => None,
            });
        drop(dial.take_permit());
        match ended {
            Some((error, _evicted)) => {
                self.report_failure(&error);
                dial.outcome.settle(Err(error));
            }
            None => self.report_forgotten(),
        }
        dial.uncommitted.notify_waiters();
    }

    /// Ends a dial that lost its slot.
    pub(crate) fn displaced(&self) {
        let dial = &self.dial;
        self.dialer.sessions.slots.with(&dial.peer, |slot, _| slot.dial_ended(dial.attempt));
        drop(dial.take_permit());
        self.report_forgotten();
        dial.uncommitted.notify_waiters();
    }

    // ---- counters and events -------------------------------------------------------------------

    /// Reports how the dial failed.
    fn report_failure(&self, error: &DialError) {
        let dial = &self.dial;
        self.dialer.ctx.counters.dial_failures.count(error.into());
        let elapsed = dial.began.elapsed();
        let event = || PoolEvent::dial_failed(dial.peer, dial.attempt, error, elapsed);
        self.dialer.ctx.events.publish(event);
    }

    /// Reports the end of a dial that had lost its slot; its waiters were settled then.
    fn report_forgotten(&self) {
        let dial = &self.dial;
        let (cause, detail) = match dial.outcome.settled() {
            Some(Err(error)) => return self.report_failure(&error),
            Some(Ok(())) => (DialFailure::Superseded, "another session took its place"),
            None => (DialFailure::Cancelled, "no caller waits any more"),
        };
        self.dialer.ctx.counters.dial_failures.count(cause);
        self.dialer.ctx.events.publish(|| PoolEvent::DialFailed {
            peer: dial.peer,
            attempt: dial.attempt,
            cause,
            detail: detail.to_owned(),
            elapsed: dial.began.elapsed(),
        });
    }

    fn count_accept(&self, case: AcceptCase) {
        let cases = &self.dialer.ctx.counters.late_accept_rows;
        match case {
            AcceptCase::Current => {}
            AcceptCase::LateVacant => cases.absent.one(),
            AcceptCase::LateAbortsDial => cases.uncommitted.one(),
            AcceptCase::LateSupersedesDial => cases.committed.one(),
            AcceptCase::LateRetiresSession => cases.superseding.one(),
        }
    }

    fn count_drain(&self, case: DrainCase) {
        let cases = &self.dialer.ctx.counters.late_accept_rows;
        match case {
            DrainCase::Cancelled => cases.marked.one(),
            DrainCase::Stale => cases.duplicate.one(),
        }
    }
}

/// What was decided of an accepted dial.
enum Step {
    Adopt(AcceptCase, LeaseHandle, Displaced<Arc<Dial>, PooledSession>),
    /// With whether the dial's waiters have not been settled by anything else.
    Drain(DrainCase, bool),
    /// It was superseded, its slot is vacant, and there is no room.
    NoRoom,
}
