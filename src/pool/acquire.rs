//! From a caller's target to a lease: the live session's, or that of the one dial all callers share.
//!
//! Owns the callers' side of a dial: joining, waiting, leaving. A caller that is dropped at any await
//! leaves nothing behind but, perhaps, a dial that others wait for or that is committed.

use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::time::timeout;

use crate::base::config::WhenFull;
use crate::base::error::{AdoptError, CloseReason, DialError, Limit};
use crate::base::event::PoolEvent;
use crate::base::id::{AttemptId, PeerId};
use crate::base::io::{BoxedStream, Stream};
use crate::base::metrics::Waited;
use crate::pool::dial::outcome::Settled;
use crate::pool::dial::set_once::SetOnce;
use crate::pool::dial::task::{Dial, DialSlot, Opener, Source};
use crate::pool::slots::Open;
use crate::pool::state::PoolState;
use crate::pool::target::Target;
use crate::proto::slot::View;
use crate::session::{
    Availability, ExclusiveLease, Lease, LeaseCore, LeaseHandle, LeaseWaiter, Session, UncountedRef,
};

/// How often a caller goes back to the slot when the session that it was given ended before it had
/// its lease. Each round met a session or a dial that was live, so more than a few mean that the
/// peer takes and drops sessions as fast as it can.
const ROUNDS: u32 = 3;

/// How a dial would reach the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamSource {
    /// At an address, or by the caller's opener: a failure a short while ago tells of it.
    Dialled,
    /// Over a stream that is open already: only the application's refusal counts.
    Brought,
}

/// What a caller finds in the slot.
pub(crate) enum Lookup {
    Session(LeaseHandle),
    Joined(DialWaiter),
    Begun(DialWaiter, DialSlot),
}

/// A caller's place among those who wait for a dial, as it was had under the slot's lock.
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
pub(crate) struct Waiter<'a> {
    pool: &'a PoolState,
    peer: PeerId,
    attempt: AttemptId,
    over: bool,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let dial = self.pool.registry.with(&self.peer, |slot, _| slot.leave(self.attempt));
        if let Some(dial) = dial {
            dial.halt.abort();
            drop(dial.take_room());
        }
        // The dial may have been settled just now, and nobody else have a share of its session.
        self.pool.session_shared.note_idle();
    }
}

impl PoolState {
    /// A lease on the live session, if there is one and a permit is free. Takes no slot's lock.
    #[inline]
    pub(crate) fn hit(&self, peer: &PeerId) -> Option<Lease> {
        self.registry.session(peer, |kept| Lease::try_checkout(kept))
    }

    /// As [`PoolState::hit`], for a session that needs no probe.
    #[inline]
    pub(crate) fn sound_hit(&self, peer: &PeerId) -> Option<Lease> {
        let lease = self.hit(peer).filter(|lease| lease.availability() == Availability::Ready)?;
        self.counters.hits.one();
        Some(lease)
    }

    /// A lease on a session to the target, dialled if need be, within the caller's own deadline.
    pub(crate) async fn obtain(
        self: &Arc<Self>,
        target: Target,
        source: Source,
    ) -> Result<Lease, DialError> {
        let work = self.obtain_patiently(&target, source);
        match target.timeout {
            Some(max) => timeout(max, work).await.unwrap_or(Err(DialError::Deadline)),
            None => work.await,
        }
    }

    async fn obtain_patiently(
        self: &Arc<Self>,
        target: &Target,
        source: Source,
    ) -> Result<Lease, DialError> {
        let mut source = Some(source);
        for _ in 0..ROUNDS {
            let core = self.session_core(target, &mut source).await?;
            let Some(lease) = self.take_turn_on(core).await? else { continue };
            if is_sound(lease.session()).await {
                return Ok(lease);
            }
        }
        Err(DialError::Superseded)
    }

    /// The session of the target's slot, dialled if need be.
    async fn session_core(
        self: &Arc<Self>,
        target: &Target,
        source: &mut Option<Source>,
    ) -> Result<LeaseHandle, DialError> {
        let seat = match self.enter(target, StreamSource::Dialled)? {
            Lookup::Session(core) => {
                self.counters.hits.one();
                return Ok(core);
            }
            Lookup::Joined(seat) => {
                self.counters.misses.one();
                self.counters.dials_shared.one();
                seat.dial.add_addresses(target.addresses());
                seat
            }
            Lookup::Begun(seat, place) => {
                self.counters.misses.one();
                // A caller whose stream was used up in an earlier round leaves it to the connector.
                let source = source.take().unwrap_or_else(|| Source::of(target));
                self.spawn_dial(seat.dial.clone(), source, place);
                seat
            }
        };
        self.wait_for(seat).await
    }

    /// Waits for what the dial comes to. Cancel safe: dropped, the caller has left the dial.
    async fn wait_for(&self, seat: DialWaiter) -> Settled {
        let mut waiter = self.waiter(&seat.dial);
        // Declared after the waiter, so that it goes before: it may be the last share of a session.
        let outcome = seat.outcome;
        let settled = outcome.wait().await;
        waiter.over = true;
        settled
    }

    /// Gives a place up.
    fn leave(&self, DialWaiter { dial, outcome }: DialWaiter) {
        let waiter = self.waiter(&dial);
        // Before the waiter goes, as where one waits: it may be the last share of a session.
        drop(outcome);
        drop(waiter);
    }

    pub(crate) fn waiter(&self, dial: &Dial) -> Waiter<'_> {
        Waiter { pool: self, peer: dial.peer, attempt: dial.attempt, over: false }
    }

    /// Looks at the slot, joins its dial, or begins one.
    pub(crate) fn enter(&self, target: &Target, way: StreamSource) -> Result<Lookup, DialError> {
        if target.peer == self.peer {
            return Err(DialError::OwnIdentity);
        }
        let found = self.registry.with(&target.peer, |slot, open| {
            if open == Open::No {
                return Err(DialError::PoolClosed);
            }
            if let View::Ready { session, .. } = slot.view() {
                return Ok(Lookup::Session(LeaseHandle::clone(&session.core)));
            }
            if let Some(dial) = slot.join() {
                return Ok(Lookup::Joined(DialWaiter::at(dial)));
            }
            // Under the shard's lock, so that a failure noted before the slot was freed is seen.
            let too_early = match way {
                StreamSource::Dialled => self.backing_off(target),
                StreamSource::Brought => self.refused_by_application(&target.peer),
            };
            if let Some(error) = too_early {
                return Err(error);
            }
            // The queue is for those who find no turn.
            let turn = self.dialling.try_acquire().map(DialSlot::Turn);
            let Some(place) = turn.or_else(|| self.queued.try_acquire().map(DialSlot::Queue))
            else {
                return Err(DialError::Limit(Limit::QueuedDials));
            };
            let attempt = AttemptId::next();
            let dial = Arc::new(Dial::new(attempt, target.peer, target.addresses()));
            slot.dial(attempt, dial.clone());
            Ok(Lookup::Begun(DialWaiter::at(dial), place))
        });
        match &found {
            Err(DialError::Limit(limit)) => {
                self.events.publish(|| PoolEvent::LimitHit { limit: *limit });
            }
            Err(DialError::Backoff { .. }) => self.counters.backoffs.one(),
            _ => {}
        }
        found
    }

    /// A lease on a session in hand, in turn if its permits are out. `None`: it has ended or is
    /// retired, and the slot must be asked again.
    async fn take_turn_on(&self, core: LeaseHandle) -> Result<Option<Lease>, DialError> {
        if core.session().availability() == Availability::Retired {
            self.forget(&core);
            return Ok(None);
        }
        let core = match Lease::try_from_core(core) {
            Ok(lease) => return Ok(Some(lease)),
            Err(core) => core,
        };
        if self.settings.when_full == WhenFull::Fail {
            self.events.publish(|| PoolEvent::LimitHit { limit: Limit::Leases });
            return Err(DialError::Limit(Limit::Leases));
        }
        let turn = LeaseWaiter::of(&core);
        // Waiting for a lease is not having one.
        drop(core);
        let _waited = Waited::new(&self.counters);
        Ok(turn.wait().await.ok())
    }

    /// Takes a session that is ending out of its slot before its driver does.
    fn forget(&self, core: &LeaseHandle) {
        let session = core.session();
        if let (Some(held), Some(why)) = (self.take(session), session.retired()) {
            self.retire_held(held, why);
        }
    }

    /// Puts a lease core with permits in the slot, so that all leases can be waited for. `None`: the
    /// session is not there any more.
    fn gate(&self, core: LeaseHandle) -> Option<LeaseHandle> {
        if core.has_permits() {
            return Some(core);
        }
        let session = core.session().clone();
        drop(core);
        let replaced = self.registry.with(&session.peer(), |slot, _| {
            let held = slot.session_mut()?;
            if held.core.session().id() != session.id() {
                return None;
            }
            if held.core.has_permits() {
                return Some((LeaseHandle::clone(&held.core), None));
            }
            let gated = LeaseCore::new(session.clone(), Some(NonZeroU32::MAX));
            let old = std::mem::replace(&mut held.core, UncountedRef::of(&gated));
            Some((gated, Some(old)))
        });
        // The old core goes when its last lease returns; this was the slot's share of it.
        replaced.map(|(gated, _old)| gated)
    }

    /// All leases of the target's session.
    pub(crate) async fn obtain_exclusive(
        self: &Arc<Self>,
        target: Target,
        source: Source,
    ) -> Result<ExclusiveLease, DialError> {
        let work = async {
            let mut source = Some(source);
            for _ in 0..ROUNDS {
                let core = self.session_core(&target, &mut source).await?;
                if core.session().availability() == Availability::Retired {
                    self.forget(&core);
                    continue;
                }
                let Some(gated) = self.gate(core) else { continue };
                let Ok(lease) = ExclusiveLease::acquire(gated).await else { continue };
                if is_sound(lease.session()).await {
                    return Ok(lease);
                }
            }
            Err(DialError::Superseded)
        };
        match target.timeout {
            Some(max) => timeout(max, work).await.unwrap_or(Err(DialError::Deadline)),
            None => work.await,
        }
    }
}

impl PoolState {
    /// A dial over a stream that the caller brought; the stream comes back when it is not needed.
    pub(crate) async fn adopt_as_initiator<S: Stream>(
        self: &Arc<Self>,
        stream: S,
        peer: PeerId,
    ) -> Result<Lease, AdoptError<S>> {
        let target = Target::new(peer);
        let seat = match self.enter(&target, StreamSource::Brought) {
            Ok(Lookup::Begun(seat, place)) => {
                let opener: Opener = Box::new(move || {
                    Box::pin(std::future::ready(Ok(Box::new(stream) as BoxedStream)))
                });
                self.spawn_dial(seat.dial.clone(), Source::Opener(opener, None), place);
                seat
            }
            Ok(Lookup::Joined(seat)) => {
                self.leave(seat);
                return Err(AdoptError::Exists { peer, stream });
            }
            Ok(Lookup::Session(_)) => return Err(AdoptError::Exists { peer, stream }),
            Err(error) => return Err(AdoptError::Dial(error)),
        };
        let core = self.wait_for(seat).await.map_err(AdoptError::Dial)?;
        self.adopted(core).await.map_err(AdoptError::Dial)
    }

    /// The lease of whoever brought the stream of this session: on it, or on the session that has
    /// replaced it meanwhile. It never dials.
    pub(crate) async fn adopted(&self, core: LeaseHandle) -> Result<Lease, DialError> {
        let session = core.session().clone();
        let lease = self.take_turn_on(core).await?;
        let why = || session.retired().unwrap_or(CloseReason::PoolClosed);
        lease.or_else(|| self.hit(&session.peer())).ok_or_else(|| DialError::SessionEnded(why()))
    }
}

/// Whether a session that was just leased may be handed out, after a probe if it needs one.
async fn is_sound(session: &Session) -> bool {
    match session.availability() {
        Availability::Ready => true,
        Availability::NeedsProbe => session.probe().await.is_ok(),
        Availability::Retired => false,
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

    /// Somebody who is told when a session falls idle, and looks at once for how many use it.
    struct Told(Arc<Session>, Mutex<Option<u32>>);

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            *self.1.lock().unwrap() = Some(self.0.leases_out());
        }
    }

    #[tokio::test]
    async fn who_wants_room_is_told_when_those_who_brought_a_stream_have_let_go() {
        let [(ours, _inbox), (theirs, _other)] =
            [1, 2].map(|n| Pool::builder(Identity::from_secret([n; 32])).build().unwrap());
        let (near, far) = tokio::io::duplex(1 << 16);
        let target = Target::new(theirs.id());
        let pool = &ours.owner.inner;

        // One brings a stream, and another finds that the peer is being dialled.
        let dials = ours.adopt(near, Role::Initiator { peer: theirs.id() });
        let mut dials = pin!(dials);
        assert!(dials.as_mut().now_or_never().is_none());
        let Ok(Lookup::Joined(seat)) = pool.enter(&target, StreamSource::Brought) else {
            panic!("the dial is in its slot");
        };
        // Before it can let go, the dial has its session.
        let (lease, _theirs) = tokio::join!(dials, theirs.adopt(far, Role::Responder));
        let session = lease.unwrap().session().clone();
        assert_eq!(session.leases_out(), 1);

        let _wanted = pool.session_shared.want_idle();
        let mut fell_idle = pin!(pool.session_shared.fell_idle());
        let told = Arc::new(Told(session, Mutex::default()));
        let waker = told.clone().into();
        assert!(fell_idle.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        pool.leave(seat);
        assert_eq!(*told.1.lock().unwrap(), Some(0));
    }
}
