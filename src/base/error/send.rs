//! Why a message is not accepted, and why an operation on a session does not finish.
//!
//! Owns the errors of sending, flushing and pinging. An error of sending gives the message back; its
//! `Debug` must never show the payload.

use bytes::Bytes;
use thiserror::Error;

use super::close::CloseReason;
use super::dial::DialError;

/// A message that was not accepted, given back, and why.
#[derive(Clone, PartialEq, Eq, Error)]
#[error("{kind}")]
pub struct SendError {
    /// The message, untouched.
    pub message: Bytes,
    /// Why it was not accepted.
    pub kind: SendErrorKind,
}

impl std::fmt::Debug for SendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendError")
            .field("message_len", &self.message.len())
            .field("kind", &self.kind)
            .finish()
    }
}

/// Why a message was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// Longer than our own or the peer's `max_message_size`.
    #[error("message of {len} bytes is over the limit of {limit}")]
    TooLarge {
        /// The message's length in bytes.
        len: usize,
        /// The least of both sides' limits in bytes.
        limit: usize,
    },
    /// The queue is full (`try_send` only).
    #[error("the session's queue is full")]
    Full,
    /// The message's own deadline had passed.
    #[error("the message's deadline has passed")]
    Expired,
    /// The session accepts no more messages, since a newer one replaced it or a side drains it.
    #[error("the session is retired: {0}")]
    Retired(CloseReason),
    /// The session has ended.
    #[error("the session has ended: {0}")]
    Closed(CloseReason),
}

/// Why `Pool::send` cannot say that a message was accepted, with the message.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum SendToError {
    /// There is no session.
    #[error("no session")]
    Dial {
        /// The message, untouched.
        message: Bytes,
        /// Why there is no session.
        #[source]
        source: DialError,
    },
    /// The session did not accept it.
    #[error("not accepted")]
    Send(#[source] SendError),
    /// It travelled with a handshake that broke before the peer had answered, or whose answer the caller
    /// did not wait for (its deadline passed, or the peer was disconnected): the peer may have it or not.
    #[error("the answer to the handshake with which it travelled did not come in time")]
    Unknown {
        /// The message.
        message: Bytes,
    },
}

/// A session ended before the operation was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the session has ended: {0}")]
pub struct SessionClosed(pub CloseReason);

/// Why a ping gave no round-trip time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PingError {
    /// The session ended first.
    #[error("the session has ended: {0}")]
    Closed(CloseReason),
    /// No answer within `ping_timeout`; the session is being closed.
    #[error("no answer within ping_timeout")]
    TimedOut,
    /// The transport has no ping; the session stays as it is.
    #[error("the transport has no ping")]
    Unsupported,
}
