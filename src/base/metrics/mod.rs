//! Counters, statistics and snapshots: what a pool shows of itself, as plain data.

#[cfg(feature = "snapshot-codec")]
mod codec;
mod counter;
mod failures;
#[cfg(feature = "serde")]
pub(crate) mod nanos;
mod report;
mod snapshot;
mod stats;
mod table;

#[cfg(feature = "snapshot-codec")]
pub use codec::{Malformed, SnapshotDecodeError, SnapshotEncodeError};
pub use failures::{
    DialFailure, DialFailures, HandshakeFailure, HandshakeFailures, HookStats, Rejections,
};
pub use report::SessionReport;
pub use snapshot::{
    DialPhase, DialSnapshot, LimitUse, Limits, SessionSnapshot, SessionState, Snapshot,
};
pub(crate) use stats::{Counters, Waited};
pub use stats::{InboundRows, LateAcceptRows, Stats};
