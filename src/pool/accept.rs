//! Inbound connections: from a stranger's socket to a session in its slot.
//!
//! Owns the listeners and the responder's side of a handshake. A stranger is bounded in number, time
//! and memory, and gets not one byte before it has shown that it knows our key; what fails is read
//! and discarded for a random time, so that the failure tells nothing. After message 3 the peer is
//! authenticated, the checks run, and the slot machine decides.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{Instrument as _, debug, warn};

use crate::base::address::Address;
use crate::base::error::{HandshakeError, Limit, ListenError, Refusal, RejectReason};
use crate::base::event::{PoolEvent, RejectedBy};
use crate::base::id::{Origin, PeerId};
use crate::base::io::BoxedStream;
use crate::base::sync::lock;
use crate::base::timer::{Elapsed, Timer};
use crate::pool::admission::Ticket;
use crate::pool::dial::{Dial, Parked};
use crate::pool::hooks;
use crate::pool::inner::{Held, Inner};
use crate::pool::install::{Newcomer, room_of};
use crate::pool::registry::Open;
use crate::pool::room::Room;
use crate::proto::native::record::Verdict;
use crate::proto::slot::{Claim, Displaced, Hearing, InboundCase, InboundDecision, Phase, View};
use crate::session::{Driver, LeaseHandle, UncountedRef};
use crate::transport::configure_tcp;
use crate::transport::native::{Failed, Proposed};

/// How long a listener rests after the system refused it a connection for want of descriptors or
/// memory: long enough not to spin, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The least time for which a failed handshake is read and discarded. The most is
/// `handshake_timeout`.
const DISCARD_AT_LEAST: Duration = Duration::from_millis(500);

/// The share of `verdict_timeout` that our checks of an inbound peer may take together: the rest is
/// for the verdict's way back.
const CHECKS_OF_VERDICT: f64 = 0.75;

/// What a peer that meets a full pool is told to wait. Room comes when sessions fall idle or end.
const RETRY_WHEN_FULL: Duration = Duration::from_secs(10);

/// What a peer that meets a pool that shuts down is told to wait: the time of a restart.
const RETRY_WHEN_DRAINING: Duration = Duration::from_secs(5);

/// Why an inbound connection did not become a session.
pub(crate) enum NotAccepted {
    /// The pool ends.
    PoolClosed,
    /// No place among the pending handshakes, or shed for a newcomer.
    Shed,
    /// The handshake failed; the peer is a stranger.
    Handshake(HandshakeError),
    /// The peer was told no.
    Rejected(PeerId, RejectReason),
}

/// Who runs the driver of a session that is accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Runs {
    /// The task that accepted it, which is the pool's.
    Acceptor,
    /// A task of its own: the future that accepted it is the application's.
    Task,
}

/// A session that was accepted and is in its slot.
#[must_use = "a session whose driver is dropped ends"]
pub(crate) struct Accepted {
    pub(crate) core: LeaseHandle,
    /// To be run, without an await before, since it writes the verdict; none if a task runs it.
    pub(crate) driver: Option<Driver>,
}

impl Inner {
    /// Opens a listener and accepts on it until the pool drains or closes.
    pub(crate) async fn listen(
        self: &Arc<Self>,
        address: SocketAddr,
    ) -> Result<SocketAddr, ListenError> {
        if !self.is_open() {
            return Err(ListenError::PoolClosed);
        }
        let failed = |source| ListenError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        lock(&self.listeners).push(local);
        let pool = self.clone();
        self.service.spawn(async move {
            tokio::select! {
                biased;
                () = pool.stop_accepting.cancelled() => {}
                () = pool.accept_on(listener) => {}
            }
            lock(&pool.listeners).retain(|a| *a != local);
        });
        Ok(local)
    }

    async fn accept_on(self: &Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, source)) => self.incoming(stream, source),
                Err(error) => {
                    // A connection that was reset before we took it, or no descriptors.
                    warn!(%error, "accepting failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// A connection from a stranger: turned away, or a handshake task.
    fn incoming(self: &Arc<Self>, stream: TcpStream, source: SocketAddr) {
        if !lock(&self.throttle).admit(source.ip(), Instant::now().into_std()) {
            self.counters.handshake_failures.source_limited.one();
            self.events.publish(|| PoolEvent::LimitHit { limit: Limit::SourceRate });
            return;
        }
        let Some(ticket) = self.enter_handshake() else { return };
        if let Err(error) = configure_tcp(&stream, self.settings.stall_timeout) {
            debug!(%error, "socket options refused");
        }
        let span = tracing::info_span!("accept", remote = %source, role = "responder");
        let pool = self.clone();
        let halt = ticket.halt().clone();
        let opening = async move {
            tokio::select! {
                biased;
                () = halt.was_cut() => None,
                driver = pool.welcome(stream, source, ticket) => driver,
            }
        };
        self.spawn_opening(opening.instrument(span));
    }

    /// A connection that has its place, up to a session or to none.
    async fn welcome(
        self: &Arc<Self>,
        stream: TcpStream,
        source: SocketAddr,
        ticket: Ticket,
    ) -> Option<Driver> {
        if let Some(hooks) = &self.hooks {
            let asked = hooks::ask(self.settings.hook_timeout, || hooks.admit(&source));
            let admitted = tokio::select! {
                biased;
                () = ticket.halt().aborted() => return None,
                admitted = asked => admitted,
            };
            if let Err(refusal) = admitted {
                self.hook_refused(refusal);
                if ticket.failed() {
                    self.counters.handshake_failures.not_admitted.one();
                }
                return None;
            }
        }
        let remote = Some(Address::from(source));
        // A failure is counted and told where it is decided.
        self.respond(Box::new(stream), remote, ticket, Runs::Acceptor).await.ok()?.driver
    }

    /// A place among the pending handshakes; counts and tells whom it cost theirs.
    pub(crate) fn enter_handshake(&self) -> Option<Ticket> {
        let entry = self.admission.enter();
        if entry.shed {
            self.counters.handshake_failures.shed.one();
            self.events.publish(|| PoolEvent::LimitHit { limit: Limit::PendingHandshakes });
        }
        entry.ticket
    }

    /// The responder's side of one connection, to its end.
    pub(crate) async fn respond(
        self: &Arc<Self>,
        stream: BoxedStream,
        remote: Option<Address>,
        ticket: Ticket,
        runs: Runs,
    ) -> Result<Accepted, NotAccepted> {
        let began = Instant::now();
        let handshake = tokio::select! {
            biased;
            () = ticket.halt().aborted() => return Err(self.not_heard_out()),
            done = self.native.respond(stream, || ticket.verified()) => done,
        };
        // Shed by another thread while this one came to its end: that was counted, and is all.
        let (proposed, ticket) = match handshake {
            Ok(proposed) => match ticket.authenticated() {
                Some(ticket) => (proposed, ticket),
                None => return Err(self.not_heard_out()),
            },
            Err(Failed { error, stream }) if ticket.failed() => {
                return Err(self.stranger_failed(error, stream, remote));
            }
            Err(_) => return Err(self.not_heard_out()),
        };
        let peer = proposed.peer;
        // Boxed, so that a stranger who never gets so far does not carry its state.
        let judged = Box::pin(self.judge(proposed, remote, began, ticket, runs)).await;
        judged.map_err(|reason| NotAccepted::Rejected(peer, reason))
    }

    /// Why a stranger was not heard out.
    fn not_heard_out(&self) -> NotAccepted {
        if self.is_open() { NotAccepted::Shed } else { NotAccepted::PoolClosed }
    }

    /// A handshake failed before the peer was authenticated: it learns nothing.
    fn stranger_failed(
        self: &Arc<Self>,
        error: HandshakeError,
        stream: Option<BoxedStream>,
        remote: Option<Address>,
    ) -> NotAccepted {
        self.counters.handshake_failures.count((&error).into());
        debug!(%error, "handshake failed");
        self.events.publish(|| PoolEvent::HandshakeFailed { remote, cause: (&error).into() });
        if let Some(stream) = stream {
            self.discard(stream);
        }
        NotAccepted::Handshake(error)
    }

    /// Reads and discards until a random deadline, then closes; at most `max_discarding` at once.
    fn discard(self: &Arc<Self>, mut stream: BoxedStream) {
        let Some(permit) = self.discarding.try_acquire() else {
            self.events.publish(|| PoolEvent::LimitHit { limit: Limit::Discarding });
            return;
        };
        let mut random = [0; 4];
        self.settings.entropy.fill(&mut random);
        let share = f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX);
        let spread = self.settings.handshake_timeout.saturating_sub(DISCARD_AT_LEAST);
        let until = Instant::now() + DISCARD_AT_LEAST + spread.mul_f64(share);
        let pool = self.clone();
        self.spawn(async move {
            let reading = async {
                let mut scrap = [0; 512];
                while matches!(stream.read(&mut scrap).await, Ok(n) if n > 0) {}
            };
            tokio::select! {
                biased;
                () = pool.stop_accepting.cancelled() => {}
                _ = timeout_at(until, reading) => {}
            }
            drop(permit);
        });
    }

    /// The checks, then the slot machine, as often as it parks the connection.
    pub(super) async fn judge(
        self: &Arc<Self>,
        proposed: Proposed,
        remote: Option<Address>,
        began: Instant,
        ticket: Ticket,
        runs: Runs,
    ) -> Result<Accepted, RejectReason> {
        let (peer, claim) = (proposed.peer, proposed.claim);
        if let Err(refusal) = self.check_proposed(self.proposed_picture(&proposed, &remote)).await {
            debug!(peer = %peer.short(), %refusal, "refused");
            return Err(self.reject(proposed, RejectReason::Refused, None, ticket));
        }
        let core = self.new_session(Newcomer {
            peer,
            origin: Origin::Inbound,
            address: remote.clone(),
            observed: String::new(),
            handshake_hash: proposed.handshake_hash,
            peer_max_message: proposed.peer_max_message,
            payload: proposed.application_payload.clone(),
            handshake_time: began.elapsed(),
        });
        let mut spare = None;
        let mut hearing = Hearing::First;
        let mut waiting: Option<Parked> = None;
        loop {
            // Until the session has its driver, a close has to wait for us, whoever runs us.
            let work = self.work.token();
            let decision = self.decide(&core, &claim, &mut spare, hearing);
            // Not before: the dial that parked us leaves its waiters to us.
            drop(waiting.take());
            match decision {
                Decision::Accept { stamp, row, displaced } => {
                    // No await from here on: what stands in the slot gets its driver. Counted before
                    // it runs: the peer may act on the verdict at once.
                    self.counters.handshakes_accepted.one();
                    self.count_inbound_row(row, hearing);
                    let verdict = Verdict::Accept {
                        stamp,
                        observed: remote.map(|a| a.to_string()).unwrap_or_default(),
                        payload: self.native.application_payload(),
                    };
                    self.forget_failures(&peer);
                    let driver = self.start(core.session(), proposed.established(), Some(verdict));
                    let driver = match runs {
                        Runs::Acceptor => Some(driver),
                        // Before a displaced session hears that it is: it would drain ahead of the
                        // verdict, and the peer take the two in that order.
                        Runs::Task => {
                            self.work.spawn(driver);
                            None
                        }
                    };
                    self.watch(core.session());
                    self.settle(displaced, &core);
                    return Ok(Accepted { core, driver });
                }
                Decision::Reject(reason) => {
                    let retry_after = match reason {
                        RejectReason::Draining => Some(RETRY_WHEN_DRAINING),
                        RejectReason::Duplicate => {
                            self.counters.inbound_rows.duplicate.one();
                            None
                        }
                        _ => None,
                    };
                    return Err(self.reject(proposed, reason, retry_after, ticket));
                }
                Decision::NeedsRoom => match self.room_for_newcomer() {
                    Ok(room) => spare = Some(room),
                    Err(limit) => {
                        self.events.publish(|| PoolEvent::LimitHit { limit });
                        let retry_after = Some(RETRY_WHEN_FULL);
                        return Err(self.reject(proposed, RejectReason::Full, retry_after, ticket));
                    }
                },
                Decision::Park(at) => {
                    if hearing == Hearing::First {
                        hearing = Hearing::AfterParking;
                        self.counters.parked.one();
                        self.counters.inbound_rows.committed_smaller.one();
                        self.counters.simultaneous_opens.one();
                    }
                    drop(work);
                    self.while_committed(waiting.insert(at).dial()).await;
                }
            }
        }
    }

    /// Our authorisation, ready check, and the peers that the application refuses for a time.
    async fn check_proposed(&self, candidate: hooks::Candidate) -> Result<(), Refusal> {
        if self.refused_by_application(&candidate.peer).is_some() {
            return Err(Refusal::Refused);
        }
        // The dialler waits for no longer than its `verdict_timeout`, which is likely to be ours.
        let max = self.settings.verdict_timeout.mul_f64(CHECKS_OF_VERDICT);
        Timer::default().timeout(max, pin!(self.check(&candidate))).await.unwrap_or_else(
            |Elapsed| {
                self.hook_refused(Refusal::TimedOut);
                Err(Refusal::TimedOut)
            },
        )
    }

    /// One look at the slot, under its lock; installs the session if the machine accepts it.
    fn decide(
        &self,
        core: &LeaseHandle,
        claim: &Claim,
        spare: &mut Option<Room>,
        hearing: Hearing,
    ) -> Decision {
        let session = core.session();
        let peer = session.peer();
        self.registry.with(&peer, |slot, open| {
            if open == Open::No {
                return Decision::Reject(RejectReason::Draining);
            }
            // Asked again each time: the application may have disconnected the peer while its
            // connection was parked.
            if self.refused_by_application(&peer).is_some() {
                return Decision::Reject(RejectReason::Refused);
            }
            let row = match slot.judge(claim, self.key_order(&peer), hearing) {
                InboundDecision::Accept(row) => row,
                InboundDecision::Reject(reason) => return Decision::Reject(reason),
                InboundDecision::Park => {
                    return match slot.view() {
                        View::Dialing { dial, .. } => Decision::Park(Parked::at(dial)),
                        _ => Decision::Reject(RejectReason::Simultaneous),
                    };
                }
            };
            // What stands in the slot passes its room on; only a newcomer needs its own.
            let Some(room) = room_of(slot).or_else(|| spare.take()) else {
                return Decision::NeedsRoom;
            };
            // Drawn under the lock, so that stamps follow the order of decisions.
            let stamp = self.next_stamp();
            let held = Held { core: UncountedRef::of(core), room: Some(room) };
            let displaced = slot.install_inbound(session.id(), *claim, held);
            Decision::Accept { stamp, row, displaced }
        })
    }

    /// Waits until our committed dial is decided one way or the other. The dial bounds the wait.
    async fn while_committed(&self, dial: &Arc<Dial>) {
        let settled = dial.settled.notified();
        let still = self.registry.read(&dial.peer, |slot| {
            matches!(
                slot.view(),
                View::Dialing { dial: now, phase: Phase::Committed, .. } if Arc::ptr_eq(now, dial)
            )
        });
        if still == Some(true) {
            settled.await;
        }
    }

    /// Counts the refusal, then tells the peer, in a task of its own: it ends when the peer closes,
    /// within a second. The connection keeps its place among the pending handshakes until then.
    fn reject(
        self: &Arc<Self>,
        proposed: Proposed,
        reason: RejectReason,
        retry_after: Option<Duration>,
        ticket: Ticket,
    ) -> RejectReason {
        let peer = proposed.peer;
        self.counters.rejected_by_us.count(reason);
        debug!(peer = %peer.short(), %reason, "rejected");
        self.events.publish(|| PoolEvent::Rejected { peer, reason, by: RejectedBy::Us });
        self.spawn(async move {
            proposed.reject(reason, retry_after).await;
            drop(ticket);
        });
        reason
    }

    fn count_inbound_row(&self, row: InboundCase, hearing: Hearing) {
        let rows = &self.counters.inbound_rows;
        match row {
            InboundCase::Vacant => rows.absent.one(),
            InboundCase::AbortsDial => rows.uncommitted.one(),
            InboundCase::SupersedesDial => rows.committed_larger.one(),
            InboundCase::RetiresSession => rows.superseding.one(),
        }
        // One that was parked was counted then.
        if hearing == Hearing::First
            && matches!(row, InboundCase::AbortsDial | InboundCase::SupersedesDial)
        {
            self.counters.simultaneous_opens.one();
        }
    }
}

impl Inner {
    /// What the application's checks see of a peer that dialled us.
    fn proposed_picture(&self, proposed: &Proposed, remote: &Option<Address>) -> hooks::Candidate {
        hooks::Candidate {
            peer: proposed.peer,
            address: remote.clone(),
            origin: Origin::Inbound,
            handshake_hash: proposed.handshake_hash,
            our_instance: self.native.instance(),
            peer_instance: proposed.claim.instance().unwrap_or_default(),
            peer_max_message: proposed.peer_max_message,
            application_payload: proposed.application_payload.clone(),
        }
    }
}

/// What one look at the slot decided.
enum Decision {
    Accept { stamp: u64, row: InboundCase, displaced: Displaced<Arc<Dial>, Held> },
    Park(Parked),
    Reject(RejectReason),
    NeedsRoom,
}
