//! The pool's own limits, by name.
//!
//! Owns [`Limit`]. It must know neither addresses nor tokio.

use thiserror::Error;

/// Which of our own limits was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Limit {
    /// `max_sessions`, and no session may be evicted.
    #[error("max_sessions")]
    Sessions,
    /// `max_inbound`, the share that inbound sessions may take.
    #[error("max_inbound")]
    Inbound,
    /// `max_queued_dials`.
    #[error("max_queued_dials")]
    QueuedDials,
    /// `max_leases` of the session.
    #[error("max_leases")]
    Leases,
    /// `max_pending_handshakes`.
    #[error("max_pending_handshakes")]
    PendingHandshakes,
    /// The token bucket of a source address.
    #[error("handshakes per source")]
    SourceRate,
    /// Connections that are only read and discarded.
    #[error("discarded connections")]
    Discarding,
    /// `max_draining`.
    #[error("max_draining")]
    Draining,
}
