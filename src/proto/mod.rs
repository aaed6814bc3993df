//! What the bytes mean and what may happen next.
//!
//! Everything below is pure: no tokio, no locks, no clock, no ambient randomness. Time comes in as
//! an argument, randomness through [`Entropy`](crypto::Entropy), bytes as slices.

pub(crate) mod backoff;
pub(crate) mod batch;
pub(crate) mod crypto;
pub(crate) mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod handshake;
#[cfg(any(test, fuzzing))]
pub(crate) mod pair;
pub(crate) mod parcel;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod session;
pub(crate) mod slot;
pub(crate) mod stamp;
pub(crate) mod throttle;
#[cfg(test)]
mod wire_page_tests;

/// Which side of the handshake, and so of the verdict, we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// We dialled.
    Initiator,
    /// We accepted.
    Responder,
}
