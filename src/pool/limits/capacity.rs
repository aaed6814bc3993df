//! How room for a session is found.
//!
//! Owns the ways to a [`SlotPermit`]: a free one, else the longest idle session is evicted, else the
//! caller waits in line or is refused, as configured. A dial may evict any session that has no leases
//! and whose peer is not kept; an inbound newcomer only an inbound one, because strangers make keys at
//! will and must not push our own choices out.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::unconstrained;
use tokio::time::sleep;

use crate::base::config::WhenFull;
use crate::base::error::{DialError, Limit};
use crate::base::metrics::{LimitUse, Waited};
use crate::pool::context::Context;
use crate::pool::sessions::SessionTable;

use super::idle_index::Evict;
use super::slot_permit::{SlotLimits, SlotPermit};

/// A return of a lease looks for waiting callers before it counts, so that the hit path pays one load
/// for it. One that was under way when the wait began may therefore wake nobody: a waiting caller looks
/// again by itself, this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Capacity {
    ctx: Arc<Context>,
    sessions: Arc<SessionTable>,
    limits: SlotLimits,
}

impl Capacity {
    pub(crate) fn new(ctx: Arc<Context>, sessions: Arc<SessionTable>) -> Arc<Self> {
        let limits = SlotLimits::new(&ctx.settings);
        Arc::new(Self { ctx, sessions, limits })
    }

    /// A permit for a dial: waits in line, or fails, when the pool is full of sessions in use.
    ///
    /// # Errors
    /// [`DialError::Limit`] as configured; [`DialError::PoolClosed`].
    ///
    /// # Cancel safety
    /// A caller that is dropped loses its place.
    pub(crate) async fn for_dial(&self) -> Result<SlotPermit, DialError> {
        if let Some(permit) = self.try_for_dial() {
            return Ok(permit);
        }
        if self.ctx.settings.when_full == WhenFull::Fail {
            self.ctx.limit_hit(Limit::Sessions);
            return Err(DialError::Limit(Limit::Sessions));
        }
        let _waited = Waited::new(&self.ctx.counters);
        // Freed permits come in line; a session that falls idle frees none, but may be evicted.
        let shared = &self.sessions.shared;
        let wanted = shared.want_idle();
        // Unconstrained, so that it says "not yet" for no other reason than that there is none.
        let mut freed = pin!(unconstrained(self.limits.outbound()));
        let permit = loop {
            let fell_idle = shared.fell_idle();
            // First our place in the line: what was evicted before may have been enough.
            if let Some(permit) = freed.as_mut().now_or_never() {
                break permit;
            }
            if self.sessions.evict(Evict::Any) {
                // The freed permit goes to the caller that has waited longest.
                continue;
            }
            tokio::select! {
                biased;
                permit = &mut freed => break permit,
                () = fell_idle => {}
                () = sleep(LOOK_AGAIN) => {}
            }
        };
        // We may have been woken for a session that we do not need any more.
        drop(wanted);
        shared.note_idle();
        permit.ok_or(DialError::PoolClosed)
    }

    /// A permit for a dial that is free now or can be made free.
    pub(crate) fn try_for_dial(&self) -> Option<SlotPermit> {
        loop {
            if let Some(permit) = self.limits.try_outbound() {
                return Some(permit);
            }
            if !self.sessions.evict(Evict::Any) {
                return None;
            }
        }
    }

    /// A permit for an inbound connection to a peer of which we know nothing.
    ///
    /// # Errors
    /// The limit that was met.
    pub(crate) fn for_newcomer(&self) -> Result<SlotPermit, Limit> {
        self.limits.inbound(|| self.sessions.evict(Evict::Inbound))
    }

    /// Gives no more permits to callers that wait.
    pub(crate) fn close(&self) {
        self.limits.close();
    }

    /// What is held of `max_sessions` and of `max_inbound`.
    pub(crate) fn held(&self) -> (LimitUse, LimitUse) {
        self.limits.held()
    }
}

/// What a look at a slot came to.
pub(crate) enum Reserved<T> {
    Decided(T),
    /// To be asked again with a permit in hand.
    NeedsPermit,
}

/// Asks `decide` for its decision, again with a permit if it needs one.
///
/// The slot's lock cannot be held while room is made. So the decision is made anew after that; a permit
/// that it does not need then is given back.
///
/// # Errors
/// Why there is no permit; nothing is decided.
pub(crate) fn with_permit<T, E>(
    mut decide: impl FnMut(&mut Option<SlotPermit>) -> Reserved<T>,
    mut find: impl FnMut() -> Result<SlotPermit, E>,
) -> Result<T, E> {
    let mut spare = None;
    loop {
        match decide(&mut spare) {
            Reserved::Decided(decision) => return Ok(decision),
            Reserved::NeedsPermit => spare = Some(find()?),
        }
    }
}
