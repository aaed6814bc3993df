//! From a lease to the driver: messages that are accepted and not written yet.

pub(super) mod budget;
pub(super) mod buffer;
pub(super) mod queue;
pub(super) mod quota;
pub(super) mod unsent;
