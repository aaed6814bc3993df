//! Dials: one for all who ask for a peer.

mod dialer;
mod first;
mod handle;
mod outcome;
mod race;
mod task;

pub(crate) use dialer::Dialer;
pub(crate) use first::Fate;
pub(crate) use handle::{Dial, Parked};
pub(crate) use outcome::Settled;
pub(crate) use race::{Opener, RaceParts};
#[cfg(all(test, noise_pool_loom))]
pub(crate) use task::DialTask;
pub(crate) use task::{DialSlot, StreamSource};
