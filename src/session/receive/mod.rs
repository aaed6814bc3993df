//! From the driver to the application: messages that are received and not taken yet.

mod deferred_wakes;
pub(super) mod deliver;
pub(super) mod exclusive_receiver;
pub(super) mod inbox;
pub(super) mod queue;
pub(super) mod window;
