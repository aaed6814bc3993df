//! The native wire: Noise `XK`, frames of records, a verdict, a drain that is confirmed.
//!
//! `docs/wire.md` is its specification.

pub(crate) mod clock_offset;
pub(crate) mod connection;
pub(crate) mod crypto;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod outbox;
pub(crate) mod record;
pub(crate) mod replay;
