//! The right to occupy a slot, reserved before anything is sent.
//!
//! Owns the two limits on slots. It takes what is free; how room is made is in
//! [`capacity`](super::capacity).

use crate::base::config::Settings;
use crate::base::error::Limit;
use crate::base::id::Origin;
use crate::base::metrics::LimitUse;

use super::counted::{CountedLimit, Permit};

/// The right to occupy a slot; given back on drop.
///
/// It is passed on from a dial to the session that takes its slot, and from a session to the one
/// that replaces it.
pub(crate) struct SlotPermit {
    _slot: Permit,
    /// Held by inbound newcomers only; what meets a slot of ours uses that slot's permit.
    inbound: Option<Permit>,
}

impl SlotPermit {
    /// Whose choice the session with this permit was: what a stranger may displace is what strangers
    /// brought, not an inbound session that met a dial of ours.
    pub(crate) fn origin(&self) -> Origin {
        if self.inbound.is_some() { Origin::Inbound } else { Origin::Outbound }
    }
}

/// `max_sessions`, and the share of it that inbound sessions may take.
pub(crate) struct SlotLimits {
    sessions: CountedLimit,
    inbound: CountedLimit,
}

impl SlotLimits {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            sessions: CountedLimit::new(settings.max_sessions),
            inbound: CountedLimit::new(settings.max_inbound),
        }
    }

    /// A permit for a dial, if there is one that no caller waits for.
    pub(crate) fn try_outbound(&self) -> Option<SlotPermit> {
        let slot = self.sessions.try_acquire()?;
        Some(SlotPermit { _slot: slot, inbound: None })
    }

    /// A permit for a dial, when it is this caller's turn; `None` once the pool is closed.
    ///
    /// # Cancel safety
    /// A caller that is dropped loses its place.
    pub(crate) async fn outbound(&self) -> Option<SlotPermit> {
        let slot = self.sessions.acquire().await?;
        Some(SlotPermit { _slot: slot, inbound: None })
    }

    /// A permit for an inbound newcomer, after as many calls of `evict` as make room for it.
    ///
    /// # Errors
    /// The limit that was met when `evict` found nothing more.
    pub(crate) fn inbound(&self, mut evict: impl FnMut() -> bool) -> Result<SlotPermit, Limit> {
        let mut take = |limit: &CountedLimit, name| loop {
            if let Some(permit) = limit.try_acquire() {
                return Ok(permit);
            }
            if !evict() {
                return Err(name);
            }
        };
        let inbound = take(&self.inbound, Limit::Inbound)?;
        let slot = take(&self.sessions, Limit::Sessions)?;
        Ok(SlotPermit { _slot: slot, inbound: Some(inbound) })
    }

    /// Gives no more permits to callers that wait.
    pub(crate) fn close(&self) {
        self.sessions.close();
    }

    /// What is held of `max_sessions` and of `max_inbound`.
    pub(crate) fn held(&self) -> (LimitUse, LimitUse) {
        (self.sessions.snapshot(), self.inbound.snapshot())
    }
}
