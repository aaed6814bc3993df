//! The pool as others see it: snapshots and statistics.
//!
//! Owns the copying of live state into plain values, shard by shard; what must be asked of a session
//! is asked when the shard's lock is gone.

use std::sync::Arc;

use tokio::time::Instant;

use crate::base::metrics::Stats;
use crate::base::metrics::{DialPhase, DialSnapshot, LimitUse, Limits, SessionSnapshot, Snapshot};
use crate::pool::dial::task::Dial;
use crate::pool::state::PoolState;
use crate::proto::slot::View;
use crate::session::Session;

impl PoolState {
    /// Everything at one moment, or nearly: each session and dial is consistent in itself.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let now = Instant::now();
        let mut dials = Vec::new();
        let slots = self.registry.collect(|_, slot| {
            let superseded = slot.superseded().cloned().collect();
            let (session, dial) = match slot.view() {
                View::Ready { session, .. } => (Some(session.core.session().clone()), None),
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
        sessions.extend(self.draining.all().iter().map(|session| session.snapshot(now)));
        let stats = self.stats_with(&sessions);
        Snapshot {
            taken_at_unix: self.settings.wall_clock.unix_seconds(),
            peer: self.peer,
            sessions,
            dials,
            limits: self.limits(),
            stats,
        }
    }

    /// The counters, with what the sessions that are live have counted so far.
    pub(crate) fn stats(&self) -> Stats {
        let now = Instant::now();
        let slots =
            self.registry.collect(|_, slot| slot.session().map(|held| held.core.session().clone()));
        let live = slots.into_iter().chain(self.draining.all());
        self.stats_with(&live.map(|session| session.snapshot(now)).collect::<Vec<_>>())
    }

    fn stats_with(&self, live: &[SessionSnapshot]) -> Stats {
        let mut stats = self.counters.stats(self.native.clock_offset());
        for session in live {
            stats.bytes_in += session.bytes_in;
            stats.bytes_out += session.bytes_out;
            stats.messages_in += session.messages_in;
            stats.messages_out += session.messages_out;
            stats.messages_expired += session.expired;
        }
        stats.messages_discarded = self.session_shared.inbox.gauge().discarded;
        stats
    }

    fn limits(&self) -> Limits {
        let used = |(held, high_water): (usize, usize), limit: usize| LimitUse {
            held: held as u64,
            high_water: high_water as u64,
            limit: limit as u64,
        };
        let settings = &self.settings;
        Limits {
            sessions: self.sessions.snapshot(),
            inbound: self.inbound.snapshot(),
            draining: used(self.draining.held(), settings.max_draining),
            dials: self.dialling.snapshot(),
            queued_dials: self.queued.snapshot(),
            pending_handshakes: used(self.admission.held(), settings.max_pending_handshakes),
            discarding: self.discarding.snapshot(),
            buffered_bytes: self.session_shared.buffered(),
            inbox_bytes: self.session_shared.inbox_use(),
        }
    }
}

/// What a slot holds, copied under its lock.
struct Seen {
    session: Option<Arc<Session>>,
    /// With the number of its waiters.
    dial: Option<(Arc<Dial>, u32)>,
    superseded: Vec<Arc<Dial>>,
}
