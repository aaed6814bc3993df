//! One dial: a task that the pool owns, whoever asked for it.
//!
//! Owns the way from an empty slot to a session or to one error for all who wait. Callers own only
//! their wait: any of them may be dropped at any await. Before message 3 the dial can be aborted by
//! its last waiter, an inbound connection or a disconnect; from then on it runs to its verdict.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug};

use crate::error::{DialError, HandshakeError, RejectReason};
use crate::event::{PoolEvent, RejectedBy};
use crate::id::{AttemptId, Origin, PeerId};
use crate::pool::hooks;
use crate::pool::inner::{Arrival, Inner};
use crate::pool::latch::Latch;
use crate::pool::permit::Permit;
use crate::pool::race::{Candidate, Race};
use crate::pool::room::Room;
use crate::pool::target::Target;
use crate::proto::backoff::Outcome;
use crate::proto::record::Verdict;
use crate::proto::slot::{Claim, Ended};
use crate::session::LeaseCore;
use crate::snapshot::DialPhase;
use crate::sync::lock;
use crate::transport::{Address, BoxFuture, BoxedStream, TargetData};

/// How often a dial that was refused for the sake of another connection tries again for its
/// waiters. Without a fault once is enough: the other connection takes the slot.
const REOPENINGS: u32 = 3;

/// How long such a dial waits for the other connection before it tries again. The other connection
/// was judged by the peer already, so it is at most a round trip away.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);

/// Opens the stream of a dial: a closure of the application, boxed.
pub(crate) type Opener =
    Box<dyn FnOnce() -> BoxFuture<'static, io::Result<BoxedStream>> + Send + 'static>;

/// What all who wait on a dial get.
pub(crate) type Settled = Result<Arc<LeaseCore>, DialError>;

/// How the stream of a dial is had.
pub(crate) enum Source {
    /// By the connector, over the dial's addresses or those that it resolves.
    Connector(Option<TargetData>),
    /// By the caller.
    Opener(Opener),
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
    /// Set once, after the slot is settled: first the map, then the waiters.
    pub(crate) outcome: Latch<Settled>,
    /// Told when the dial leaves its committed phase: parked connections are judged again.
    pub(crate) settled: Notify,
    /// Stops the task while it is not committed.
    pub(crate) abort: CancellationToken,
    room: Mutex<Option<Room>>,
    addresses: Mutex<Addresses>,
    more: Notify,
    phase: Mutex<DialPhase>,
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
            outcome: Latch::new(),
            settled: Notify::new(),
            abort: CancellationToken::new(),
            room: Mutex::new(None),
            addresses: Mutex::default(),
            more: Notify::new(),
            phase: Mutex::new(DialPhase::Queued),
        };
        dial.add_addresses(addresses);
        dial
    }

    /// Adds addresses that the dial does not know; they join its race.
    pub(crate) fn add_addresses(&self, addresses: &[Address]) {
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

/// How a dial's task ends, other than by a session.
enum Stop {
    /// The dial lost its slot; whoever took it has told the waiters.
    Displaced,
    /// It failed; the error goes to all waiters, with the backoff that it begins.
    Failed(DialError, Option<Outcome>),
}

impl From<DialError> for Stop {
    fn from(error: DialError) -> Self {
        let outcome = match &error {
            DialError::Check(_) => Some(Outcome::Refused),
            DialError::Rejected { reason: RejectReason::Refused } => Some(Outcome::Refused),
            DialError::PoolClosed | DialError::Limit(_) | DialError::NoAddress(_) => None,
            DialError::Rejected {
                reason: RejectReason::Simultaneous | RejectReason::Duplicate,
            } => None,
            _ => Some(Outcome::Unreachable),
        };
        Self::Failed(error, outcome)
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
        self.spawn(
            async move {
                match pool.run_dial(&dial, source, place).await {
                    Ok(()) => {}
                    Err(Stop::Displaced) => pool.dial_displaced(&dial),
                    Err(Stop::Failed(error, outcome)) => {
                        debug!(error = %error, "dial failed");
                        pool.dial_failed(&dial, error, outcome);
                    }
                }
                unsettled.ended = true;
                drop((unsettled, dial));
                // Its outcome was a share of the session: if nobody took it, it is idle now.
                pool.session_shared.note_idle();
            }
            .instrument(span),
        );
    }

    async fn run_dial(
        self: &Arc<Self>,
        dial: &Arc<Dial>,
        source: Source,
        place: Place,
    ) -> Result<(), Stop> {
        let _turn = self.before_abort(dial, self.take_turn(dial, place)).await??;
        let mut until_commit = Instant::now() + self.settings.dial_timeout;
        let data = match &source {
            Source::Connector(data) => data.clone(),
            Source::Opener(_) => None,
        };
        let mut race = Race::new(self.clone(), dial.clone(), data.clone());
        match source {
            Source::Opener(opener) => {
                dial.set_phase(DialPhase::Connecting);
                race.open_with(opener);
            }
            Source::Connector(_) if dial.has_address() => {}
            Source::Connector(_) => race.resolve(),
        }
        let mut reopenings = 0;
        loop {
            let candidate = self
                .before_abort(dial, async {
                    let candidate = timeout_at(until_commit, race.answer())
                        .await
                        .unwrap_or(Err(DialError::TimedOut))?;
                    dial.set_phase(DialPhase::Checking);
                    self.check_answer(self.picture(dial, &candidate)).await?;
                    Ok::<_, DialError>(candidate)
                })
                .await??;
            match self.commit(dial, candidate, &mut race).await? {
                Committed::Done => return Ok(()),
                Committed::Other(reason) if reopenings < REOPENINGS => {
                    reopenings += 1;
                    self.reopen(dial, reason).await?;
                    until_commit = Instant::now() + self.settings.dial_timeout;
                    dial.renew_addresses();
                    race = Race::new(self.clone(), dial.clone(), data.clone());
                    if !dial.has_address() {
                        // The caller's own stream is used up.
                        race.resolve();
                    }
                }
                Committed::Other(reason) => return Err(DialError::Rejected { reason }.into()),
            }
        }
    }

    /// Waits for `work`, unless the dial is aborted first. Only for what comes before the commit.
    async fn before_abort<T>(&self, dial: &Dial, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = dial.abort.cancelled() => Err(Stop::Displaced),
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

    /// Our own checks of the peer: the responder is authenticated by message 2.
    async fn check_answer(&self, picture: hooks::Candidate) -> Result<(), DialError> {
        self.check(&picture).await.map_err(DialError::Check)
    }

    /// The commit and what follows from it. Never cut short, except by the pool's close.
    async fn commit(
        self: &Arc<Self>,
        dial: &Arc<Dial>,
        candidate: Candidate,
        race: &mut Race,
    ) -> Result<Committed, Stop> {
        let mut candidate = candidate;
        loop {
            // The stamp is drawn under the lock, so that stamps follow the order of decisions.
            let stamp = self
                .registry
                .with(&dial.peer, |slot, _| slot.commit(dial.attempt).then(|| self.next_stamp()));
            let Some(stamp) = stamp else { return Err(Stop::Displaced) };
            dial.set_phase(DialPhase::Committed);
            let Candidate { answered, address } = candidate;
            let answer = timeout(self.settings.verdict_timeout, async {
                answered.commit(stamp).await?.verdict().await
            })
            .await;
            let failure = match answer {
                Ok(Ok((Verdict::Accept { stamp, observed, payload }, established))) => {
                    let claim =
                        Claim { instance: established.instance, stamp, heard: established.heard };
                    let arrival = Arrival { established, claim, address, observed, payload };
                    self.dial_accepted(dial, arrival);
                    return Ok(Committed::Done);
                }
                Ok(Ok((Verdict::Reject { reason, retry_after }, established))) => {
                    self.spawn(established.part());
                    return self.dial_rejected(dial, reason, retry_after);
                }
                Ok(Err(HandshakeError::TimedOut)) | Err(_) => DialError::VerdictTimedOut,
                Ok(Err(error)) => DialError::Handshake(error),
            };
            // The committed connection died without a verdict: another one that has answered may
            // commit, with a new stamp.
            match timeout(self.settings.verdict_timeout, race.answer()).await {
                Ok(Ok(other)) => {
                    self.check_answer(self.picture(dial, &other)).await?;
                    candidate = other;
                }
                Ok(Err(_)) | Err(_) => return Err(failure.into()),
            }
        }
    }

    fn dial_rejected(
        &self,
        dial: &Dial,
        reason: RejectReason,
        retry_after: Option<Duration>,
    ) -> Result<Committed, Stop> {
        self.counters.rejected_by_peer.count(reason);
        self.events.publish(|| PoolEvent::Rejected {
            peer: dial.peer,
            reason,
            by: RejectedBy::Peer,
        });
        match reason {
            RejectReason::Simultaneous | RejectReason::Duplicate => Ok(Committed::Other(reason)),
            RejectReason::Full | RejectReason::Draining => {
                let outcome = Outcome::Busy { retry_after };
                Err(Stop::Failed(DialError::Rejected { reason }, Some(outcome)))
            }
            _ => Err(DialError::Rejected { reason }.into()),
        }
    }

    /// Lets the other connection take the slot, then goes on for those who still wait.
    async fn reopen(self: &Arc<Self>, dial: &Arc<Dial>, reason: RejectReason) -> Result<(), Stop> {
        let ours = self.registry.with(&dial.peer, |slot, _| slot.reopen(dial.attempt));
        dial.settled.notify_waiters();
        if !ours {
            // Nobody waits, or another session has the slot.
            return Err(DialError::Rejected { reason }.into());
        }
        dial.set_phase(DialPhase::Connecting);
        self.before_abort(dial, tokio::time::sleep(REOPEN_PAUSE)).await
    }

    /// Ends a dial without a session: settles the slot, then tells waiters and parked connections.
    pub(crate) fn dial_failed(&self, dial: &Arc<Dial>, error: DialError, outcome: Option<Outcome>) {
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
                dial.outcome.set(Err(error));
            }
            None => self.count_forgotten(dial),
        }
        dial.settled.notify_waiters();
    }

    /// A dial that lost its slot is gone.
    fn dial_displaced(&self, dial: &Arc<Dial>) {
        self.registry.with(&dial.peer, |slot, _| slot.dial_ended(dial.attempt));
        drop(dial.take_room());
        self.count_forgotten(dial);
        dial.settled.notify_waiters();
    }

    /// Counts a dial that ended without a session after it had lost its slot. What its waiters were
    /// told says to whom; one whose last waiter left was counted then.
    fn count_forgotten(&self, dial: &Dial) {
        match dial.outcome.get() {
            Some(Ok(_)) => self.count_failure(dial, &DialError::Superseded),
            Some(Err(error)) => self.count_failure(dial, error),
            None => {}
        }
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
    fn picture(&self, dial: &Dial, candidate: &Candidate) -> hooks::Candidate {
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

/// What became of a committed dial.
enum Committed {
    /// It became a session, pooled or drained.
    Done,
    /// The peer refused it because of another connection between us.
    Other(RejectReason),
}

impl Source {
    /// By the connector, with the target's own data.
    pub(crate) fn of(target: &Target) -> Self {
        Self::Connector(target.data.clone())
    }
}
