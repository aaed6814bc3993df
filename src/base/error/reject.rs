//! Refusals of a session whose handshake is complete: by a verdict, or by the application's checks.
//!
//! Owns [`RejectReason`], [`RejectedBy`] and [`Refusal`]. It must know neither addresses nor tokio.

use thiserror::Error;

/// Why a responder refused a session, as its verdict says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum RejectReason {
    /// It has no room.
    #[error("the peer is full")]
    Full,
    /// It is shutting down.
    #[error("the peer is draining")]
    Draining,
    /// Its policy refuses us (authorisation or ready check).
    #[error("the peer refuses us")]
    Refused,
    /// Both sides dialled, and the other dial won.
    #[error("the other of two simultaneous dials won")]
    Simultaneous,
    /// It holds a session to us that is at least as new.
    #[error("the peer holds a newer session")]
    Duplicate,
    /// A code that this version does not know.
    #[error("code {0}")]
    Other(u8),
}

/// Which side refused a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum RejectedBy {
    /// We did.
    Us,
    /// The peer did.
    Peer,
}

/// A refusal by one of the application's callbacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Refusal {
    /// The callback said no.
    #[error("refused by the application's check")]
    Refused,
    /// The callback did not answer within `hook_timeout`.
    #[error("the application's check did not answer in time")]
    TimedOut,
    /// The callback panicked.
    #[error("the application's check panicked")]
    Panicked,
}
