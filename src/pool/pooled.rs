//! A session as it stands in its slot.
//!
//! Owns the slot's own reference to the session, which counts as no lease, and its permit.

use std::sync::Arc;

use crate::base::id::PeerId;
use crate::pool::dial::Dial;
use crate::pool::limits::SlotPermit;
use crate::pool::slots::{HandleId, HasHandle, PeerHandle};
use crate::proto::slot::{Slot, View};
use crate::session::{LeaseCore, Session, UncountedRef};

/// The slot of one peer, as the pool fills it.
pub(crate) type PeerSlot = Slot<Arc<Dial>, PooledSession>;

/// See the module.
pub(crate) struct PooledSession {
    pub(crate) leases: UncountedRef,
    /// Passed on when another session replaces this one.
    pub(crate) permit: Option<SlotPermit>,
}

impl PooledSession {
    pub(crate) fn session(&self) -> &Arc<Session> {
        self.leases.session()
    }

    /// Closes the session to new leases, if none is out. It must not be in the index of the slots
    /// meanwhile ([`SlotMap::with_unlisted`](crate::pool::slots::SlotMap::with_unlisted)): a reader
    /// makes a lease of the reference that it finds there.
    ///
    /// # Errors
    /// A lease is out; nothing has changed.
    pub(crate) fn close_unused(self) -> Result<Self, Self> {
        let Self { leases, permit } = self;
        match leases.close_unused() {
            Ok(leases) => Ok(Self { leases, permit }),
            Err(leases) => Err(Self { leases, permit }),
        }
    }
}

impl HasHandle for PooledSession {
    type Handle = UncountedRef;

    fn handle(&self) -> UncountedRef {
        UncountedRef::of(&self.leases)
    }

    fn identity(&self) -> HandleId {
        let session = self.leases.session().id();
        HandleId { session, has_permits: self.leases.has_permits() }
    }
}

impl PeerHandle for UncountedRef {
    #[inline]
    fn peer(&self) -> &PeerId {
        LeaseCore::peer(self)
    }
}

/// The permit that stands in the slot, for the session that takes it.
pub(crate) fn permit_of(slot: &mut PeerSlot) -> Option<SlotPermit> {
    match slot.view() {
        View::Vacant => None,
        View::Dialing { dial, .. } => dial.take_permit(),
        View::Ready { .. } => slot.session_mut().and_then(|pooled| pooled.permit.take()),
    }
}
