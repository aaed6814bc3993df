//! The seam: what the pool asks of a wire's handshake, as types that the compiler checks.
//!
//! Owns the stages of a handshake on either side, and the values that pass through them. It must
//! never decide which session a peer has: a transport says who the peer is and how its connection is
//! dated, and the pool judges.
//!
//! ```text
//! initiator:  Transport::initiate ──▶ Answered ──commit──▶ Committed ──verdict──▶ Established, or no
//! responder:  Transport::respond  ──▶ Proposed ──accept──▶ Established
//!                                              ──reject──▶ (the peer is told, the stream ends)
//! ```
//!
//! # What a transport promises
//!
//! * [`Answered`]: the responder is authenticated, and nothing is committed. From `commit` on the peer
//!   may have accepted, also if the commit fails or is dropped.
//! * [`Committed::verdict`] answers once, and dates the connection: see [`Claim`]. A wire without a
//!   verdict of its own takes the peer's first frame for a yes, a termination or the end of the
//!   stream for a no. It dates its connections by [`Claim::unstamped`], never by the order in which
//!   handshakes ended: two crossing dials would then destroy each other. The rule lets it presume a
//!   yes after a while; the pool does not carry that.
//! * [`Proposed`]: the initiator is authenticated. Nothing is sent to it before `accept` or `reject`.
//! * A handshake that fails as responder has told the stranger nothing.
//! * Each future may be dropped at any await; the stream goes with it.

use std::time::Duration;

use bytes::Bytes;

use crate::base::error::{HandshakeError, RejectReason};
use crate::base::id::PeerId;
use crate::base::io::BoxedStream;
use crate::base::timer::Timer;
use crate::proto::slot::Claim;
use crate::proto::wire::any::AnyConnection;
use crate::proto::wire::connection::Abilities;

/// What all handshakes of one pool share. Clones are handles to the same.
pub(crate) trait Transport: Clone + Send + Sync + 'static {
    type Answered: Answered;
    type Proposed: Proposed;

    /// What its sessions can do.
    fn abilities(&self) -> &'static Abilities;

    /// Our pool's number, as the peers see it; 0 where the wire shows none.
    fn instance(&self) -> u64 {
        0
    }

    /// What our application says of itself in handshakes.
    fn application_payload(&self) -> Bytes {
        Bytes::new()
    }

    /// Replaces it for the handshakes to come.
    fn set_application_payload(&self, _payload: Bytes) {}

    /// The median of the clocks of the peers that we met last, less our own, in seconds.
    fn clock_offset(&self) -> Option<i64> {
        None
    }

    /// Begins the handshake with `peer`, up to the peer's authentication.
    ///
    /// # Errors
    /// [`HandshakeError::NoAnswer`] if the peer closes without a word, as it does if it is not who we
    /// dialled or is of another network; others as the peer's message deserves.
    fn initiate(
        &self,
        peer: &PeerId,
        stream: BoxedStream,
    ) -> impl Future<Output = Result<Self::Answered, HandshakeError>> + Send;

    /// Runs the handshake of a stranger up to its authentication, within time limits of its own.
    /// `verified` is called once the stranger has shown that it knows our key.
    ///
    /// # Errors
    /// [`Failed`]: the peer has been told nothing.
    fn respond(
        &self,
        stream: BoxedStream,
        verified: impl FnOnce() + Send,
    ) -> impl Future<Output = Result<Self::Proposed, Failed>> + Send;
}

/// As initiator: the peer is the one that we dialled, and nothing is committed.
pub(crate) trait Answered: Send + 'static {
    type Committed: Committed;

    /// What is known of the peer by now.
    fn hello(&self) -> &Hello;

    /// Writes the message after which the peer may accept. `stamp` dates the connection. Behind it go the
    /// `first` messages, of the bytes that the wire [allows](Abilities::max_first) and of sizes that the
    /// peer accepts: it opens them when it has accepted, and else never.
    ///
    /// # Errors
    /// [`HandshakeError::Io`]; [`HandshakeError::Payload`] if our application payload is too long.
    fn commit(
        self,
        stamp: u64,
        first: Vec<Bytes>,
    ) -> impl Future<Output = Result<Self::Committed, HandshakeError>> + Send;
}

/// As initiator: the peer may have accepted.
pub(crate) trait Committed: Send + 'static {
    /// Waits for the peer's answer.
    ///
    /// # Errors
    /// [`HandshakeError::Io`] if the stream ends or breaks first; [`HandshakeError::NoVerdict`] if
    /// the peer says something else; [`HandshakeError::Protocol`].
    fn verdict(self) -> impl Future<Output = Result<Verdict, HandshakeError>> + Send;
}

/// As responder: the peer is authenticated and waits for our answer.
pub(crate) trait Proposed: Send + 'static {
    /// What is known of the peer and its connection.
    fn proposal(&self) -> &Proposal;

    /// Accepts: the first bytes that the session writes say so.
    fn accept(self, acceptance: Acceptance) -> Box<Established>;

    /// Tells the peer no, and why, and waits up to a second for it to close: closing at once could
    /// destroy the answer on its way.
    fn reject(
        self,
        reason: RejectReason,
        retry_after: Option<Duration>,
    ) -> impl Future<Output = ()> + Send;
}

/// A handshake that failed as responder, and the stream on which the peer must hear nothing of it.
pub(crate) struct Failed {
    pub(crate) error: HandshakeError,
    /// To be read and discarded for a while, then closed; none if it is broken already.
    pub(crate) stream: Option<BoxedStream>,
}

/// What an initiator knows of its peer before it commits.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    /// The number of the peer's pool; 0 where the wire shows none.
    pub(crate) instance: u64,
    /// The largest message that the peer accepts, in bytes.
    pub(crate) max_message: u32,
    /// What names this handshake so far.
    pub(crate) handshake_hash: [u8; 32],
}

/// What a responder knows of its peer before it answers.
#[derive(Clone, Debug)]
pub(crate) struct Proposal {
    /// The authenticated peer.
    pub(crate) peer: PeerId,
    /// What decides between this connection and another to the same peer.
    pub(crate) claim: Claim,
    /// The number of the peer's pool; 0 where the wire shows none.
    pub(crate) instance: u64,
    /// The largest message that the peer accepts, in bytes.
    pub(crate) max_message: u32,
    /// What names this handshake.
    pub(crate) handshake_hash: [u8; 32],
    /// What the peer's application says of itself.
    pub(crate) application_payload: Bytes,
}

/// What a responder says when it accepts.
#[derive(Clone, Debug)]
pub(crate) struct Acceptance {
    /// Dates the connection; drawn under the lock of the slot.
    pub(crate) stamp: u64,
    /// The peer's address as we see it; empty if the stream has none.
    pub(crate) observed: String,
}

/// A peer's answer to a committed dial.
pub(crate) enum Verdict {
    Accepted(Accepted),
    Rejected {
        reason: RejectReason,
        /// For how long the peer wants to be left alone.
        retry_after: Option<Duration>,
        /// Half-closes and waits up to a second for the peer to close as well.
        closing: crate::base::io::BoxFuture<'static, ()>,
    },
}

/// A connection that the peer has accepted.
pub(crate) struct Accepted {
    pub(crate) established: Box<Established>,
    /// What decides between this connection and another to the same peer.
    pub(crate) claim: Claim,
    /// How the peer sees our address; empty if it did not say.
    pub(crate) observed: String,
    /// What the peer's application says of itself.
    pub(crate) application_payload: Bytes,
}

/// A session without a driver: its connection, and the stream that it runs on. Boxed on its way, which
/// leads through many hands.
pub(crate) struct Established {
    pub(crate) stream: BoxedStream,
    /// That of the handshake, where it had one here.
    pub(crate) timer: Timer,
    /// As initiator it may hold further events that came in the verdict's frame.
    pub(crate) connection: AnyConnection,
    /// Bytes that were read past the handshake.
    pub(crate) leftover: Vec<u8>,
    /// What names the whole handshake.
    pub(crate) handshake_hash: [u8; 32],
    /// The largest message that the peer accepts, in bytes.
    pub(crate) peer_max_message: u32,
}
