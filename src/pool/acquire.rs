//! How a caller gets its lease: the live session's, or that of the one dial that all callers share.
//!
//! Owns the callers' side of a dial: joining, waiting, leaving. A caller that is dropped at any await
//! leaves nothing behind but, perhaps, a dial that others wait for or that is committed.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::base::config::{WhenFull, message_cost};
use crate::base::error::{AdoptError, CloseReason, DialError, Limit};
use crate::base::id::{AttemptId, PeerId};
use crate::base::io::{BoxedStream, Stream};
use crate::base::metrics::Waited;
use crate::base::sync::SetOnce;
use crate::pool::context::Context;
use crate::pool::dial::{Dial, DialSlot, Dialer, Fate, Opener, Settled, StreamSource};
use crate::pool::sessions::SessionTable;
use crate::pool::slots::Open;
use crate::pool::target::Target;
use crate::proto::slot::View;
use crate::session::{
    Availability, ExclusiveLease, Lease, LeaseCore, LeaseHandle, LeaseWaiter, Session, UncountedRef,
};

/// How often a caller goes back to the slot when the session that it was given ended before it had
/// its lease. Each time it met a session or a dial that was live, so more than a few mean that the
/// peer takes and drops sessions as fast as it can.
const MAX_ATTEMPTS: u32 = 3;

/// See the module.
pub(crate) struct Acquirer {
    ctx: Arc<Context>,
    sessions: Arc<SessionTable>,
    dialer: Arc<Dialer>,
}

/// Which memory of failures a dial heeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heed {
    /// All of it: the dial has a way of its own, and an earlier failure tells of that way.
    Failures,
    /// The application's refusal only: the stream is open already.
    Refusal,
}

/// What a caller finds in the slot.
pub(crate) enum Lookup {
    Session(LeaseHandle),
    Joined(DialWaiter),
    Begun(DialWaiter, DialSlot),
}

/// A caller's part in a dial, and if the caller has begun it, where the dial stands.
type Part = (DialWaiter, Option<DialSlot>);

/// A caller's place among the waiters for a dial, taken under the slot's lock.
pub(crate) struct DialWaiter {
    pub(crate) dial: Arc<Dial>,
    pub(crate) outcome: Arc<SetOnce<Settled>>,
}

impl DialWaiter {
    fn at(dial: Arc<Dial>) -> Self {
        let outcome = dial.outcome.subscribe();
        Self { dial, outcome }
    }
}

/// A caller's part in a dial: left on drop, unless the dial is over.
pub(crate) struct LeaveGuard<'a> {
    sessions: &'a SessionTable,
    peer: PeerId,
    attempt: AttemptId,
    over: bool,
}

impl Drop for LeaveGuard<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let dial = self.sessions.slots.with(&self.peer, |slot, _| slot.leave(self.attempt));
        if let Some(dial) = dial {
            dial.stop.abort();
            drop(dial.take_permit());
        }
        // The dial may have been settled just now, and this caller alone have kept its session.
        self.sessions.shared.note_idle();
    }
}

impl Acquirer {
    pub(crate) fn new(
        ctx: Arc<Context>,
        sessions: Arc<SessionTable>,
        dialer: Arc<Dialer>,
    ) -> Arc<Self> {
        Arc::new(Self { ctx, sessions, dialer })
    }

    // ---- leases --------------------------------------------------------------------------------

    /// A lease on a session to the target, dialled if need be, within the caller's own deadline.
    ///
    /// # Cancel safety
    /// Safe: dropped, the caller has left the dial.
    pub(crate) async fn lease(
        &self,
        target: Target,
        source: StreamSource,
    ) -> Result<Lease, DialError> {
        let mut source = Some(source);
        let work = async {
            for _ in 0..MAX_ATTEMPTS {
                let leases = self.leases_of(&target, &mut source).await?;
                let Some(lease) = self.limit_leases(leases).await? else { continue };
                if is_healthy(lease.session()).await {
                    return Ok(lease);
                }
            }
            Err(DialError::Superseded)
        };
        by_deadline(target.timeout, work).await
    }

    /// All leases of the target's session, within the caller's own deadline.
    ///
    /// # Cancel safety
    /// Safe: dropped, the caller has left the dial, or the line of those who wait for leases.
    pub(crate) async fn exclusive(
        &self,
        target: Target,
        source: StreamSource,
    ) -> Result<ExclusiveLease, DialError> {
        let mut source = Some(source);
        let work = async {
            for _ in 0..MAX_ATTEMPTS {
                let leases = self.leases_of(&target, &mut source).await?;
                if leases.session().availability() == Availability::Retired {
                    self.sessions.forget(leases.session());
                    continue;
                }
                let Some(counted) = self.count_leases(leases) else { continue };
                let Ok(lease) = ExclusiveLease::acquire(counted).await else { continue };
                if is_healthy(lease.session()).await {
                    return Ok(lease);
                }
            }
            Err(DialError::Superseded)
        };
        by_deadline(target.timeout, work).await
    }

    /// Takes a lease of a session in hand, in turn if its leases are limited and out. `None`: it has
    /// ended or is retired, and the slot must be asked again.
    async fn limit_leases(&self, leases: LeaseHandle) -> Result<Option<Lease>, DialError> {
        if leases.session().availability() == Availability::Retired {
            self.sessions.forget(leases.session());
            return Ok(None);
        }
        let leases = match Lease::try_from_core(leases) {
            Ok(lease) => return Ok(Some(lease)),
            Err(leases) => leases,
        };
        if self.ctx.settings.when_full == WhenFull::Fail {
            self.ctx.limit_hit(Limit::Leases);
            return Err(DialError::Limit(Limit::Leases));
        }
        let waiter = LeaseWaiter::of(&leases);
        // Waiting for a lease is not having one.
        drop(leases);
        let _waited = Waited::new(&self.ctx.counters);
        Ok(waiter.wait().await.ok())
    }

    /// Has the session's leases counted by permits, so that all of them can be waited for. `None`: the
    /// session is not in its slot any more.
    fn count_leases(&self, leases: LeaseHandle) -> Option<LeaseHandle> {
        if leases.has_permits() {
            return Some(leases);
        }
        let session = leases.session().clone();
        drop(leases);
        let replaced = self.sessions.slots.with(&session.peer(), |slot, _| {
            let pooled = slot.session_mut()?;
            if pooled.session().id() != session.id() {
                return None;
            }
            if pooled.leases.has_permits() {
                return Some((LeaseHandle::clone(&pooled.leases), None));
            }
            let counted = LeaseCore::new(session.clone(), Some(NonZeroU32::MAX));
            let old = std::mem::replace(&mut pooled.leases, UncountedRef::of(&counted));
            Some((counted, Some(old)))
        });
        // What was replaced ends with its last lease; this was the slot's reference to it.
        replaced.map(|(counted, _old)| counted)
    }

    // ---- the slot and its dial -----------------------------------------------------------------

    /// The session of the target's slot, dialled if need be.
    async fn leases_of(
        &self,
        target: &Target,
        source: &mut Option<StreamSource>,
    ) -> Result<LeaseHandle, DialError> {
        let (waiter, slot) = match self.take_part(target)? {
            Ok(dial) => dial,
            Err(leases) => {
                self.ctx.counters.hits.one();
                return Ok(leases);
            }
        };
        if let Some(slot) = slot {
            // A stream that was used up in an earlier attempt is left to the connector.
            let source =
                source.take().unwrap_or_else(|| StreamSource::Connector(target.connector_data()));
            self.dialer.spawn(waiter.dial.clone(), source, slot);
        }
        self.wait_for(waiter).await
    }

    /// Looks at the slot, joins its dial, or begins one.
    pub(crate) fn enter(&self, target: &Target, heed: Heed) -> Result<Lookup, DialError> {
        if target.peer == self.ctx.peer {
            return Err(DialError::OwnIdentity);
        }
        let failures = &self.sessions.failures;
        let found = self.sessions.slots.with(&target.peer, |slot, open| {
            if open == Open::No {
                return Err(DialError::PoolClosed);
            }
            if let View::Ready { session, .. } = slot.view() {
                return Ok(Lookup::Session(LeaseHandle::clone(&session.leases)));
            }
            if let Some(dial) = slot.join() {
                return Ok(Lookup::Joined(DialWaiter::at(dial)));
            }
            // Under the slot's lock, so that a failure noted before the slot was freed is seen.
            let too_early = match heed {
                Heed::Failures => failures.backing_off(&target.peer, target.addresses()),
                Heed::Refusal => failures.refused_by_application(&target.peer),
            };
            if let Some(error) = too_early {
                return Err(error);
            }
            let Some(dial_slot) = self.dialer.try_slot() else {
                return Err(DialError::Limit(Limit::QueuedDials));
            };
            let attempt = AttemptId::next();
            let dial = Arc::new(Dial::new(attempt, target.peer, target.addresses()));
            slot.dial(attempt, dial.clone());
            Ok(Lookup::Begun(DialWaiter::at(dial), dial_slot))
        });
        match &found {
            Err(DialError::Limit(limit)) => self.ctx.limit_hit(*limit),
            Err(DialError::Backoff { .. }) => self.ctx.counters.backoffs.one(),
            _ => {}
        }
        found
    }

    /// A caller's part in the target's dial, which is to be run if it has a place for that; or the
    /// session that is there.
    fn take_part(&self, target: &Target) -> Result<Result<Part, LeaseHandle>, DialError> {
        let lookup = self.enter(target, Heed::Failures)?;
        let counters = &self.ctx.counters;
        if !matches!(lookup, Lookup::Session(_)) {
            counters.misses.one();
        }
        Ok(match lookup {
            Lookup::Session(leases) => Err(leases),
            Lookup::Joined(waiter) => {
                counters.dials_shared.one();
                waiter.dial.add_addresses(target.addresses());
                Ok((waiter, None))
            }
            Lookup::Begun(waiter, slot) => Ok((waiter, Some(slot))),
        })
    }

    /// Whether a message of this length may travel with a dial.
    pub(crate) fn may_travel(&self, length: usize) -> bool {
        let max = self.sessions.abilities.max_first;
        length <= self.ctx.settings.max_message_size && message_cost(length) <= max
    }

    /// Has a message travel with the dial of the target, if one is to be begun or has not been committed:
    /// it arrives a round trip and more before one that waits for the session.
    ///
    /// # Errors
    /// The dial failed, or the caller's deadline passed. The message was not sent.
    ///
    /// # Cancel safety
    /// Safe: dropped, the caller has left the dial. The message may have left.
    pub(crate) async fn send_with_dial(
        &self,
        target: &Target,
        message: &Bytes,
    ) -> Result<Fate, DialError> {
        let (waiter, slot) = match self.take_part(target)? {
            Ok(dial) => dial,
            Err(leases) => {
                self.sessions.release(leases);
                return Ok(Fate::Unsent);
            }
        };
        let dial = waiter.dial.clone();
        let offered = dial.first.offer(message, self.sessions.abilities.max_first);
        if let Some(slot) = slot {
            let source = StreamSource::Connector(target.connector_data());
            self.dialer.spawn(dial, source, slot);
        }
        let outcome = by_deadline(target.timeout, async {
            let leases = self.wait_for(waiter).await?;
            self.sessions.release(leases);
            // Another session may have served the dial, whose own verdict is awaited still.
            Ok(match &offered {
                Some(offered) => offered.fate().await,
                None => Fate::Unsent,
            })
        });
        let error = match outcome.await {
            Ok(fate) => return Ok(fate),
            Err(error) => error,
        };
        // The caller waits no longer: what is under way may arrive.
        match offered.map(|offered| offered.take_back()) {
            None | Some(Some(Fate::Unsent)) => Err(error),
            Some(fate) => Ok(fate.unwrap_or(Fate::Unknown)),
        }
    }

    /// Waits for the dial's outcome. Cancel safe: dropped, the caller has left the dial.
    async fn wait_for(&self, waiter: DialWaiter) -> Settled {
        let mut guard = self.leave_guard(&waiter.dial);
        // Declared after the guard, so that it goes before: it may be all that keeps the session.
        let outcome = waiter.outcome;
        let settled = outcome.wait().await.clone();
        guard.over = true;
        settled
    }

    /// Leaves a dial without having waited for it.
    pub(crate) fn leave(&self, DialWaiter { dial, outcome }: DialWaiter) {
        let guard = self.leave_guard(&dial);
        // Before the guard goes, as where a caller waits: it may be all that keeps the session.
        drop(outcome);
        drop(guard);
    }

    pub(crate) fn leave_guard(&self, dial: &Dial) -> LeaveGuard<'_> {
        LeaveGuard { sessions: &self.sessions, peer: dial.peer, attempt: dial.attempt, over: false }
    }

    // ---- streams that the caller brought -------------------------------------------------------

    /// A dial over a stream that the caller brought; the stream comes back when it is not needed.
    ///
    /// # Errors
    /// See [`AdoptError`].
    pub(crate) async fn adopt<S: Stream>(
        &self,
        stream: S,
        peer: PeerId,
    ) -> Result<Lease, AdoptError<S>> {
        let waiter = match self.enter(&Target::new(peer), Heed::Refusal) {
            Ok(Lookup::Begun(waiter, slot)) => {
                let opener: Opener = Box::new(move || {
                    Box::pin(std::future::ready(Ok(Box::new(stream) as BoxedStream)))
                });
                let source = StreamSource::Opener(opener, None);
                self.dialer.spawn(waiter.dial.clone(), source, slot);
                waiter
            }
            Ok(Lookup::Joined(waiter)) => {
                self.leave(waiter);
                return Err(AdoptError::Exists { peer, stream });
            }
            Ok(Lookup::Session(leases)) => {
                self.sessions.release(leases);
                return Err(AdoptError::Exists { peer, stream });
            }
            Err(error) => return Err(AdoptError::Dial(error)),
        };
        let leases = self.wait_for(waiter).await.map_err(AdoptError::Dial)?;
        self.adopted(leases).await.map_err(AdoptError::Dial)
    }

    /// The lease of the caller that brought the stream of this session: on it, or on the session that
    /// has replaced it meanwhile. It never dials.
    pub(crate) async fn adopted(&self, leases: LeaseHandle) -> Result<Lease, DialError> {
        let session = leases.session().clone();
        let lease = self.limit_leases(leases).await?;
        let why = || session.retired().unwrap_or(CloseReason::PoolClosed);
        lease
            .or_else(|| self.sessions.hit(&session.peer()))
            .ok_or_else(|| DialError::SessionEnded(why()))
    }
}

/// Whether a session that was just leased may be handed out, after a probe if it needs one.
async fn is_healthy(session: &Session) -> bool {
    match session.availability() {
        Availability::Ready => true,
        Availability::NeedsProbe => session.probe().await.is_ok(),
        Availability::Retired => false,
    }
}

/// Waits for `work` until the caller's own deadline, if it has one.
async fn by_deadline<T>(
    limit: Option<Duration>,
    work: impl Future<Output = Result<T, DialError>>,
) -> Result<T, DialError> {
    match limit {
        Some(limit) => timeout(limit, work).await.unwrap_or(Err(DialError::Deadline)),
        None => work.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::sync::Mutex;
    use std::task::{Context, Wake};

    use futures_util::FutureExt as _;

    use crate::{Identity, Pool, Role};

    /// A waker that counts at once how many leases the session has when it falls idle.
    struct Observer(Arc<Session>, Mutex<Option<u32>>);

    impl Wake for Observer {
        fn wake(self: Arc<Self>) {
            *self.1.lock().unwrap() = Some(self.0.leases_out());
        }
    }

    #[tokio::test]
    async fn a_caller_that_wants_room_hears_when_those_that_brought_a_stream_have_let_go() {
        let [(ours, _inbox), (theirs, _other)] =
            [1, 2].map(|n| Pool::builder(Identity::from_secret([n; 32])).build().unwrap());
        let (near, far) = tokio::io::duplex(1 << 16);
        let target = Target::new(theirs.id());
        let acquirer = &ours.state().acquirer;
        let shared = &acquirer.sessions.shared;

        // One brings a stream, and another finds that the peer is being dialled.
        let dials = ours.adopt(near, Role::Initiator { peer: theirs.id() });
        let mut dials = pin!(dials);
        assert!(dials.as_mut().now_or_never().is_none());
        let Ok(Lookup::Joined(waiter)) = acquirer.enter(&target, Heed::Refusal) else {
            panic!("the dial is in its slot");
        };
        // Before it can let go, the dial has its session.
        let (lease, _theirs) = tokio::join!(dials, theirs.adopt(far, Role::Responder));
        let session = lease.unwrap().session().clone();
        assert_eq!(session.leases_out(), 1);

        let _wanted = shared.want_idle();
        let mut fell_idle = pin!(shared.fell_idle());
        let observer = Arc::new(Observer(session, Mutex::default()));
        let waker = observer.clone().into();
        assert!(fell_idle.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        acquirer.leave(waiter);
        assert_eq!(*observer.1.lock().unwrap(), Some(0));
    }
}
