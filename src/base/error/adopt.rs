//! Why a stream that the caller brought does not become a session.
//!
//! Owns [`AdoptError`], which gives the stream back if nothing was written to it.

use thiserror::Error;

use super::dial::DialError;
use super::handshake::HandshakeError;
use super::limit::Limit;
use super::reject::RejectReason;
use crate::base::id::PeerId;

/// Why a stream that the caller brought did not become a session.
#[derive(Error)]
#[non_exhaustive]
pub enum AdoptError<S> {
    /// A session to this peer exists or is being dialled; nothing was written to the stream.
    #[error("a session to {peer:?} exists or is being dialled")]
    Exists {
        /// The peer.
        peer: PeerId,
        /// The stream, untouched.
        stream: S,
    },
    /// As initiator: the dial over the stream failed.
    #[error("the dial failed")]
    Dial(#[source] DialError),
    /// As responder: the handshake failed; nothing was answered to a stranger.
    #[error("the handshake failed")]
    Handshake(#[source] HandshakeError),
    /// As responder: our verdict refused the peer.
    #[error("rejected: {reason}")]
    Rejected {
        /// The peer that was refused.
        peer: PeerId,
        /// The reason in our verdict.
        reason: RejectReason,
    },
    /// One of our own limits was met.
    #[error("limit reached: {0}")]
    Limit(Limit),
    /// The pool drains or is closed.
    #[error("the pool is closed")]
    PoolClosed,
}

impl<S> std::fmt::Debug for AdoptError<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exists { peer, .. } => f.debug_struct("Exists").field("peer", peer).finish(),
            Self::Dial(error) => f.debug_tuple("Dial").field(error).finish(),
            Self::Handshake(error) => f.debug_tuple("Handshake").field(error).finish(),
            Self::Rejected { peer, reason } => {
                f.debug_struct("Rejected").field("peer", peer).field("reason", reason).finish()
            }
            Self::Limit(limit) => f.debug_tuple("Limit").field(limit).finish(),
            Self::PoolClosed => f.write_str("PoolClosed"),
        }
    }
}
