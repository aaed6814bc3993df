//! What can go wrong, one enum per operation; each says whether and when to retry.
//!
//! Owns the public error types of the pool and its sessions. Errors that waiters share are `Clone`
//! and keep their source behind an `Arc`. Nothing here names a key or a payload.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;
use tokio::time::Instant;

use crate::base::address::Address;
use crate::base::id::PeerId;

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
    /// A ping was not answered in time.
    #[error("no answer to a ping")]
    PingTimeout,
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
    /// The operating system's own time-out (`TCP_USER_TIMEOUT` among them).
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
    /// A record where it is not allowed: a second verdict, data before the verdict or after a drain.
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

/// Whether and when an operation is worth repeating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// At once: what stood in the way was of the moment.
    Now,
    /// Not before this moment.
    At(Instant),
    /// Not without changing the call, the configuration or the policy.
    Never,
}

/// Why a call that needs a session to a peer got none.
///
/// All who wait on one dial get clones of one error.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum DialError {
    /// The target is our own identity.
    #[error("the target is our own identity")]
    OwnIdentity,
    /// The pool drains or is closed.
    #[error("the pool is closed")]
    PoolClosed,
    /// No address was given, and the connector knows none.
    #[error("no address for {0:?}")]
    NoAddress(PeerId),
    /// The connector's look-up failed.
    #[error("resolving {peer:?} failed")]
    Resolve {
        /// The peer that was looked up.
        peer: PeerId,
        /// The connector's error.
        #[source]
        source: Arc<io::Error>,
    },
    /// No address could be connected; the last failure is the source.
    #[error("connecting to {address} failed")]
    Connect {
        /// The address that failed last.
        address: Address,
        /// Its failure.
        #[source]
        source: Arc<io::Error>,
    },
    /// The caller's own way to open the stream failed.
    #[error("the caller's stream could not be opened")]
    Open {
        /// The opener's error.
        #[source]
        source: Arc<io::Error>,
    },
    /// Connected, but the handshake failed.
    #[error("the handshake failed")]
    Handshake(#[source] HandshakeError),
    /// The dial did not reach message 2 within `dial_timeout`.
    #[error("no connection within dial_timeout")]
    TimedOut,
    /// The peer did not say yes or no within `verdict_timeout`.
    #[error("no verdict within verdict_timeout")]
    VerdictTimedOut,
    /// The peer refused.
    #[error("{reason}")]
    Rejected {
        /// Why.
        reason: RejectReason,
    },
    /// Our own authorisation or ready check refused the peer.
    #[error("{0}")]
    Check(#[source] Refusal),
    /// The application disconnected the peer while the dial was under way, or refuses it for a time.
    #[error("disconnected by the application")]
    Disconnected,
    /// A dial failed a short while ago, and the next one is not due.
    #[error("backing off after: {cause}")]
    Backoff {
        /// When a dial will be tried again.
        until: Instant,
        /// What failed.
        #[source]
        cause: Arc<DialError>,
    },
    /// The caller's own deadline passed; the dial goes on for others.
    #[error("the caller's deadline passed")]
    Deadline,
    /// One of our own limits was met.
    #[error("limit reached: {0}")]
    Limit(Limit),
    /// The session ended while the caller waited for its turn.
    #[error("the session ended: {0}")]
    SessionEnded(CloseReason),
    /// A callback of the application (connector, opener) panicked, or the dial's own task did.
    #[error("the dial's task or the connector panicked")]
    Panicked,
    /// Every way to the peer ended in a session that was lost at once, as crossing dials can.
    #[error("the dial was superseded, and the session that won has ended")]
    Superseded,
}

impl DialError {
    /// Whether and when the call is worth repeating, seen from `now`.
    ///
    /// A failure that began a backoff is returned to its waiters as [`DialError::Backoff`], so its
    /// moment is known to all of them.
    pub fn retry(&self) -> Retry {
        match self {
            Self::OwnIdentity | Self::PoolClosed | Self::NoAddress(_) => Retry::Never,
            Self::Check(_) | Self::Disconnected => Retry::Never,
            Self::Backoff { until, .. } => Retry::At(*until),
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Open { .. }
            | Self::Handshake(_)
            | Self::TimedOut
            | Self::VerdictTimedOut
            | Self::Rejected { .. }
            | Self::Deadline
            | Self::Limit(_)
            | Self::SessionEnded(_)
            | Self::Panicked
            | Self::Superseded => Retry::Now,
        }
    }

    /// The failure itself, without the backoff that it began.
    pub fn cause(&self) -> &DialError {
        match self {
            Self::Backoff { cause, .. } => cause.cause(),
            other => other,
        }
    }
}

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

/// Why `Pool::send` did not accept a message, with the message.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum SendToError {
    /// No session could be had.
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

/// Why a listener could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The operating system refused the address.
    #[error("listening on {address} failed")]
    Bind {
        /// The address that was asked for.
        address: std::net::SocketAddr,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The pool drains or is closed.
    #[error("the pool is closed")]
    PoolClosed,
}

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
    /// As responder: the peer was told no.
    #[error("rejected: {reason}")]
    Rejected {
        /// Who was refused.
        peer: PeerId,
        /// What it was told.
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
