//! The pooled sessions in the order in which they were used last.
//!
//! Owns the lock around the [`IdleIndex`], and what a look at a session finds. It retires nothing.

use std::cmp::Ordering;
use std::sync::Arc;

use tokio::time::Instant;

use crate::base::id::Origin;
use crate::base::sync::{Mutex, lock};
use crate::session::{Availability, Session};

use super::idle_index::{Evict, IdleIndex, Use};

/// How many sessions one search for an inbound newcomer looks at: what a stranger can make us do is
/// bounded. Sessions in use move back as they are looked at, so that the next search goes on where this
/// one ended. A dial of ours looks at all.
const MAX_LOOKS: usize = 1024;

/// See the module.
#[derive(Default)]
pub(crate) struct IdleSessions(Mutex<IdleIndex<Instant, IdleSession>>);

impl IdleSessions {
    /// The session becomes a candidate for expiry and eviction.
    pub(crate) fn insert(&self, session: &Arc<Session>, origin: Origin) {
        lock(&self.0).insert(IdleSession(session.clone()), origin, session.last_used());
    }

    /// The session is no candidate any more.
    pub(crate) fn remove(&self, session: &Arc<Session>) {
        lock(&self.0).remove(&IdleSession(session.clone()));
    }

    /// No session was last used before this moment; `None` while there is none.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        lock(&self.0).oldest()
    }

    /// Takes out the longest idle session that may be evicted.
    pub(crate) fn take_longest_idle(&self, which: Evict, now: Instant) -> Option<Arc<Session>> {
        let looks = match which {
            Evict::Any => usize::MAX,
            Evict::Inbound => MAX_LOOKS,
        };
        let taken = lock(&self.0).take_longest_idle(which, now, looks, usage);
        taken.map(|IdleSession(session)| session)
    }

    /// Takes out a session that was last used at `cutoff` or before. What is queued or undelivered
    /// keeps a session from expiring, not from making room.
    pub(crate) fn take_expired(&self, cutoff: Instant, now: Instant) -> Option<Arc<Session>> {
        let usage = |idle: &IdleSession| match usage(idle) {
            Use::Idle(_) if idle.0.has_backlog() => Use::Leased,
            found => found,
        };
        let taken = lock(&self.0).take_expired(cutoff, now, usage);
        taken.map(|IdleSession(session)| session)
    }
}

fn usage(IdleSession(session): &IdleSession) -> Use<Instant> {
    if session.availability() == Availability::Retired {
        Use::Gone
    } else if session.leases_out() > 0 {
        Use::Leased
    } else {
        Use::Idle(session.last_used())
    }
}

/// A session in the order of idleness; equally idle ones in the order of their numbers.
#[derive(Clone)]
struct IdleSession(Arc<Session>);

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
