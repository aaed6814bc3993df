//! How a peer breaks the protocol of an established session.
//!
//! Owns [`ProtocolError`]. It must know neither addresses nor tokio.

use thiserror::Error;

/// How a peer broke the protocol of an established session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ProtocolError {
    /// A frame's length is under 17 bytes.
    #[error("frame of {0} bytes, the least is 17")]
    FrameLength(u16),
    /// A frame's tag did not verify.
    #[error("a frame did not decrypt")]
    Decrypt,
    /// A record header is cut, or its length goes past the frame.
    #[error("a record goes past its frame")]
    RecordLength,
    /// A record of a fixed form has another length.
    #[error("record of type {0:#04x} has a wrong length")]
    RecordForm(u8),
    /// A critical record type that is not known.
    #[error("unknown record type {0:#04x}")]
    UnknownRecord(u8),
    /// A message or the sum of its fragments is over the limit.
    #[error("message of {0} bytes is over the limit")]
    MessageTooLarge(u32),
    /// A fragment that does not continue the one before.
    #[error("a fragment does not continue its message")]
    FragmentOrder,
    /// A record where it is not allowed: a second verdict, a ping before the verdict, data after a drain.
    #[error("record of type {0:#04x} is out of place")]
    OutOfPlace(u8),
    /// More pings a second than allowed.
    #[error("too many pings")]
    PingFlood,
    /// A pong to no ping of ours.
    #[error("a pong answers no ping")]
    UnknownPong,
    /// Our own cipher failed, or was given more than a frame can hold: a defect, not the peer's doing.
    #[error("our own cipher failed")]
    Cipher,
    /// The nonce space of a direction is used up.
    #[error("nonces exhausted")]
    NoncesExhausted,
}
