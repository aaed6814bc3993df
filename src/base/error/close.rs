//! Why a session ends: its own account, and the reason that a goodbye carries.
//!
//! Owns [`CloseReason`], [`GoodbyeReason`] and the comparable [`ErrorKind`]. It must know neither
//! addresses nor tokio: the protocol uses it.

use std::io;

use thiserror::Error;

use super::protocol::ProtocolError;

/// Why a session ended, or why it is being retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum CloseReason {
    /// Neither data nor lease for `max_idle`.
    #[error("idle for longer than max_idle")]
    Idle,
    /// Older than `max_age`; leases in hand still send.
    #[error("older than max_age")]
    Age,
    /// Made room for another session.
    #[error("evicted to make room")]
    Evicted,
    /// The peer opened a newer session.
    #[error("superseded by a newer session of the peer")]
    Superseded,
    /// `disconnect` was called.
    #[error("disconnected by the application")]
    Disconnected,
    /// A lease was discarded: the application found the session broken.
    #[error("discarded by the application")]
    Discarded,
    /// The pool drained.
    #[error("the pool drained")]
    Drained,
    /// The pool was closed or dropped.
    #[error("the pool was closed")]
    PoolClosed,
    /// The peer drained the session and said why.
    #[error("the peer drained the session: {0}")]
    Peer(GoodbyeReason),
    /// The peer began to drain the session; its goodbye, which says why, has not come yet.
    #[error("the peer drains the session")]
    PeerDrains,
    /// The stream ended inside a frame or without a goodbye.
    #[error("the stream ended without a goodbye")]
    Truncated,
    /// The stream failed.
    #[error("the stream failed: {0}")]
    Io(ErrorKind),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(ProtocolError),
    /// The peer was silent: nothing came within `ping_timeout` of a ping, or for 15 s while it had
    /// something of ours to receive.
    #[error("the peer was silent")]
    PingTimeout,
    /// Nothing came from the peer for 5 s while it had something of ours to receive. It may be alive: what
    /// waited to be sent goes out all the same, on the peer's next session if that comes first.
    #[error("the peer was silent, and may be gone")]
    InDoubt,
    /// A write made no progress for `stall_timeout`.
    #[error("no write progress for stall_timeout")]
    Stalled,
    /// A drain did not finish within `drain_timeout`.
    #[error("the drain did not finish within drain_timeout")]
    DrainTimeout,
    /// The application's health check refused the session.
    #[error("the health check refused the session")]
    Unhealthy,
    /// Too many sessions were draining; this was the oldest.
    #[error("cut: too many draining sessions")]
    DrainingFull,
    /// The session's own task panicked: a defect of this crate.
    #[error("internal failure of the session")]
    Internal,
}

/// Why a side drains a session, as its goodbye says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum GoodbyeReason {
    /// Answer to the other side's drain.
    #[error("as asked")]
    Answer,
    /// Idle.
    #[error("idle")]
    Idle,
    /// Old.
    #[error("age")]
    Age,
    /// Evicted to make room.
    #[error("evicted")]
    Evicted,
    /// A newer session exists.
    #[error("superseded")]
    Superseded,
    /// The application disconnected.
    #[error("disconnected")]
    Disconnected,
    /// The pool shuts down.
    #[error("shutting down")]
    Shutdown,
    /// A code that this version does not know.
    #[error("code {0}")]
    Other(u8),
}

/// `std::io::ErrorKind` in a form that can be stored and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ErrorKind {
    /// Connection refused.
    Refused,
    /// Connection reset.
    Reset,
    /// Connection aborted.
    Aborted,
    /// Broken pipe.
    BrokenPipe,
    /// The operating system's own time-out.
    TimedOut,
    /// Host or network unreachable.
    Unreachable,
    /// The stream ended.
    UnexpectedEof,
    /// Anything else.
    Other,
}

impl std::fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Refused => "connection refused",
            Self::Reset => "connection reset",
            Self::Aborted => "connection aborted",
            Self::BrokenPipe => "broken pipe",
            Self::TimedOut => "timed out",
            Self::Unreachable => "unreachable",
            Self::UnexpectedEof => "unexpected end of stream",
            Self::Other => "other",
        })
    }
}

impl From<io::ErrorKind> for ErrorKind {
    fn from(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset => Self::Reset,
            io::ErrorKind::ConnectionAborted => Self::Aborted,
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::UnexpectedEof => Self::UnexpectedEof,
            _ => Self::Other,
        }
    }
}
