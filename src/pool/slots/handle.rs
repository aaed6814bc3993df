//! What readers of the slots find of a session.

use crate::base::id::{PeerId, SessionId};

/// What stands in a slot for a session, as far as readers without the slot's lock see it.
pub(crate) trait HasHandle {
    /// What they find.
    type Handle: PeerHandle;

    fn handle(&self) -> Self::Handle;

    /// Tells the handle from every other one that the slot has had.
    fn identity(&self) -> HandleId;
}

/// A handle knows its peer.
pub(crate) trait PeerHandle {
    fn peer(&self) -> &PeerId;
}

/// The identity of a handle: its session, and whether its leases are counted by permits. A session's
/// leases begin to be counted at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HandleId {
    pub(crate) session: SessionId,
    pub(crate) has_permits: bool,
}
