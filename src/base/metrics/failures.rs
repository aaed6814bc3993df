//! What is counted by kind: failed dials, failed handshakes, refusals.
//!
//! Owns the kinds of failures and their counters, each from one table: a new kind is one line there and
//! one in the `From` of its error. It must never count what is not in a table.

use super::table::{kinds, stats};
use crate::base::error::{DialError, HandshakeError, Refusal, RejectReason};

kinds! {
    /// What kind of failure ended a dial.
    DialFailure,
    /// Dials that did not end in a session, by cause.
    DialFailures, live as DialFailureCounters {
        /// No address was given and none is known.
        NoAddress => no_address;
        /// The look-up of addresses failed.
        Resolve => resolve;
        /// No address could be connected.
        Connect => connect;
        /// Connected, but no message 2: wrong key, network id, suite or clock.
        NoAnswer => no_answer;
        /// The handshake failed otherwise.
        Handshake => handshake;
        /// `dial_timeout` passed.
        TimedOut => timed_out;
        /// `verdict_timeout` passed.
        VerdictTimedOut => verdict_timed_out;
        /// The peer refused.
        Rejected => rejected;
        /// Our own checks refused the peer.
        Refused => refused;
        /// No caller waited any more.
        Cancelled => cancelled;
        /// The application disconnected the peer.
        Disconnected => disconnected;
        /// An inbound session took the dial's place.
        Superseded => superseded;
        /// One of our own limits was met.
        Limit => limit;
        /// The peer turned out to be ourselves.
        OwnIdentity => own_identity;
        /// The pool ended.
        PoolClosed => pool_closed;
        /// The connector or the dial's task panicked.
        Panicked => panicked;
    }
}

impl From<&DialError> for DialFailure {
    fn from(error: &DialError) -> Self {
        match error.cause() {
            DialError::OwnIdentity => Self::OwnIdentity,
            DialError::PoolClosed => Self::PoolClosed,
            DialError::NoAddress(_) => Self::NoAddress,
            DialError::Resolve { .. } => Self::Resolve,
            DialError::Connect { .. } | DialError::Open { .. } => Self::Connect,
            DialError::Handshake(HandshakeError::NoAnswer) => Self::NoAnswer,
            DialError::Handshake(HandshakeError::OwnIdentity) => Self::OwnIdentity,
            DialError::Handshake(HandshakeError::TimedOut) | DialError::TimedOut => Self::TimedOut,
            DialError::Handshake(_) => Self::Handshake,
            DialError::VerdictTimedOut => Self::VerdictTimedOut,
            DialError::Rejected { .. } => Self::Rejected,
            DialError::Check(_) => Self::Refused,
            DialError::Disconnected => Self::Disconnected,
            DialError::Limit(_) => Self::Limit,
            DialError::Panicked => Self::Panicked,
            DialError::Superseded => Self::Superseded,
            // These end one caller's wait, not a dial, or have been unwrapped by `cause`.
            DialError::Deadline | DialError::SessionEnded(_) | DialError::Backoff { .. } => {
                Self::Cancelled
            }
        }
    }
}

kinds! {
    /// What kind of failure ended an inbound handshake.
    HandshakeFailure,
    /// Inbound handshakes that did not end in a session, by cause.
    HandshakeFailures, live as HandshakeFailureCounters {
        /// The stream failed or ended.
        Io => io;
        /// A message did not verify.
        Unverified => unverified;
        /// A message or its payload is malformed.
        Malformed => malformed;
        /// Message 1 is dated too far from our clock.
        Skewed => skewed;
        /// Message 1 was seen before.
        Replayed => replayed;
        /// The peer's key is not canonical, or our own.
        BadKey => bad_key;
        /// It took too long.
        TimedOut => timed_out;
        /// Shed for a newcomer while all places were taken.
        Shed => shed;
    } apart {
        /// Turned away by the limit of its source, before any work.
        source_limited;
        /// Turned away by the application's check of addresses, before any work.
        not_admitted;
    }
}

impl From<&HandshakeError> for HandshakeFailure {
    fn from(error: &HandshakeError) -> Self {
        match error {
            HandshakeError::Io(_) | HandshakeError::NoAnswer => Self::Io,
            HandshakeError::Verify { .. } => Self::Unverified,
            HandshakeError::Length { .. }
            | HandshakeError::Payload { .. }
            | HandshakeError::NoVerdict
            | HandshakeError::Protocol(_) => Self::Malformed,
            HandshakeError::Skewed { .. } => Self::Skewed,
            HandshakeError::Replayed => Self::Replayed,
            HandshakeError::NonCanonicalKey | HandshakeError::OwnIdentity => Self::BadKey,
            HandshakeError::TimedOut => Self::TimedOut,
        }
    }
}

stats! {
    /// Sessions refused, by reason.
    Rejections, live as RejectionCounters, counts RejectReason {
        /// No room.
        RejectReason::Full => full;
        /// Shutting down.
        RejectReason::Draining => draining;
        /// Policy.
        RejectReason::Refused => refused;
        /// The other of two simultaneous dials won.
        RejectReason::Simultaneous => simultaneous;
        /// A newer session exists.
        RejectReason::Duplicate => duplicate;
        /// A reason that this version does not know.
        RejectReason::Other(_) => other;
    }
}

stats! {
    /// Outcomes of the application's callbacks that are not "yes".
    HookStats, live as HookCounters, counts Refusal {
        /// It said no.
        Refusal::Refused => refused;
        /// It took longer than `hook_timeout`.
        Refusal::TimedOut => timed_out;
        /// It panicked.
        Refusal::Panicked => panicked;
    }
}
