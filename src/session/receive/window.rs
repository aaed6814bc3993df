//! What the inbox knows of one session.
//!
//! Owns how much of the session is undelivered, and what it waits for. Everything is written under the
//! inbox's lock only; a session's own task and snapshots read it without. It must never hold a message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::base::config::Settings;
use crate::base::id::{PeerId, SessionId};
use crate::session::signal::{CAPACITY, DriverSignal};

/// See the module.
#[derive(Debug)]
pub(crate) struct ReceiveWindow {
    pub(super) peer: PeerId,
    pub(super) session: SessionId,
    pub(super) signal: Arc<DriverSignal>,
    /// Bytes of this session in the inbox.
    pub(super) undelivered: AtomicUsize,
    /// It waits for its turn to get room.
    pub(super) waits: AtomicBool,
    /// It met its own bound, and is to be woken when half of that is free.
    pub(super) at_own_bound: AtomicBool,
}

impl ReceiveWindow {
    pub(crate) fn new(peer: PeerId, session: SessionId, signal: Arc<DriverSignal>) -> Arc<Self> {
        Arc::new(Self {
            peer,
            session,
            signal,
            undelivered: AtomicUsize::new(0),
            waits: AtomicBool::new(false),
            at_own_bound: AtomicBool::new(false),
        })
    }

    /// Whether the session has more than it may deliver.
    pub(crate) fn is_shut(&self) -> bool {
        self.waits.load(Ordering::Relaxed) || self.at_own_bound.load(Ordering::Relaxed)
    }

    /// Bytes of this session that the application has not taken.
    pub(crate) fn undelivered(&self) -> usize {
        self.undelivered.load(Ordering::Relaxed)
    }

    /// Wakes the session's driver: there may be room.
    pub(super) fn wake(&self) {
        self.signal.set(CAPACITY);
    }
}

/// How much a session may press.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Within its own bound and the inbox's, in turn.
    Usual,
    /// The session drains, and has little time: up to [`max_draining`] of its own, and not in turn
    /// but up to the inbox's second and final bound. Its peer may still be sending.
    Draining,
    /// The session has ended: what it holds, up to the inbox's second bound.
    Ending,
}

/// Bytes that a draining session may leave undelivered: what it may anyway, and what a peer like us
/// may have accepted before it knew of the drain: a whole queue, and as much again on its way. Without
/// a bound, a peer that replaces its own session could go on flooding the old one for the whole drain.
pub(crate) fn max_draining(settings: &Settings) -> usize {
    settings.max_undelivered.saturating_add(settings.max_queue.saturating_mul(2))
}
