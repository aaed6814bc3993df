//! The pool as others see it: snapshots and statistics.
//!
//! Owns the copying of live state into plain values, shard by shard; what must be asked of a session
//! is asked when the shard's lock is gone.

use std::sync::Arc;

use tokio::time::Instant;

use crate::base::metrics::{
    DialPhase, DialSnapshot, LimitUse, Limits, SessionSnapshot, Snapshot, Stats,
};
use crate::pool::dial::Dial;
use crate::pool::state::PoolState;
use crate::proto::slot::View;
use crate::session::Session;
use crate::transport::seam::Transport as _;

/// Everything at one moment, or nearly: each session and dial is consistent in itself.
pub(crate) fn snapshot(pool: &PoolState) -> Snapshot {
    let now = Instant::now();
    let mut dials = Vec::new();
    let slots = pool.sessions.slots.collect(|_, slot| {
        let superseded = slot.superseded().cloned().collect();
        let (session, dial) = match slot.view() {
            View::Ready { session, .. } => (Some(session.session().clone()), None),
            View::Dialing { dial, waiters, .. } => (None, Some((dial.clone(), waiters))),
            View::Vacant => (None, None),
        };
        Some(Seen { session, dial, superseded })
    });
    // At once: grown step by step, very many sessions would be copied as often as they are
    // pictured.
    let mut sessions = Vec::with_capacity(slots.len());
    for Seen { session, dial, superseded } in slots {
        sessions.extend(session.map(|session| session.snapshot(now)));
        let current = dial.map(|(dial, waiters)| {
            let phase = dial.phase();
            (dial, phase, waiters)
        });
        let awaited = superseded.into_iter().map(|dial| (dial, DialPhase::Superseded, 0));
        dials.extend(awaited.chain(current).map(|(dial, phase, waiters)| DialSnapshot {
            peer: dial.peer,
            attempt: dial.attempt,
            phase,
            age: now.saturating_duration_since(dial.began),
            addresses: dial.addresses(),
            waiters,
        }));
    }
    sessions.extend(pool.sessions.draining.all().iter().map(|session| session.snapshot(now)));
    let stats = stats_with(pool, &sessions);
    Snapshot {
        taken_at_unix: pool.ctx.settings.wall_clock.unix_seconds(),
        peer: pool.ctx.peer,
        sessions,
        dials,
        limits: limits(pool),
        stats,
    }
}

/// The counters, with what the sessions that are live have counted so far.
pub(crate) fn stats(pool: &PoolState) -> Stats {
    let now = Instant::now();
    let slots = pool
        .sessions
        .slots
        .collect(|_, slot| slot.session().map(|pooled| pooled.session().clone()));
    let live = slots.into_iter().chain(pool.sessions.draining.all());
    stats_with(pool, &live.map(|session| session.snapshot(now)).collect::<Vec<_>>())
}

fn stats_with(pool: &PoolState, live: &[SessionSnapshot]) -> Stats {
    let mut stats = pool.ctx.counters.stats(pool.transport.clock_offset());
    for session in live {
        stats.bytes_in += session.bytes_in;
        stats.bytes_out += session.bytes_out;
        stats.messages_in += session.messages_in;
        stats.messages_out += session.messages_out;
        stats.messages_expired += session.expired;
    }
    stats.messages_discarded = pool.sessions.shared.inbox.gauge().discarded;
    stats
}

fn limits(pool: &PoolState) -> Limits {
    let used = |(held, high_water): (usize, usize), limit: usize| LimitUse {
        held: held as u64,
        high_water: high_water as u64,
        limit: limit as u64,
    };
    let settings = &pool.ctx.settings;
    let (sessions, inbound) = pool.capacity.held();
    let (dials, queued_dials) = pool.dialer.held();
    Limits {
        sessions,
        inbound,
        draining: used(pool.sessions.draining.held(), settings.max_draining),
        dials,
        queued_dials,
        pending_handshakes: used(pool.responder.pending().held(), settings.max_pending_handshakes),
        discarding: pool.responder.discarding(),
        buffered_bytes: pool.sessions.shared.buffered(),
        inbox_bytes: pool.sessions.shared.inbox_use(),
    }
}

/// What a slot holds, copied under its lock.
struct Seen {
    session: Option<Arc<Session>>,
    /// With the number of its waiters.
    dial: Option<(Arc<Dial>, u32)>,
    superseded: Vec<Arc<Dial>>,
}
