//! The driver: the one future that owns a session's socket and keys.

mod close;
mod deadlines;
mod input;
mod outgoing;
mod pace;
mod read;
pub(super) mod task;
mod write;
