//! Inbound connections: from a stranger's socket to a session in its slot, or to none.

mod decide;
mod handshake;
mod listener;
mod pending;

pub(crate) use decide::{DecisionParts, DriverTask};
pub(crate) use handshake::{NotAccepted, Responder};
pub(crate) use listener::Listeners;
