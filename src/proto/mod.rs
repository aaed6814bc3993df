//! What the bytes mean and what may happen next.
//!
//! Everything below is pure: no tokio, no locks, no clock, no ambient randomness. Time comes in as
//! an argument, randomness through [`Entropy`](crypto::Entropy), bytes as slices.

pub(crate) mod backoff;
pub(crate) mod batch;
pub(crate) mod crypto;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod session;
pub(crate) mod slot;
pub(crate) mod stamp;
