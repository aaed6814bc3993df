//! Counters, statistics and snapshots: what a pool shows of itself, as plain data.

#[cfg(feature = "snapshot-codec")]
mod codec;
mod counter;
mod snapshot;
mod stats;

#[cfg(feature = "snapshot-codec")]
pub use codec::{Malformed, SnapshotDecodeError, SnapshotEncodeError};

pub use snapshot::*;
pub use stats::*;
