//! What the bytes mean and what may happen next.
//!
//! Everything below is pure: no tokio, no locks, no clock, no ambient randomness. Time comes in as
//! an argument, randomness through [`Entropy`](crate::base::environment::Entropy), bytes as slices.

pub(crate) mod backoff;
pub(crate) mod dial_policy;
pub(crate) mod native;
pub(crate) mod rate_limit;
pub(crate) mod slot;
pub(crate) mod stamp;

/// Which side of the handshake, and so of the verdict, we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeRole {
    /// We dialled.
    Initiator,
    /// We accepted.
    Responder,
}
