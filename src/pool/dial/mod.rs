//! Dials: one for all who ask for a peer.

pub(crate) mod outcome;
pub(crate) mod race;
pub(crate) mod set_once;
pub(crate) mod task;
