//! Room: the right to occupy a slot, reserved before anything is sent.
//!
//! Owns how room is found: a free permit, else the longest idle session is evicted, else the caller
//! waits in line or is refused, as configured. A dial may evict any session without leases that is
//! not kept; an inbound newcomer only an inbound one, because strangers make keys at will and must
//! not push our own choices out.

use std::sync::Arc;

use tokio::time::Instant;

use crate::config::WhenFull;
use crate::error::{DialError, Limit};
use crate::event::PoolEvent;
use crate::pool::idle::Evict;
use crate::pool::inner::Inner;
use crate::pool::permit::Permit;

/// The right to occupy a slot; given back on drop.
///
/// It is passed on from a dial to the session that takes its slot, and from a session to the one
/// that replaces it.
pub(crate) struct Room {
    _slot: Permit,
    /// Held by inbound newcomers only; what meets a slot of ours uses that slot's room.
    _inbound: Option<Permit>,
}

impl Inner {
    /// Room for a dial: waits in line, or fails, when the pool is full of sessions in use.
    pub(crate) async fn room_for_dial(self: &Arc<Self>) -> Result<Room, DialError> {
        if let Some(room) = self.try_room_for_dial() {
            return Ok(room);
        }
        if self.settings.when_full == WhenFull::Fail {
            self.events.publish(|| PoolEvent::LimitHit { limit: Limit::Sessions });
            return Err(DialError::Limit(Limit::Sessions));
        }
        let began = Instant::now();
        self.counters.waits.one();
        // Freed permits come in line; a session that falls idle frees none, but may be evicted.
        let _wanted = self.session_shared.want_returns();
        let freed = self.sessions.acquire();
        tokio::pin!(freed);
        let slot = loop {
            let returned = self.session_shared.lease_returned();
            if self.evict(Evict::Any) {
                // The freed permit goes to whoever has waited longest.
                continue;
            }
            tokio::select! {
                biased;
                slot = &mut freed => match slot {
                    Some(slot) => break slot,
                    None => return Err(DialError::PoolClosed),
                },
                () = returned => {}
            }
        };
        self.counters.wait_time.add(began.elapsed());
        Ok(Room { _slot: slot, _inbound: None })
    }

    /// Room for a dial that is there now or can be made.
    pub(crate) fn try_room_for_dial(self: &Arc<Self>) -> Option<Room> {
        loop {
            if let Some(slot) = self.sessions.try_acquire() {
                return Some(Room { _slot: slot, _inbound: None });
            }
            if !self.evict(Evict::Any) {
                return None;
            }
        }
    }

    /// Room for an inbound connection to a peer of which we know nothing.
    ///
    /// # Errors
    /// The limit that was met.
    pub(crate) fn room_for_newcomer(self: &Arc<Self>) -> Result<Room, Limit> {
        let inbound = loop {
            if let Some(permit) = self.inbound.try_acquire() {
                break permit;
            }
            if !self.evict(Evict::Inbound) {
                return Err(Limit::Inbound);
            }
        };
        loop {
            if let Some(slot) = self.sessions.try_acquire() {
                return Ok(Room { _slot: slot, _inbound: Some(inbound) });
            }
            if !self.evict(Evict::Inbound) {
                return Err(Limit::Sessions);
            }
        }
    }
}
