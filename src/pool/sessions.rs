//! The table of sessions: what stands in the slots, what drains, and how a session passes between.
//!
//! Owns what follows from a change of a slot. The slot machine decides under a shard's lock; the
//! methods here act when the lock is gone: first the map, then the waiters. Nothing here dials,
//! accepts, or decides which of two connections lives. What a session leaves unsent, and who sends it, is
//! in [`succession`].

mod succession;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::base::address::Address;
use crate::base::environment::share;
use crate::base::error::{CloseReason, Limit};
use crate::base::event::PoolEvent;
use crate::base::id::{Origin, PeerId, SessionId};
use crate::base::io::BoxFuture;
use crate::base::metrics::SessionReport;
use crate::base::sync::{Mutex, lock};
use crate::pool::carry_over::CarryOver;
use crate::pool::checks::Checks;
use crate::pool::context::Context;
use crate::pool::dial::Dial;
use crate::pool::failures::Failures;
use crate::pool::hooks::SessionInfo;
use crate::pool::kept::KeptPeers;
use crate::pool::lifecycle::{Life, Lifecycle};
use crate::pool::limits::{Draining, Evict, IdleSessions, SlotPermit};
use crate::pool::pooled::PooledSession;
use crate::pool::slots::{Seed, SlotMap};
use crate::proto::slot::{Displaced, KeyOrder, Phase, View};
use crate::proto::stamp::StampSource;
use crate::proto::wire::connection::Abilities;
use crate::session::{
    self, Availability, Driver, Ended, Host, Lease, LeaseCore, LeaseHandle, Session, SessionSpec,
    Unsent,
};
use crate::transport::seam::Established;

/// See the module.
pub(crate) struct SessionTable {
    ctx: Arc<Context>,
    lifecycle: Arc<Lifecycle>,
    checks: Arc<Checks>,
    pub(crate) failures: Failures,
    pub(crate) slots: SlotMap<Arc<Dial>, PooledSession>,
    /// Peers whose sessions neither expire nor make room.
    pub(crate) kept: KeptPeers,
    pub(crate) draining: Draining,
    pub(crate) idle: IdleSessions,
    /// What sessions have left unsent.
    pub(crate) carry_over: Arc<CarryOver>,
    pub(crate) shared: Arc<session::SessionContext>,
    /// What the transport's sessions can do.
    pub(crate) abilities: &'static Abilities,
    began: Instant,
    stamps: StampSource,
    /// Number and sums of the sessions that ended since a drain began.
    drained: Mutex<(usize, SessionReport)>,
    /// Notified whenever a session has ended.
    pub(crate) ended: Notify,
    /// Notified when a session comes under the watch of expiry.
    pub(crate) appeared: Notify,
    /// Notified when a session is in its slot.
    opened: Notify,
}

/// A connection whose peer has authenticated, as far as its session needs to know it.
pub(crate) struct NewSession {
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
    /// How many messages of ours travelled with the handshake.
    pub(crate) first_messages: u64,
}

impl SessionTable {
    pub(crate) fn new(
        ctx: Arc<Context>,
        lifecycle: Arc<Lifecycle>,
        checks: Arc<Checks>,
        shared: Arc<session::SessionContext>,
        abilities: &'static Abilities,
    ) -> Arc<Self> {
        let settings = &ctx.settings;
        let seed = match settings.hasher_seed {
            Some(seed) => Seed::Fixed(seed),
            None => Seed::Secret { process: ctx.random(), map: ctx.random() },
        };
        // A random start hides how busy we are; the upper half stays free so that it never wraps.
        let stamps = StampSource::new(ctx.random() >> 1);
        Arc::new(Self {
            failures: Failures::new(settings),
            slots: SlotMap::new(seed),
            kept: KeptPeers::default(),
            draining: Draining::new(settings.max_draining),
            idle: IdleSessions::default(),
            carry_over: CarryOver::new(ctx.clone()),
            shared,
            abilities,
            began: Instant::now(),
            stamps,
            drained: Mutex::default(),
            ended: Notify::new(),
            appeared: Notify::new(),
            opened: Notify::new(),
            ctx,
            lifecycle,
            checks,
        })
    }

    // ---- looking up ----------------------------------------------------------------------------

    /// A lease on the live session, if there is one and a permit is free. Takes no slot's lock.
    #[inline]
    pub(crate) fn hit(&self, peer: &PeerId) -> Option<Lease> {
        self.slots.session(peer, |leases| Lease::try_checkout(leases))
    }

    /// As [`hit`](Self::hit), for a session that needs no probe.
    #[inline]
    pub(crate) fn healthy_hit(&self, peer: &PeerId) -> Option<Lease> {
        let lease = self.hit(peer).filter(|lease| lease.availability() == Availability::Ready)?;
        self.ctx.counters.hits.one();
        Some(lease)
    }

    /// Whether a live session to the peer exists.
    pub(crate) fn contains(&self, peer: &PeerId) -> bool {
        self.slots.read(peer, |slot| slot.session().is_some_and(is_live)).unwrap_or(false)
    }

    /// The peers to which a live session exists.
    pub(crate) fn peers(&self) -> Vec<PeerId> {
        self.slots.collect(|peer, slot| slot.session().is_some_and(is_live).then_some(*peer))
    }

    /// The session that stands in the peer's slot.
    pub(crate) fn session_of(&self, peer: &PeerId) -> Option<Arc<Session>> {
        self.slots.read(peer, |slot| slot.session().map(|pooled| pooled.session().clone()))?
    }

    // ---- into a slot ---------------------------------------------------------------------------

    /// The next stamp: strictly increasing, and never before an earlier one of any task.
    pub(crate) fn next_stamp(&self) -> u64 {
        self.stamps.next(self.began.elapsed())
    }

    pub(crate) fn key_order(&self, peer: &PeerId) -> KeyOrder {
        KeyOrder::of(peer, &self.ctx.peer)
    }

    /// What is settled about a session that is about to be judged. It draws randomness, which may be
    /// the application's: not to be called under a lock.
    pub(crate) fn spec(&self, new: NewSession) -> SessionSpec {
        let settings = &self.ctx.settings;
        // `max_age` less up to 10 %, so that sessions that began together do not end together.
        let expires_at = settings
            .max_age
            .map(|age| Instant::now() + age.mul_f64(1.0 - 0.1 * share(&*settings.entropy)));
        SessionSpec {
            id: SessionId::next(),
            peer: new.peer,
            origin: new.origin,
            remote: new.address,
            observed: new.observed.into_boxed_str(),
            handshake_hash: new.handshake_hash,
            handshake_time: new.handshake_time,
            first_messages: new.first_messages,
            max_message: settings.max_message_size.min(new.peer_max_message as usize),
            peer_payload: new.payload,
            abilities: self.abilities,
            expires_at,
        }
    }

    /// A session without a task yet, that is not to be handed out.
    pub(crate) fn build(&self, spec: SessionSpec) -> LeaseHandle {
        LeaseCore::new(Session::new(spec, &self.shared), self.ctx.settings.max_leases)
    }

    /// Drops a handle that is not a lease any more. It counted as one: without it the session may be
    /// idle, and nobody else says so.
    pub(crate) fn release(&self, leases: LeaseHandle) {
        drop(leases);
        self.shared.note_idle();
    }

    /// Opens a session: its driver is to be run, or it ends.
    #[must_use = "a session whose driver is dropped ends"]
    pub(crate) fn start(
        self: &Arc<Self>,
        session: &Arc<Session>,
        established: Box<Established>,
    ) -> Driver {
        self.ctx.counters.opened.one();
        self.ctx.events.publish(|| PoolEvent::Opened {
            peer: session.peer(),
            session: session.id(),
            origin: session.origin(),
            remote: session.remote().cloned(),
            handshake_time: session.handshake_time(),
        });
        let Established { stream, timer, connection, leftover, .. } = *established;
        let host: Arc<dyn Host> = self.clone();
        let mut driver = Driver::new(session.clone(), stream, connection, leftover, host);
        driver.take_over(timer);
        driver.span().in_scope(|| info!("opened"));
        self.close_if_over(session);
        driver
    }

    /// A session has been installed in its slot: it comes under the watch of expiry, waiters of the
    /// dial that it displaced get it, and the session that it displaced retires.
    pub(crate) fn installed(
        &self,
        leases: &LeaseHandle,
        displaced: Displaced<Arc<Dial>, PooledSession>,
    ) {
        let session = leases.session();
        self.failures.forget(&session.peer());
        self.watch(session);
        self.opened.notify_waiters();
        self.note_carried(session, session.carried());
        if let Some((dial, phase)) = displaced.dial {
            dial.outcome.settle(Ok(leases.clone()));
            if phase == Phase::Open {
                dial.stop.abort();
            }
            dial.uncommitted.notify_waiters();
        }
        if let Some(old) = displaced.session {
            self.ctx.events.publish(|| PoolEvent::Superseded {
                peer: session.peer(),
                session: old.session().id(),
                by: session.id(),
            });
            self.retire_pooled(old, CloseReason::Superseded);
        }
        self.draining.of(&session.peer()).iter().for_each(|old| old.tell_successor());
        if displaced.conflict {
            self.ctx.counters.identity_conflicts.one();
            warn!(peer = %session.peer().short(), "two processes seem to run one identity");
            self.ctx.events.publish(|| PoolEvent::IdentityConflict { peer: session.peer() });
        }
    }

    // ---- out of a slot -------------------------------------------------------------------------

    /// Takes a session out of its slot, if it is there.
    pub(crate) fn take(&self, session: &Session) -> Option<PooledSession> {
        self.slots.with(&session.peer(), |slot, _| slot.remove(session.id()))
    }

    /// Takes a session that is ending out of its slot, without waiting for its driver to do so.
    pub(crate) fn forget(&self, session: &Session) {
        if let (Some(pooled), Some(why)) = (self.take(session), session.retired()) {
            self.retire_pooled(pooled, why);
        }
    }

    /// Retires a session that was taken out of its slot; its permit is free at once.
    pub(crate) fn retire_pooled(&self, pooled: PooledSession, why: CloseReason) {
        let PooledSession { leases, permit } = pooled;
        self.ctx.counters.session_retired(why);
        self.idle.remove(leases.session());
        drop(permit);
        self.retire(leases.session().clone(), leases, why);
    }

    /// Retires a session that is in no slot; `reference` is what the caller holds of it.
    pub(crate) fn retire(&self, session: Arc<Session>, reference: impl Sized, why: CloseReason) {
        for cut in self.draining.add(session.clone()) {
            self.ctx.limit_hit(Limit::Draining);
            cut.close(CloseReason::DrainingFull);
        }
        // Before the reference goes: the drain that its drop may begin knows its reason.
        session.retire(why);
        drop(reference);
        self.kept.lost(&session.peer());
        if session.ended().is_some() {
            self.draining.remove(session.id());
        }
        self.close_if_over(&session);
    }

    fn close_if_over(&self, session: &Session) {
        if self.lifecycle.life() == Life::Closed {
            session.close(CloseReason::PoolClosed);
        }
    }

    /// Adds what a session that has ended has carried.
    fn count_traffic(&self, session: &Session) {
        let snapshot = session.snapshot(Instant::now());
        let counters = &self.ctx.counters;
        counters.bytes_in.add(snapshot.bytes_in);
        counters.bytes_out.add(snapshot.bytes_out);
        counters.messages_in.add(snapshot.messages_in);
        counters.messages_out.add(snapshot.messages_out);
        counters.messages_expired.add(snapshot.expired);
    }

    /// The number and the sums of the sessions that ended since a drain began.
    pub(crate) fn drained(&self) -> (usize, SessionReport) {
        *lock(&self.drained)
    }

    /// Waits until there is a session, or something that may become one. Cancel safe.
    pub(crate) async fn any(&self) {
        loop {
            let opened = self.opened.notified();
            if self.slots.len() > 0 {
                return;
            }
            opened.await;
        }
    }

    /// The machine was suspended: sessions are probed before they are handed out, and those of kept peers
    /// at once.
    pub(crate) fn doubt_all(&self) {
        let all =
            self.slots.collect(|_, slot| slot.session().map(|pooled| pooled.session().clone()));
        for session in all {
            session.note_suspended();
            if self.kept.contains(&session.peer()) {
                session.request_probe();
            }
        }
    }

    // ---- expiry and eviction -------------------------------------------------------------------

    /// Puts a pooled session under the watch of expiry and eviction.
    pub(crate) fn watch(&self, session: &Arc<Session>) {
        if let Some(origin) = self.watchable(session) {
            self.idle.insert(session, origin);
            // It may have left its slot, or its peer may be kept, since we looked.
            if self.watchable(session).is_none() {
                self.idle.remove(session);
            }
            self.shared.note_idle();
        }
        self.appeared.notify_one();
    }

    /// Whose choice the session was, if it is in its slot and its peer is not kept.
    fn watchable(&self, session: &Session) -> Option<Origin> {
        let peer = session.peer();
        let origin = self.slots.read(&peer, |slot| match slot.view() {
            View::Ready { id, session: pooled } if id == session.id() => {
                pooled.permit.as_ref().map(SlotPermit::origin)
            }
            _ => None,
        });
        origin.flatten().filter(|_| !self.kept.contains(&peer))
    }

    /// Retires the longest idle session that may make room. False: there is none.
    pub(crate) fn evict(&self, which: Evict) -> bool {
        loop {
            let now = Instant::now();
            self.shared.tick(now);
            let Some(session) = self.idle.take_longest_idle(which, now) else { return false };
            if self.take_unused(&session, CloseReason::Evicted) {
                return true;
            }
        }
    }

    /// Retires a session, unless a lease was taken meanwhile: that is decided by the word that leases
    /// are taken by, so that there is no lease that was not seen here.
    pub(crate) fn take_unused(&self, session: &Arc<Session>, why: CloseReason) -> bool {
        let taken = self.slots.with_unlisted(&session.peer(), |slot| {
            slot.remove_if(session.id(), PooledSession::close_unused)
        });
        match taken {
            Some(pooled) => {
                if why == CloseReason::Evicted {
                    let (peer, session) = (session.peer(), session.id());
                    self.ctx.events.publish(|| PoolEvent::Evicted { peer, session });
                }
                self.retire_pooled(pooled, why);
                true
            }
            None => {
                // Leased again, or gone.
                if session.availability() != Availability::Retired {
                    self.watch(session);
                }
                false
            }
        }
    }
}

/// Whether the session is handed out. One that was discarded or closed stays in its slot until its
/// driver notices.
fn is_live(pooled: &PooledSession) -> bool {
    pooled.session().availability() != Availability::Retired
}

impl Host for SessionTable {
    fn retired(&self, session: &Arc<Session>, why: CloseReason) {
        if let Some(pooled) = self.take(session) {
            self.note_lost(session, why);
            self.retire_pooled(pooled, why);
        }
    }

    fn ended(&self, session: &Arc<Session>, ended: Ended) {
        let Ended { why: reason, retired, report, unsent } = ended;
        if let Some(pooled) = self.take(session) {
            self.note_lost(session, reason);
            self.idle.remove(session);
            drop(pooled);
        }
        self.draining.remove(session.id());
        if !self.lifecycle.is_open() {
            let mut drained = lock(&self.drained);
            drained.0 += 1;
            drained.1 += report;
        }
        self.ctx.counters.closed.one();
        self.count_traffic(session);
        info!(%reason, "closed");
        self.ctx.events.publish(|| PoolEvent::Closed {
            peer: session.peer(),
            session: session.id(),
            reason,
            report,
        });
        self.leave(session.peer(), unsent, retired);
        self.kept.lost(&session.peer());
        self.ended.notify_waiters();
    }

    fn may_redial(&self, session: &Session) -> bool {
        self.can_redial(session)
    }

    fn left(&self, session: &Arc<Session>, unsent: Unsent) {
        self.carry(session.peer(), unsent);
    }

    fn health_check(self: Arc<Self>, session: &Arc<Session>) -> Option<BoxFuture<'static, bool>> {
        Arc::clone(&self.checks).health(|| SessionInfo {
            peer: session.peer(),
            session: session.id(),
            origin: session.origin(),
            address: session.remote().cloned(),
        })
    }
}
