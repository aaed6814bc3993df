//! Expiry of sessions that nobody uses.
//!
//! Owns the one task that watches idle time, and the coarse clock by which leases mark their use.
//! It sleeps while there is nothing to expire, and when the pool's last session has ended it ends the
//! inbox and the subscriptions. (Age is watched by each session's own driver.)

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::base::error::CloseReason;
use crate::base::event::PoolEvent;
use crate::base::sync::lock;
use crate::pool::limits::idle::{Evict, Use};
use crate::pool::state::{PoolState, PooledSession};
use crate::session::{Availability, Session};

/// The coarse clock ticks this often per `max_idle`: a session that was only leased, and carried no
/// data, is kept for at most 1/64 less than it should be.
const TICKS_PER_IDLE: u32 = 64;
/// No finer: below it a tick would cost more than it tells.
const MIN_TICK: Duration = Duration::from_millis(10);
/// No coarser: eviction compares sessions by it.
const MAX_TICK: Duration = Duration::from_secs(5);

/// How many sessions one search for an inbound newcomer looks at: what a stranger can make us do is
/// bounded. Sessions in use move back as they are looked at, so the next search goes on where this
/// one ended. A dial of ours looks at all.
const LOOKS: usize = 1024;

/// A session in the order of idleness; equally idle ones in the order of their numbers.
#[derive(Clone)]
pub(crate) struct IdleSession(pub(crate) Arc<Session>);

impl PartialEq for IdleSession {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl Eq for IdleSession {}

impl PartialOrd for IdleSession {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for IdleSession {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.id().cmp(&other.0.id())
    }
}

/// How far a round of expiry came.
enum Expired {
    All,
    AsManyAsMayDrain,
}

/// Ends the inbox and the subscriptions: after the last session, so that what it brought is in them,
/// and also when the runtime drops the task.
struct Over(Arc<PoolState>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.session_shared.inbox.close();
        self.0.events.end();
    }
}

impl PoolState {
    /// Takes a session from under the watch.
    pub(crate) fn unwatch(&self, session: &Arc<Session>) {
        lock(&self.idle).remove(&IdleSession(session.clone()));
    }

    /// Starts the pool's own task: the watch, and then the end. Where nothing expires for want of use,
    /// the watch keeps the clock for eviction.
    pub(crate) fn spawn_reaper(self: &Arc<Self>) {
        let pool = self.clone();
        let over = Over(self.clone());
        self.service.spawn(async move {
            tokio::select! {
                biased;
                () = pool.stop.cancelled() => {}
                () = pool.watch_idle(pool.settings.max_idle) => {}
            }
            pool.work.wait().await;
            drop(over);
        });
    }

    async fn watch_idle(self: &Arc<Self>, max_idle: Option<Duration>) {
        let tick = max_idle
            .map_or(MAX_TICK, |max_idle| (max_idle / TICKS_PER_IDLE).clamp(MIN_TICK, MAX_TICK));
        loop {
            let (appeared, ended) = (self.appeared.notified(), self.ended.notified());
            let now = Instant::now();
            self.session_shared.tick(now);
            let expired = match max_idle {
                Some(max_idle) => self.expire_idle(max_idle, now),
                None => Expired::All,
            };
            let oldest = lock(&self.idle).oldest();
            match (expired, oldest) {
                (_, None) => appeared.await,
                // Whoever was used last at `oldest` or later is due no sooner.
                (Expired::All, Some(oldest)) => {
                    let due = max_idle.map_or(now + tick, |max_idle| oldest + max_idle);
                    sleep_until(due.clamp(now, now + tick)).await;
                }
                (Expired::AsManyAsMayDrain, Some(_)) => tokio::select! {
                    biased;
                    () = ended => {}
                    () = sleep_until(now + tick) => {}
                },
            }
        }
    }

    fn expire_idle(self: &Arc<Self>, max_idle: Duration, now: Instant) -> Expired {
        let Some(cutoff) = now.checked_sub(max_idle) else { return Expired::All };
        loop {
            // Expiry can wait; to cut a session that drains could lose what is under way on it.
            if self.draining.is_full() {
                return Expired::AsManyAsMayDrain;
            }
            let expired = lock(&self.idle).take_expired(cutoff, now, look_for_expiry);
            let Some(IdleSession(session)) = expired else { return Expired::All };
            self.take_unused(&session, CloseReason::Idle);
        }
    }

    /// The longest idle session that may make room, retired. False: there is none.
    pub(crate) fn evict(self: &Arc<Self>, which: Evict) -> bool {
        let looks = match which {
            Evict::Any => usize::MAX,
            Evict::Inbound => LOOKS,
        };
        loop {
            let now = Instant::now();
            self.session_shared.tick(now);
            let idlest = lock(&self.idle).take_longest_idle(which, now, looks, look);
            let Some(IdleSession(session)) = idlest else { return false };
            if self.take_unused(&session, CloseReason::Evicted) {
                return true;
            }
        }
    }

    /// Retires a session, unless a lease was taken meanwhile: that is decided by the word that leases
    /// are taken by, so that nobody has one who was not seen here.
    fn take_unused(self: &Arc<Self>, session: &Arc<Session>, why: CloseReason) -> bool {
        let held = self.registry.with_hidden(&session.peer(), |slot| {
            slot.remove_if(session.id(), PooledSession::close_unused)
        });
        match held {
            Some(held) => {
                if why == CloseReason::Evicted {
                    let (peer, session) = (session.peer(), session.id());
                    self.events.publish(|| PoolEvent::Evicted { peer, session });
                }
                self.retire_held(held, why);
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

/// As [`look`]; what is queued or undelivered keeps a session from expiring, not from making room.
fn look_for_expiry(watched: &IdleSession) -> Use<Instant> {
    match look(watched) {
        Use::Idle(_) if watched.0.has_backlog() => Use::Leased,
        found => found,
    }
}

fn look(IdleSession(session): &IdleSession) -> Use<Instant> {
    if session.availability() == Availability::Retired {
        Use::Gone
    } else if session.leases_out() > 0 {
        Use::Leased
    } else {
        Use::Idle(session.last_used())
    }
}
