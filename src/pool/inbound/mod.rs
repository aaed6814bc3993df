//! Inbound connections: from a stranger's socket to a session in its slot, or to none.

pub(crate) mod handshake;
pub(crate) mod pending;
