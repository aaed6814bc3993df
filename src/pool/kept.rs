//! The peers to which the application wants a session at all times.
//!
//! Owns the table of them. Their sessions neither expire for want of use nor make room for others; how
//! they are dialled again is in `persistent`.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::base::id::PeerId;
use crate::base::sync::{Mutex, lock};

/// See the module.
#[derive(Default)]
pub(crate) struct KeptPeers(Mutex<HashMap<PeerId, KeptPeer>>);

struct KeptPeer {
    /// Notified when the peer's session has left its slot.
    lost: Arc<Notify>,
    /// Ends the task that dials the peer.
    stop: CancellationToken,
}

impl KeptPeers {
    /// Keeps a peer; one that was kept before has its earlier task stopped. The result is notified
    /// when the peer's session has left its slot.
    pub(crate) fn insert(&self, peer: PeerId, stop: CancellationToken) -> Arc<Notify> {
        let lost = Arc::new(Notify::new());
        let before = lock(&self.0).insert(peer, KeptPeer { lost: lost.clone(), stop });
        if let Some(before) = before {
            before.stop.cancel();
        }
        lost
    }

    /// Whether the peer is kept.
    pub(crate) fn contains(&self, peer: &PeerId) -> bool {
        lock(&self.0).contains_key(peer)
    }

    /// The peer's session has left its slot.
    pub(crate) fn lost(&self, peer: &PeerId) {
        if let Some(kept) = lock(&self.0).get(peer) {
            kept.lost.notify_one();
        }
    }

    /// Keeps the peer no longer. False: it was not kept.
    pub(crate) fn remove(&self, peer: &PeerId) -> bool {
        let kept = lock(&self.0).remove(peer);
        kept.map(|kept| kept.stop.cancel()).is_some()
    }

    /// Keeps no peer any longer.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *lock(&self.0));
        all.into_values().for_each(|kept| kept.stop.cancel());
    }
}
