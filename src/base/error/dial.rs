//! Why a call that needs a session gets none, and when to call again.
//!
//! Owns [`DialError`] and [`Retry`]. All callers that wait on one dial get clones of one error, so
//! it keeps its source behind an `Arc`.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use thiserror::Error;

use super::close::CloseReason;
use super::handshake::HandshakeError;
use super::limit::Limit;
use super::reject::{Refusal, RejectReason};
use crate::base::address::Address;
use crate::base::id::PeerId;

/// Whether and when an operation is worth repeating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// At once: the obstacle was of the moment.
    Now,
    /// Not before this moment.
    At(Instant),
    /// Not without changing the call, the configuration or the policy.
    Never,
}

/// Why a call that needs a session to a peer got none.
///
/// All callers that wait on one dial get clones of one error.
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
    /// The verdict of the peer did not come within `verdict_timeout`.
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
    /// The session ended while the caller waited for a lease.
    #[error("the session ended: {0}")]
    SessionEnded(CloseReason),
    /// A callback of the application (connector, opener) panicked, or the dial's own task did.
    #[error("the dial's task or the connector panicked")]
    Panicked,
    /// Every dial and session to the peer was lost at once, as crossing dials can be.
    #[error("the dial was superseded, and the session that won has ended")]
    Superseded,
}

impl DialError {
    /// Whether and when the call is worth repeating.
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
