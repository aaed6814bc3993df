//! Why a handshake fails, on either side.
//!
//! Owns [`HandshakeError`]. It must know neither addresses nor tokio: the protocol makes these errors.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use super::protocol::ProtocolError;

/// Why a handshake failed.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The stream failed or ended.
    #[error("the stream failed during the handshake")]
    Io(#[source] Arc<io::Error>),
    /// A handshake message did not verify.
    #[error("message {message} did not verify")]
    Verify {
        /// Which of the three messages.
        message: u8,
    },
    /// A handshake message has an impossible length.
    #[error("message {message} has an impossible length of {length} bytes")]
    Length {
        /// Which of the three messages.
        message: u8,
        /// The length that the peer announced.
        length: u16,
    },
    /// The peer closed the stream before message 2, or never sent one.
    #[error("connected, but no message 2: wrong key, network id, suite or clock")]
    NoAnswer,
    /// Message 1 is dated too far from our clock.
    #[error("message 1 is dated {skew_seconds} s from our clock")]
    Skewed {
        /// The peer's time less ours, in seconds.
        skew_seconds: i64,
    },
    /// Message 1 was seen before.
    #[error("message 1 is a replay")]
    Replayed,
    /// The peer's static key is not canonical or is of low order.
    #[error("the peer's static key is not canonical")]
    NonCanonicalKey,
    /// The peer uses our own identity.
    #[error("the peer has our own identity")]
    OwnIdentity,
    /// A payload of the handshake is malformed.
    #[error("the payload of message {message} is malformed")]
    Payload {
        /// Which of the three messages.
        message: u8,
    },
    /// The first frame is not a verdict.
    #[error("the peer's first record is not a verdict")]
    NoVerdict,
    /// A frame of the verdict broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// It took longer than allowed.
    #[error("the handshake took too long")]
    TimedOut,
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}
