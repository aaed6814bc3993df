//! What every part of one pool uses: the settings, our name, the counters and the events.
//!
//! Owns no decision and no state of a peer.

use std::sync::Arc;

use crate::base::config::Settings;
use crate::base::error::Limit;
use crate::base::event::{PoolEvent, Publisher};
use crate::base::id::PeerId;
use crate::base::metrics::Counters;

/// See the module.
pub(crate) struct Context {
    pub(crate) settings: Arc<Settings>,
    /// Our own name.
    pub(crate) peer: PeerId,
    pub(crate) counters: Counters,
    pub(crate) events: Publisher,
}

impl Context {
    pub(crate) fn new(settings: Arc<Settings>, peer: PeerId) -> Arc<Self> {
        let events = Publisher::new(settings.event_capacity);
        Arc::new(Self { settings, peer, counters: Counters::default(), events })
    }

    /// A random number from the configured source. The source may be the application's: not to be
    /// called under a lock.
    pub(crate) fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        self.settings.entropy.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Reports that one of our own limits turned something away.
    pub(crate) fn limit_hit(&self, limit: Limit) {
        self.events.publish(|| PoolEvent::LimitHit { limit });
    }
}
