//! Snapshots of a pool: plain values, copied at one moment, that can be stored and compared.
//!
//! Owns the types of [`Snapshot`]. A snapshot borrows nothing and changes nothing. The fields and their
//! order are the binary format (`codec`): a change of them begins a new format version. In JSON the
//! unit of a length of time is in its name (`age_ns`).

use std::time::Duration;

use super::stats::Stats;
use crate::base::address::Address;
use crate::base::id::{AttemptId, Origin, PeerId, SessionId};

/// A pool at one moment.
///
/// Each session and each dial is consistent in itself; they are copied one after another, so that a
/// session that replaced another meanwhile may show up beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// When it was taken, in seconds since 1970-01-01 00:00 UTC.
    pub taken_at_unix: u64,
    /// The pool's own identity.
    pub peer: PeerId,
    /// Every live session: ready, retired and draining.
    pub sessions: Vec<SessionSnapshot>,
    /// Every dial under way.
    pub dials: Vec<DialSnapshot>,
    /// The pool's limits and what they hold.
    pub limits: Limits,
    /// The pool's counters.
    pub stats: Stats,
}

/// One session at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SessionSnapshot {
    /// The peer at the other end.
    pub peer: PeerId,
    /// Its number in this process.
    pub session: SessionId,
    /// The side that opened it.
    pub origin: Origin,
    /// The other end's address, if the stream has one.
    pub remote: Option<Address>,
    /// Whether it is handed out.
    pub state: SessionState,
    /// Since it was established.
    #[cfg_attr(feature = "serde", serde(rename = "age_ns", with = "super::nanos"))]
    pub age: Duration,
    /// Since the last data either way, or checkout or return of a lease.
    #[cfg_attr(feature = "serde", serde(rename = "idle_ns", with = "super::nanos"))]
    pub idle: Duration,
    /// Leases out.
    pub leases: u32,
    /// Bytes read from the socket.
    pub bytes_in: u64,
    /// Bytes written to the socket.
    pub bytes_out: u64,
    /// Messages received whole.
    pub messages_in: u64,
    /// Messages handed to the socket.
    pub messages_out: u64,
    /// Bytes read per second, lately.
    pub rate_in: u64,
    /// Bytes written per second, lately.
    pub rate_out: u64,
    /// Messages accepted and not written yet.
    pub queue_messages: u64,
    /// Bytes that those cost, bookkeeping included.
    pub queue_bytes: u64,
    /// Bytes received that the application has not taken yet.
    pub undelivered_bytes: u64,
    /// Messages dropped because their deadline passed in the queue.
    pub expired: u64,
    /// Round-trip time, smoothed, once a ping was answered.
    #[cfg_attr(feature = "serde", serde(rename = "rtt_ns", with = "super::nanos::option"))]
    pub rtt: Option<Duration>,
    /// Since the last ping was answered, if one was.
    #[cfg_attr(feature = "serde", serde(rename = "last_ping_ns", with = "super::nanos::option"))]
    pub last_ping: Option<Duration>,
    /// Keys changed, both directions together.
    pub rekeys: u64,
    /// How long the handshake took, verdict included.
    #[cfg_attr(feature = "serde", serde(rename = "handshake_time_ns", with = "super::nanos"))]
    pub handshake_time: Duration,
}

/// Whether a session is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum SessionState {
    /// It is.
    Ready,
    /// No more: its users finish, then it drains.
    Retired,
    /// It flushes and closes.
    Draining,
}

/// One dial at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct DialSnapshot {
    /// The peer that is dialled.
    pub peer: PeerId,
    /// Its number in this process.
    pub attempt: AttemptId,
    /// How far it is.
    pub phase: DialPhase,
    /// Since it began.
    #[cfg_attr(feature = "serde", serde(rename = "age_ns", with = "super::nanos"))]
    pub age: Duration,
    /// The addresses that it tries.
    pub addresses: Vec<Address>,
    /// Callers that wait for it.
    pub waiters: u32,
}

/// How far a dial is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum DialPhase {
    /// It waits for room or for its turn.
    Queued,
    /// Its addresses are looked up.
    Resolving,
    /// Its addresses are tried, up to message 2.
    Connecting,
    /// The peer answered; our own checks run.
    Checking,
    /// Message 3 is written or about to be: the peer decides.
    Committed,
    /// An inbound session took its place; its own verdict is still awaited.
    Superseded,
}

/// What the pool's limits are and hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Limits {
    /// Slots: live sessions and dials (`max_sessions`).
    pub sessions: LimitUse,
    /// Inbound sessions (`max_inbound`).
    pub inbound: LimitUse,
    /// Draining sessions (`max_draining`).
    pub draining: LimitUse,
    /// Dials under way (`max_concurrent_dials`).
    pub dials: LimitUse,
    /// Dials that wait for their turn (`max_queued_dials`).
    pub queued_dials: LimitUse,
    /// Strangers in the handshake (`max_pending_handshakes`).
    pub pending_handshakes: LimitUse,
    /// Connections that are only read and discarded (`max_discarding`).
    pub discarding: LimitUse,
    /// Bytes queued beyond each session's `min_queue` (`max_buffered_bytes`).
    pub buffered_bytes: LimitUse,
    /// Bytes received and not taken yet (`inbox_bytes`). Sessions that drain or have ended may leave up
    /// to `max_buffered_bytes` more, so that this one may be beyond its limit.
    pub inbox_bytes: LimitUse,
}

/// One limit: what it holds, held at most, and may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LimitUse {
    /// Held now.
    pub held: u64,
    /// The most that was ever held at one moment.
    pub high_water: u64,
    /// The limit.
    pub limit: u64,
}
