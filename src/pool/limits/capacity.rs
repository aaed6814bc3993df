//! SlotPermit: the right to occupy a slot, reserved before anything is sent.
//!
//! Owns how room is found: a free permit, else the longest idle session is evicted, else the caller
//! waits in line or is refused, as configured. A dial may evict any session without leases that is
//! not kept; an inbound newcomer only an inbound one, because strangers make keys at will and must
//! not push our own choices out.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::unconstrained;
use tokio::time::sleep;

use crate::base::config::WhenFull;
use crate::base::error::{DialError, Limit};
use crate::base::event::PoolEvent;
use crate::base::id::Origin;
use crate::base::metrics::Waited;
use crate::pool::limits::counted::Permit;
use crate::pool::limits::idle::Evict;
use crate::pool::state::PoolState;

/// A return of a lease looks whether somebody waits before it counts, so that the hit path pays one
/// load for it. One that was under way when the wait began may therefore tell nobody: who waits looks
/// again by itself, this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The right to occupy a slot; given back on drop.
///
/// It is passed on from a dial to the session that takes its slot, and from a session to the one
/// that replaces it.
pub(crate) struct SlotPermit {
    _slot: Permit,
    /// PooledSession by inbound newcomers only; what meets a slot of ours uses that slot's room.
    inbound: Option<Permit>,
}

impl SlotPermit {
    /// Whose choice the session in this room was: what a stranger may displace is what strangers
    /// brought, not an inbound session that met a dial of ours.
    pub(crate) fn origin(&self) -> Origin {
        if self.inbound.is_some() { Origin::Inbound } else { Origin::Outbound }
    }
}

impl PoolState {
    /// SlotPermit for a dial: waits in line, or fails, when the pool is full of sessions in use.
    pub(crate) async fn room_for_dial(self: &Arc<Self>) -> Result<SlotPermit, DialError> {
        if let Some(room) = self.try_room_for_dial() {
            return Ok(room);
        }
        if self.settings.when_full == WhenFull::Fail {
            self.events.publish(|| PoolEvent::LimitHit { limit: Limit::Sessions });
            return Err(DialError::Limit(Limit::Sessions));
        }
        let _waited = Waited::new(&self.counters);
        // Freed permits come in line; a session that falls idle frees none, but may be evicted.
        let wanted = self.session_shared.want_idle();
        // Unconstrained, so that it says "not yet" for no other reason than that there is none.
        let mut freed = pin!(unconstrained(self.sessions.acquire()));
        let slot = loop {
            let fell_idle = self.session_shared.fell_idle();
            // First our place in the line: what was evicted before may have been enough.
            if let Some(slot) = freed.as_mut().now_or_never() {
                break slot;
            }
            if self.evict(Evict::Any) {
                // The freed permit goes to whoever has waited longest.
                continue;
            }
            tokio::select! {
                biased;
                slot = &mut freed => break slot,
                () = fell_idle => {}
                () = sleep(LOOK_AGAIN) => {}
            }
        };
        // We may have been told of a session that we do not need any more.
        drop(wanted);
        self.session_shared.note_idle();
        slot.map(|slot| SlotPermit { _slot: slot, inbound: None }).ok_or(DialError::PoolClosed)
    }

    /// SlotPermit for a dial that is there now or can be made.
    pub(crate) fn try_room_for_dial(self: &Arc<Self>) -> Option<SlotPermit> {
        loop {
            if let Some(slot) = self.sessions.try_acquire() {
                return Some(SlotPermit { _slot: slot, inbound: None });
            }
            if !self.evict(Evict::Any) {
                return None;
            }
        }
    }

    /// SlotPermit for an inbound connection to a peer of which we know nothing.
    ///
    /// # Errors
    /// The limit that was met.
    pub(crate) fn room_for_newcomer(self: &Arc<Self>) -> Result<SlotPermit, Limit> {
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
                return Ok(SlotPermit { _slot: slot, inbound: Some(inbound) });
            }
            if !self.evict(Evict::Inbound) {
                return Err(Limit::Sessions);
            }
        }
    }
}
