//! Sessions on their way into their slots and out of them.
//!
//! Owns what follows from a change of a slot: the slot machine decides under a shard's lock; the
//! methods here ask it, and act when the lock is gone: first the map, then the waiters.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::base::address::Address;
use crate::base::error::{CloseReason, DialError, Limit, Refusal};
use crate::base::event::PoolEvent;
use crate::base::id::{Origin, PeerId, SessionId};
use crate::base::io::BoxFuture;
use crate::base::metrics::SessionReport;
use crate::base::sync::lock;
use crate::pool::dial::Dial;
use crate::pool::hooks;
use crate::pool::inner::{Held, Inner, Life, PeerSlot};
use crate::pool::reaper::Watched;
use crate::pool::registry::Open;
use crate::pool::room::Room;
use crate::proto::native::record::Verdict;
use crate::proto::slot::{
    AcceptCase, AcceptDecision, Claim, Displaced, DrainCase, Ended, Phase, View,
};
use crate::session::{Driver, Host, LeaseCore, LeaseHandle, Session, SessionSpec, UncountedRef};
use crate::transport::native::Established;

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
    pub(crate) established: Box<Established>,
    pub(crate) claim: Claim,
    pub(crate) address: Option<Address>,
    /// How the peer sees our address; empty if it did not say.
    pub(crate) observed: String,
    /// The peer's application payload.
    pub(crate) payload: Bytes,
}

impl Inner {
    /// A session without a task yet, for a connection whose peer has authenticated.
    pub(crate) fn new_session(&self, newcomer: Newcomer) -> LeaseHandle {
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

    /// An accept arrived on a dial of ours: pools the session, or drains it. Its driver is to be run.
    #[must_use = "a session whose driver is dropped ends"]
    pub(crate) fn dial_accepted(self: &Arc<Self>, dial: &Arc<Dial>, arrival: Arrival) -> Driver {
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
                    (AcceptDecision::Adopt(row), Open::Yes) => row,
                    (AcceptDecision::Adopt(_), Open::No) => {
                        untold = matches!(slot.dial_ended(dial.attempt), Ended::Current(_));
                        return Step::Drain(DrainCase::Cancelled);
                    }
                    (AcceptDecision::Drain(row), _) => {
                        slot.dial_ended(dial.attempt);
                        return Step::Drain(row);
                    }
                };
                let Some(room) = room_of(slot).or_else(|| spare.take()) else {
                    return Step::NeedsRoom;
                };
                let held = Held { core: UncountedRef::of(&core), room: Some(room) };
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
        let driver = self.start(&session, established, None);
        match step {
            Step::Adopt(row, displaced) => {
                self.count_accept_row(row);
                self.forget_failures(&dial.peer);
                self.watch(&session);
                self.settle(displaced, &core);
            }
            Step::Drain(row) => {
                self.count_drain_row(row);
                let why = match row {
                    DrainCase::Stale => CloseReason::Superseded,
                    DrainCase::Cancelled if self.is_open() => CloseReason::Disconnected,
                    DrainCase::Cancelled => CloseReason::Drained,
                };
                self.drain_late(dial, core, why);
            }
            Step::NeedsRoom | Step::NoRoom => {
                self.drain_late(dial, core, CloseReason::Evicted);
            }
        }
        if untold {
            drop(dial.take_room());
            dial.outcome.settle(Err(DialError::PoolClosed));
        }
        dial.settled.notify_waiters();
        self.ended.notify_waiters();
        driver
    }

    /// A session that nobody is to have: the peer may have sent on it, so it is drained, not cut.
    fn drain_late(&self, dial: &Dial, core: LeaseHandle, why: CloseReason) {
        dial.note_drained(core.session().clone());
        self.retire_unheld(core.session().clone(), core, why);
    }

    /// What an installed session displaced: its waiters get the new one, its session retires.
    pub(crate) fn settle(&self, displaced: Displaced<Arc<Dial>, Held>, core: &LeaseHandle) {
        let session = core.session();
        if let Some((dial, phase)) = displaced.dial {
            dial.outcome.settle(Ok(core.clone()));
            if phase == Phase::Open {
                dial.halt.abort();
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

    /// Opens the session: whoever calls this runs its driver. `first` is the responder's verdict.
    pub(crate) fn start(
        self: &Arc<Self>,
        session: &Arc<Session>,
        established: Box<Established>,
        first: Option<Verdict>,
    ) -> Driver {
        self.counters.opened.one();
        self.events.publish(|| PoolEvent::Opened {
            peer: session.peer(),
            session: session.id(),
            origin: session.origin(),
            remote: session.remote().cloned(),
            handshake_time: session.handshake_time(),
        });
        let Established { stream, timer, core, leftover, .. } = *established;
        let host: Arc<dyn Host> = self.clone();
        let mut driver = session.drive(stream, core, leftover, host, first);
        driver.take_over(timer);
        driver.span().in_scope(|| info!("opened"));
        if self.life() == Life::Closed {
            session.close(CloseReason::PoolClosed);
        }
        driver
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
        self.retire_unheld(core.session().clone(), core, why);
    }

    /// Retires a session that is in no slot; `share` is what the caller has of it.
    fn retire_unheld(&self, session: Arc<Session>, share: impl Sized, why: CloseReason) {
        for cut in self.draining.add(session.clone()) {
            self.events.publish(|| PoolEvent::LimitHit { limit: Limit::Draining });
            cut.close(CloseReason::DrainingFull);
        }
        // Before the share goes: the drain that its drop may begin knows its reason.
        session.retire(why);
        drop(share);
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
        let picture = session.snapshot(Instant::now());
        self.counters.bytes_in.add(picture.bytes_in);
        self.counters.bytes_out.add(picture.bytes_out);
        self.counters.messages_in.add(picture.messages_in);
        self.counters.messages_out.add(picture.messages_out);
        self.counters.messages_expired.add(picture.expired);
    }

    fn count_accept_row(&self, row: AcceptCase) {
        let rows = &self.counters.late_accept_rows;
        match row {
            AcceptCase::Current => {}
            AcceptCase::LateVacant => rows.absent.one(),
            AcceptCase::LateAbortsDial => rows.uncommitted.one(),
            AcceptCase::LateSupersedesDial => rows.committed.one(),
            AcceptCase::LateRetiresSession => rows.superseding.one(),
        }
    }

    fn count_drain_row(&self, row: DrainCase) {
        let rows = &self.counters.late_accept_rows;
        match row {
            DrainCase::Cancelled => rows.marked.one(),
            DrainCase::Stale => rows.duplicate.one(),
        }
    }
}

/// What was decided of an accepted dial.
enum Step {
    Adopt(AcceptCase, Displaced<Arc<Dial>, Held>),
    Drain(DrainCase),
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
        let hooks = self.hooks.clone()?;
        let info = hooks::SessionInfo {
            peer: session.peer(),
            session: session.id(),
            origin: session.origin(),
            address: session.remote().cloned(),
        };
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
