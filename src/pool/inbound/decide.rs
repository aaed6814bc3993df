//! What becomes of an inbound connection whose peer has authenticated.
//!
//! Owns the way from message 3 to the verdict: our checks, the decision of the slot machine, and what
//! follows from it. A session is built only when the machine has accepted its connection.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use crate::base::address::Address;
use crate::base::error::RejectedBy;
use crate::base::error::{Limit, Refusal, RejectReason};
use crate::base::event::PoolEvent;
use crate::base::id::Origin;
use crate::base::timer::Timer;
use crate::pool::checks::Checks;
use crate::pool::context::Context;
use crate::pool::dial::{Dial, Parked};
use crate::pool::hooks::Candidate;
use crate::pool::lifecycle::Lifecycle;
use crate::pool::limits::{Capacity, Reserved, with_permit};
use crate::pool::pooled::{PooledSession, permit_of};
use crate::pool::sessions::{NewSession, SessionTable};
use crate::pool::slots::Open;
use crate::proto::slot::{Displaced, Hearing, InboundCase, InboundDecision, Phase, View};
use crate::session::{Driver, LeaseHandle, SessionSpec};
use crate::transport::seam::{Acceptance, Proposal, Proposed as _, Transport as _};
use crate::transport::{AnyProposed, AnyTransport};

use super::pending::HandshakePermit;

/// The share of `verdict_timeout` that our checks of an inbound peer may take together: the rest is
/// for the verdict's way back.
const CHECKS_OF_VERDICT: f64 = 0.75;

/// How long we ask a peer that meets a full pool to wait. Room comes when sessions fall idle or end.
const RETRY_WHEN_FULL: Duration = Duration::from_secs(10);

/// How long we ask a peer that meets a pool that shuts down to wait: the time of a restart.
const RETRY_WHEN_DRAINING: Duration = Duration::from_secs(5);

/// What all decisions of a pool use.
pub(crate) struct DecisionParts {
    pub(crate) ctx: Arc<Context>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) checks: Arc<Checks>,
    pub(crate) sessions: Arc<SessionTable>,
    pub(crate) capacity: Arc<Capacity>,
    pub(crate) transport: AnyTransport,
}

/// Which task runs the driver of a session that is accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DriverTask {
    /// The task that accepted it, which is the pool's.
    Acceptor,
    /// A task of its own: the future that accepted it is the application's.
    Own,
}

/// A session that was accepted and is in its slot.
#[must_use = "a session whose driver is dropped ends"]
pub(crate) struct AcceptedSession {
    pub(crate) leases: LeaseHandle,
    /// To be run, without an await before, since it writes the verdict; none if a task runs it.
    pub(crate) driver: Option<Driver>,
}

/// The decision about one connection.
pub(crate) struct Decider {
    parts: Arc<DecisionParts>,
    remote: Option<Address>,
    began: Instant,
    permit: HandshakePermit,
    task: DriverTask,
}

impl Decider {
    pub(crate) fn new(
        parts: Arc<DecisionParts>,
        remote: Option<Address>,
        began: Instant,
        permit: HandshakePermit,
        task: DriverTask,
    ) -> Self {
        Self { parts, remote, began, permit, task }
    }

    /// Runs the checks, then asks the slot machine, as often as it parks the connection.
    ///
    /// # Errors
    /// What the peer was told.
    pub(crate) async fn decide(
        self,
        proposed: AnyProposed,
    ) -> Result<AcceptedSession, RejectReason> {
        let peer = proposed.proposal().peer;
        if let Err(refusal) = self.check(proposed.proposal()).await {
            debug!(peer = %peer.short(), %refusal, "refused");
            return Err(self.reject(proposed, RejectReason::Refused, None));
        }
        let spec = self.spec(proposed.proposal());
        let mut parked: Option<Parked> = None;
        loop {
            // Until the session has its driver, a close has to wait for us.
            let work = self.parts.lifecycle.work_token();
            let hearing = if parked.is_some() { Hearing::AfterParking } else { Hearing::First };
            let decision = self.ask_slot(proposed.proposal(), &spec, hearing);
            // Not before: the dial that parked us leaves its waiters to us.
            drop(parked.take());
            match decision {
                Decision::Accept(accept) => return Ok(self.accept(proposed, *accept, hearing)),
                Decision::Reject(reason) => {
                    let retry_after = match reason {
                        RejectReason::Draining => Some(RETRY_WHEN_DRAINING),
                        RejectReason::Full => Some(RETRY_WHEN_FULL),
                        RejectReason::Duplicate => {
                            self.parts.ctx.counters.inbound_rows.duplicate.one();
                            None
                        }
                        _ => None,
                    };
                    return Err(self.reject(proposed, reason, retry_after));
                }
                Decision::Park(at) => {
                    if hearing == Hearing::First {
                        let counters = &self.parts.ctx.counters;
                        counters.parked.one();
                        counters.inbound_rows.committed_smaller.one();
                        counters.simultaneous_opens.one();
                    }
                    drop(work);
                    self.while_committed(parked.insert(at).dial()).await;
                }
            }
        }
    }

    /// Our authorisation, ready check, and the peers that the application refuses for a time.
    async fn check(&self, proposal: &Proposal) -> Result<(), Refusal> {
        let parts = &self.parts;
        if parts.sessions.failures.refused_by_application(&proposal.peer).is_some() {
            return Err(Refusal::Refused);
        }
        let candidate = Candidate {
            peer: proposal.peer,
            address: self.remote.clone(),
            origin: Origin::Inbound,
            handshake_hash: proposal.handshake_hash,
            our_instance: parts.transport.instance(),
            peer_instance: proposal.instance,
            peer_max_message: proposal.max_message,
            application_payload: proposal.application_payload.clone(),
        };
        // The dialler waits for no longer than its `verdict_timeout`, which is likely to be ours.
        let limit = parts.ctx.settings.verdict_timeout.mul_f64(CHECKS_OF_VERDICT);
        let checking = pin!(parts.checks.candidate(&candidate));
        Timer::default().timeout(limit, checking).await.unwrap_or_else(|_elapsed| {
            parts.checks.refused(Refusal::TimedOut);
            Err(Refusal::TimedOut)
        })
    }

    fn spec(&self, proposal: &Proposal) -> SessionSpec {
        self.parts.sessions.spec(NewSession {
            peer: proposal.peer,
            origin: Origin::Inbound,
            address: self.remote.clone(),
            observed: String::new(),
            handshake_hash: proposal.handshake_hash,
            peer_max_message: proposal.max_message,
            payload: proposal.application_payload.clone(),
            handshake_time: self.began.elapsed(),
            first_messages: 0,
        })
    }

    /// Has the slot machine decide, under the slot's lock; the session is installed if it accepts.
    fn ask_slot(&self, proposal: &Proposal, spec: &SessionSpec, hearing: Hearing) -> Decision {
        let (sessions, peer, claim) = (&self.parts.sessions, proposal.peer, proposal.claim);
        let decide = |spare: &mut Option<_>| {
            sessions.slots.with(&peer, |slot, open| {
                if open == Open::No {
                    return Reserved::Decided(Decision::Reject(RejectReason::Draining));
                }
                // Asked again each time: the application may have disconnected the peer while its
                // connection was parked.
                if sessions.failures.refused_by_application(&peer).is_some() {
                    return Reserved::Decided(Decision::Reject(RejectReason::Refused));
                }
                let case = match slot.judge(&claim, sessions.key_order(&peer), hearing) {
                    InboundDecision::Accept(case) => case,
                    InboundDecision::Reject(reason) => {
                        return Reserved::Decided(Decision::Reject(reason));
                    }
                    InboundDecision::Park => {
                        return Reserved::Decided(match slot.view() {
                            View::Dialing { dial, .. } => Decision::Park(Parked::at(dial)),
                            _ => Decision::Reject(RejectReason::Simultaneous),
                        });
                    }
                };
                // What stands in the slot passes its permit on; only a newcomer needs its own.
                let Some(permit) = permit_of(slot).or_else(|| spare.take()) else {
                    return Reserved::NeedsPermit;
                };
                // Drawn under the lock, so that stamps follow the order of decisions.
                let stamp = sessions.next_stamp();
                let (leases, pooled) = sessions.build_pooled(spec.clone(), permit, slot.session());
                let displaced = slot.install_inbound(leases.session().id(), claim, pooled);
                let accept = Accept { stamp, case, leases, displaced };
                Reserved::Decided(Decision::Accept(Box::new(accept)))
            })
        };
        let decision = with_permit(decide, || self.parts.capacity.for_newcomer());
        decision.unwrap_or_else(|limit: Limit| {
            self.parts.ctx.limit_hit(limit);
            Decision::Reject(RejectReason::Full)
        })
    }

    /// Opens the session that stands in the slot now. No await from here on: what stands in the slot
    /// gets its driver.
    fn accept(self, proposed: AnyProposed, accept: Accept, hearing: Hearing) -> AcceptedSession {
        let Accept { stamp, case, leases, displaced } = accept;
        let sessions = &self.parts.sessions;
        // Before the driver runs: the peer may act on the verdict at once.
        self.parts.ctx.counters.handshakes_accepted.one();
        self.count_accepted(case, hearing);
        let observed = self.remote.as_ref().map(Address::to_string).unwrap_or_default();
        let established = proposed.accept(Acceptance { stamp, observed });
        let driver = sessions.start(leases.session(), established);
        let driver = match self.task {
            DriverTask::Acceptor => Some(driver),
            // Before a displaced session hears that it is: it would drain ahead of the verdict, and
            // the peer take the two in that order.
            DriverTask::Own => {
                self.parts.lifecycle.spawn_session(driver);
                None
            }
        };
        sessions.installed(&leases, displaced);
        AcceptedSession { leases, driver }
    }

    /// Counts the refusal, then tells the peer, in a task of its own: it ends when the peer closes,
    /// within a second. The connection keeps its place among the pending handshakes until then.
    fn reject(
        self,
        proposed: AnyProposed,
        reason: RejectReason,
        retry_after: Option<Duration>,
    ) -> RejectReason {
        let Self { parts, permit, .. } = self;
        let peer = proposed.proposal().peer;
        parts.ctx.counters.rejected_by_us.count(reason);
        debug!(peer = %peer.short(), %reason, "rejected");
        parts.ctx.events.publish(|| PoolEvent::Rejected { peer, reason, by: RejectedBy::Us });
        parts.lifecycle.spawn(async move {
            proposed.reject(reason, retry_after).await;
            drop(permit);
        });
        reason
    }

    /// Waits until our committed dial is decided one way or the other. The dial bounds the wait.
    async fn while_committed(&self, dial: &Arc<Dial>) {
        let uncommitted = dial.uncommitted.notified();
        let still = self.parts.sessions.slots.read(&dial.peer, |slot| {
            matches!(
                slot.view(),
                View::Dialing { dial: now, phase: Phase::Committed, .. } if Arc::ptr_eq(now, dial)
            )
        });
        if still == Some(true) {
            uncommitted.await;
        }
    }

    fn count_accepted(&self, case: InboundCase, hearing: Hearing) {
        let counters = &self.parts.ctx.counters;
        let cases = &counters.inbound_rows;
        match case {
            InboundCase::Vacant => cases.absent.one(),
            InboundCase::AbortsDial => cases.uncommitted.one(),
            InboundCase::SupersedesDial => cases.committed_larger.one(),
            InboundCase::RetiresSession => cases.superseding.one(),
        }
        // One that was parked was counted then.
        let meets_dial = matches!(case, InboundCase::AbortsDial | InboundCase::SupersedesDial);
        if hearing == Hearing::First && meets_dial {
            counters.simultaneous_opens.one();
        }
    }
}

/// What one look at the slot decided.
enum Decision {
    Accept(Box<Accept>),
    Park(Parked),
    Reject(RejectReason),
}

/// A session that stands in its slot, and what it displaced there.
struct Accept {
    stamp: u64,
    case: InboundCase,
    leases: LeaseHandle,
    displaced: Displaced<Arc<Dial>, PooledSession>,
}
