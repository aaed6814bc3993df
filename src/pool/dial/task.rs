//! The task of a dial: from an empty slot to a session, or to one error for all who wait.
//!
//! Owns the run of each dial. The pool owns the task, and callers own only their wait: any of them may
//! be dropped at any await. Before message 3 the dial can be aborted by its last waiter, an inbound
//! connection or a disconnect; from then on it runs to its verdict.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use crate::base::address::Address;
use crate::base::error::{CloseReason, DialError, HandshakeError, Limit, RejectReason, RejectedBy};
use crate::base::event::PoolEvent;
use crate::base::id::Origin;
use crate::base::io::TargetData;
use crate::base::metrics::DialFailure;
use crate::base::timer::Elapsed;
use crate::pool::context::Context;
use crate::pool::hooks::Candidate;
use crate::pool::lifecycle::Lifecycle;
use crate::pool::limits::{Capacity, CountedLimit, Permit, Reserved, with_permit};
use crate::pool::pooled::{PooledSession, permit_of};
use crate::pool::sessions::{NewSession, SessionTable};
use crate::pool::slots::Open;
use crate::proto::dial_policy::{
    DialPolicy, Failed, Lost, Next, Reopened, Step, Timeouts, Unanswered,
};
use crate::proto::slot::{AcceptCase, AcceptDecision, Claim, Displaced, DrainCase, Ended};
use crate::session::{Driver, LeaseHandle, SessionSpec};
use crate::transport::seam::{
    Accepted, Answered as _, Committed as _, Established, Transport as _, Verdict,
};

use super::handle::Dial;
use super::race::{AnsweredDial, Opener, Race, RaceParts};

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

/// What all dials of a pool use.
pub(crate) struct DialParts {
    pub(crate) ctx: Arc<Context>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) sessions: Arc<SessionTable>,
    pub(crate) capacity: Arc<Capacity>,
    pub(crate) race: Arc<RaceParts>,
    /// Dials under way.
    pub(crate) turns: CountedLimit,
}

/// How a dial's task ends, other than by a session.
pub(crate) enum DialEnd {
    /// The dial lost its slot; whatever took it has settled the waiters.
    Displaced,
    /// It failed; the error goes to all waiters, with the backoff that it begins.
    Failed(Failed<DialError>),
}

/// What a committed connection came to.
#[expect(clippy::large_enum_variant, reason = "nearly always it is the larger, and it moves once")]
enum Committed {
    /// A session, whose driver is to be run.
    Session(Driver),
    Lost(Lost, DialError),
}

/// What an error that ended the race means for the policy.
fn why_unanswered(error: &DialError) -> Unanswered {
    match error {
        DialError::Check(_)
        | DialError::Handshake(HandshakeError::NonCanonicalKey | HandshakeError::OwnIdentity) => {
            Unanswered::Refused
        }
        DialError::PoolClosed | DialError::Limit(_) | DialError::NoAddress(_) => {
            Unanswered::NotTried
        }
        DialError::TimedOut | DialError::Handshake(HandshakeError::NoAnswer) => Unanswered::Silent,
        DialError::Connect { source, .. } if is_silence(source.kind()) => Unanswered::Silent,
        _ => Unanswered::Unreachable,
    }
}

/// Whether a connection that failed so has met nobody who could refuse it.
fn is_silence(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut};
    matches!(kind, TimedOut | HostUnreachable | NetworkUnreachable | NetworkDown)
}

/// One dial's run.
pub(crate) struct DialTask {
    pub(super) parts: Arc<DialParts>,
    pub(super) dial: Arc<Dial>,
}

impl DialTask {
    pub(crate) fn new(parts: Arc<DialParts>, dial: Arc<Dial>) -> Self {
        Self { parts, dial }
    }

    /// Runs the dial up to a session, whose driver is to be run.
    ///
    /// # Errors
    /// How it ended otherwise; the caller settles it.
    pub(crate) async fn run(
        &self,
        source: StreamSource,
        slot: DialSlot,
    ) -> Result<Driver, DialEnd> {
        let turn = self.unless_aborted(self.take_turn(slot)).await?;
        let _turn = turn.map_err(|error| DialEnd::Failed(Failed { error, outcome: None }))?;
        let settings = &self.parts.ctx.settings;
        let timeouts = Timeouts { dial: settings.dial_timeout, verdict: settings.verdict_timeout };
        let mut policy = DialPolicy::new(timeouts, Instant::now().into_std());
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
        loop {
            let until = policy.answer_due().into();
            let answered = match self.unless_aborted(self.answer(&mut race, until)).await? {
                Ok(answered) => answered,
                Err(error) => {
                    let why = why_unanswered(&error);
                    return Err(DialEnd::Failed(policy.unanswered(why, error)));
                }
            };
            let (why, error) = match self.commit(answered).await? {
                Committed::Session(driver) => return Ok(driver),
                Committed::Lost(why, error) => (why, error),
            };
            let reopened = self.reopen();
            let Next { pause, step } = policy.lost(why, error, reopened, Instant::now().into_std());
            if let Some(pause) = pause {
                self.unless_aborted(sleep(pause)).await?;
            }
            match step {
                Step::Fail(failed) => return Err(DialEnd::Failed(failed)),
                Step::AwaitSpare => {}
                Step::Redial => {
                    self.dial.renew_addresses();
                    race = self.race(data.clone());
                    if !self.dial.has_address() {
                        policy.resolves_anew();
                        race.resolve();
                    }
                }
            }
        }
    }

    fn race(&self, data: Option<TargetData>) -> Race {
        Race::new(self.parts.race.clone(), self.dial.clone(), data)
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
                self.parts.turns.acquire().await.ok_or(DialError::PoolClosed)?
            }
        };
        self.dial.put_permit(self.parts.capacity.for_dial().await?);
        Ok(turn)
    }

    /// The next connection of the race that the peer answers and that passes our checks.
    async fn answer(&self, race: &mut Race, until: Instant) -> Result<AnsweredDial, DialError> {
        let answered =
            timeout_at(until, race.answer()).await.unwrap_or(Err(DialError::TimedOut))?;
        self.dial.checks();
        // Our own checks: the responder is authenticated by message 2.
        let candidate = self.candidate(&answered);
        self.parts.race.checks.candidate(&candidate).await.map_err(DialError::Check)?;
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
            our_instance: self.parts.race.transport.instance(),
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
        let first = self.dial.first.leave(answered.hello().max_message as usize);
        let first_messages = first.len() as u64;
        let verdict = pin!(async { answered.commit(stamp, first).await?.verdict().await });
        let verdict = timer.timeout(self.parts.ctx.settings.verdict_timeout, verdict).await;
        match &verdict {
            Ok(Ok(Verdict::Accepted(_))) => self.dial.first.accepted(),
            Ok(Ok(Verdict::Rejected { .. })) => self.dial.first.refused(),
            Ok(Err(_)) | Err(_) => self.dial.first.lost(),
        }
        Ok(match verdict {
            Ok(Ok(Verdict::Accepted(mut accepted))) => {
                accepted.established.timer = timer;
                Committed::Session(self.accepted(accepted, address, first_messages))
            }
            Ok(Ok(Verdict::Rejected { reason, retry_after, closing })) => {
                self.parts.lifecycle.spawn(closing);
                let why = self.rejected(reason, retry_after);
                Committed::Lost(why, DialError::Rejected { reason })
            }
            Err(Elapsed) => Committed::Lost(Lost::Broken, DialError::VerdictTimedOut),
            Ok(Err(error)) => Committed::Lost(Lost::Broken, DialError::Handshake(error)),
        })
    }

    /// The commit itself, and the stamp of message 3. `None`: the dial lost its slot.
    pub(crate) fn stamp_of_commit(&self) -> Option<u64> {
        let (sessions, dial) = (&self.parts.sessions, &self.dial);
        // The stamp is drawn under the lock, so that stamps follow the order of decisions.
        let stamp = sessions
            .slots
            .with(&dial.peer, |slot, _| slot.commit(dial.attempt).then(|| sessions.next_stamp()))?;
        dial.commits();
        Some(stamp)
    }

    /// The peer has accepted: pools the session, or drains it. So many messages travelled with its
    /// commit. Its driver is to be run.
    #[must_use = "a session whose driver is dropped ends"]
    pub(crate) fn accepted(
        &self,
        accepted: Accepted,
        address: Option<Address>,
        first_messages: u64,
    ) -> Driver {
        let Self { parts, dial } = self;
        let sessions = &parts.sessions;
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
            first_messages,
        });
        let late = match self.ask_slot(&claim, &spec) {
            Judged::Adopt { case, leases, displaced } => {
                let driver = self.open(&leases, established);
                self.count_accept(case);
                sessions.installed(&leases, displaced);
                self.dial.uncommitted.notify_waiters();
                return driver;
            }
            Judged::Drain(late) => late,
        };
        // The peer may have sent on it: it is drained, not cut.
        let leases = sessions.build(spec);
        let session = leases.session().clone();
        let driver = self.open(&leases, established);
        let why = match late {
            Late::Stale => CloseReason::Superseded,
            Late::Cancelled | Late::Unreported if parts.lifecycle.is_open() => {
                CloseReason::Disconnected
            }
            Late::Cancelled | Late::Unreported => CloseReason::Drained,
            Late::NoRoom => CloseReason::Evicted,
        };
        self.count_late(late);
        dial.note_drained(session.clone());
        sessions.retire(session, leases, why);
        if late == Late::Unreported {
            drop(dial.take_permit());
            dial.outcome.settle(Err(DialError::PoolClosed));
        }
        self.dial.uncommitted.notify_waiters();
        driver
    }

    /// Has the slot machine judge the accept, under the slot's lock; the session is installed if the
    /// machine adopts it.
    fn ask_slot(&self, claim: &Claim, spec: &SessionSpec) -> Judged {
        let (sessions, attempt) = (&self.parts.sessions, self.dial.attempt);
        let decide = |spare: &mut Option<_>| {
            sessions.slots.with(&self.dial.peer, |slot, open| {
                let case = match (slot.accepted(attempt, claim), open) {
                    (AcceptDecision::Adopt(case), Open::Yes) => case,
                    (AcceptDecision::Adopt(_), Open::No) => {
                        // The pool's end has not come to this slot yet, and will not find the dial.
                        return Reserved::Decided(Judged::Drain(match slot.dial_ended(attempt) {
                            Ended::Current(_) => Late::Unreported,
                            Ended::Forgotten => Late::Cancelled,
                        }));
                    }
                    (AcceptDecision::Drain(case), _) => {
                        slot.dial_ended(attempt);
                        return Reserved::Decided(Judged::Drain(match case {
                            DrainCase::Cancelled => Late::Cancelled,
                            DrainCase::Stale => Late::Stale,
                        }));
                    }
                };
                let Some(permit) = permit_of(slot).or_else(|| spare.take()) else {
                    return Reserved::NeedsPermit;
                };
                let (leases, pooled) = sessions.build_pooled(spec.clone(), permit, slot.session());
                let id = leases.session().id();
                let displaced = slot.install_outbound(attempt, id, *claim, pooled);
                Reserved::Decided(Judged::Adopt { case, leases, displaced })
            })
        };
        let judged = with_permit(decide, || self.parts.capacity.try_for_dial().ok_or(()));
        judged.unwrap_or_else(|()| {
            sessions.slots.with(&self.dial.peer, |slot, _| slot.dial_ended(attempt));
            self.parts.ctx.limit_hit(Limit::Sessions);
            Judged::Drain(Late::NoRoom)
        })
    }

    /// Opens the session of the dial.
    fn open(&self, leases: &LeaseHandle, established: Box<Established>) -> Driver {
        let Self { parts, dial } = self;
        parts.ctx.counters.dials_succeeded.one();
        parts.ctx.events.publish(|| PoolEvent::DialSucceeded {
            peer: dial.peer,
            attempt: dial.attempt,
            session: leases.session().id(),
            elapsed: dial.began.elapsed(),
        });
        parts.sessions.start(leases.session(), established)
    }

    fn rejected(&self, reason: RejectReason, retry_after: Option<Duration>) -> Lost {
        self.parts.ctx.counters.rejected_by_peer.count(reason);
        let peer = self.dial.peer;
        self.parts.ctx.events.publish(|| PoolEvent::Rejected {
            peer,
            reason,
            by: RejectedBy::Peer,
        });
        Lost::rejected(reason, retry_after)
    }

    /// The committed connection has ended without a session. Another one, parked or on its way, may
    /// take the slot; otherwise the dial goes on for those who still wait.
    pub(crate) fn reopen(&self) -> Reopened {
        let dial = &self.dial;
        let ours = self.parts.sessions.slots.with(&dial.peer, |slot, _| slot.reopen(dial.attempt));
        dial.reopens();
        dial.uncommitted.notify_waiters();
        match ours {
            false => Reopened::No,
            true if dial.has_parked() => Reopened::WithParked,
            true => Reopened::Yes,
        }
    }

    // ---- the end without a session -------------------------------------------------------------

    /// Ends the dial: settles the slot, then waiters and parked connections.
    pub(crate) fn failed(&self, Failed { error, outcome }: Failed<DialError>) {
        let Self { parts, dial } = self;
        let sessions = &parts.sessions;
        // Drawn here: the source of randomness may be the application's.
        let random = parts.ctx.random();
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
        self.parts.sessions.slots.with(&dial.peer, |slot, _| slot.dial_ended(dial.attempt));
        drop(dial.take_permit());
        self.report_forgotten();
        dial.uncommitted.notify_waiters();
    }

    // ---- counters and events -------------------------------------------------------------------

    /// Reports how the dial failed.
    fn report_failure(&self, error: &DialError) {
        let dial = &self.dial;
        self.parts.ctx.counters.dial_failures.count(error.into());
        let elapsed = dial.began.elapsed();
        let event = || PoolEvent::dial_failed(dial.peer, dial.attempt, error, elapsed);
        self.parts.ctx.events.publish(event);
    }

    /// Reports the end of a dial that had lost its slot; its waiters were settled then.
    fn report_forgotten(&self) {
        let dial = &self.dial;
        let (cause, detail) = match dial.outcome.settled() {
            Some(Err(error)) => return self.report_failure(&error),
            Some(Ok(())) => (DialFailure::Superseded, "another session took its place"),
            None => (DialFailure::Cancelled, "no caller waits any more"),
        };
        self.parts.ctx.counters.dial_failures.count(cause);
        self.parts.ctx.events.publish(|| PoolEvent::DialFailed {
            peer: dial.peer,
            attempt: dial.attempt,
            cause,
            detail: detail.to_owned(),
            elapsed: dial.began.elapsed(),
        });
    }

    fn count_accept(&self, case: AcceptCase) {
        let cases = &self.parts.ctx.counters.late_accept_rows;
        match case {
            AcceptCase::Current => {}
            AcceptCase::LateVacant => cases.absent.one(),
            AcceptCase::LateAbortsDial => cases.uncommitted.one(),
            AcceptCase::LateSupersedesDial => cases.committed.one(),
            AcceptCase::LateRetiresSession => cases.superseding.one(),
        }
    }

    fn count_late(&self, late: Late) {
        let cases = &self.parts.ctx.counters.late_accept_rows;
        match late {
            Late::Cancelled | Late::Unreported => cases.marked.one(),
            Late::Stale => cases.duplicate.one(),
            Late::NoRoom => {}
        }
    }
}

/// What was decided of an accepted dial.
enum Judged {
    /// The session stands in its slot.
    Adopt { case: AcceptCase, leases: LeaseHandle, displaced: Displaced<Arc<Dial>, PooledSession> },
    /// The accept came too late for its session to be handed out.
    Drain(Late),
}

/// Why an accept came too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    /// The application disconnected the peer, or the pool drains.
    Cancelled,
    /// The pool drains, and has not settled the dial's waiters.
    Unreported,
    /// A session stands in the slot that is at least as new.
    Stale,
    /// The dial was superseded, its slot is vacant, and there is no room.
    NoRoom,
}
