//! The transports that a pool can speak, behind one type.
//!
//! Owns the choice and nothing else: one variant per wire, to which each method is passed on. A pool
//! speaks one wire. With one variant the choice costs nothing; another costs a branch per call.

use std::time::Duration;

use bytes::Bytes;

use super::native::{self, Native};
use super::seam::{
    Acceptance, Answered, Committed, Established, Failed, Hello, Proposal, Proposed, Transport,
    Verdict,
};
use crate::base::error::{HandshakeError, RejectReason};
use crate::base::id::PeerId;
use crate::base::io::BoxedStream;
use crate::proto::wire::connection::Abilities;
#[cfg(any(test, noise_pool_plain_wire))]
use crate::verify::plain::transport as plain;

/// Defines the stage of every wire, and the two ways to pass a call on to it.
macro_rules! any {
    ($(#[$meta:meta])* $Any:ident, $native:ty, $plain:ty) => {
        $(#[$meta])*
        pub(crate) enum $Any {
            Native($native),
            /// The wire of tests, which lacks what a wire may lack.
            #[cfg(any(test, noise_pool_plain_wire))]
            Plain($plain),
        }
    };
}

/// Passes a call on.
macro_rules! pass {
    ($any:expr, $inner:ident => $call:expr) => {
        match $any {
            Self::Native($inner) => $call,
            #[cfg(any(test, noise_pool_plain_wire))]
            Self::Plain($inner) => $call,
        }
    };
}

/// Passes a call on whose result is the next stage.
macro_rules! step {
    ($any:expr, $inner:ident => $call:expr, $Next:ident) => {
        match $any {
            Self::Native($inner) => $call.map($Next::Native),
            #[cfg(any(test, noise_pool_plain_wire))]
            Self::Plain($inner) => $call.map($Next::Plain),
        }
    };
}

any! {
    /// What all handshakes of one pool share.
    #[derive(Clone)]
    AnyTransport, Native, plain::Plain
}
any!(
    /// As initiator: the peer is authenticated.
    AnyAnswered, native::Answered, plain::Answered
);
any!(
    /// As initiator: the peer may have accepted.
    AnyCommitted, native::Committed, plain::Committed
);
any!(
    /// As responder: the peer is authenticated.
    AnyProposed, native::Proposed, plain::Proposed
);

impl Transport for AnyTransport {
    type Answered = AnyAnswered;
    type Proposed = AnyProposed;

    fn abilities(&self) -> &'static Abilities {
        pass!(self, it => it.abilities())
    }

    fn instance(&self) -> u64 {
        pass!(self, it => it.instance())
    }

    fn application_payload(&self) -> Bytes {
        pass!(self, it => it.application_payload())
    }

    fn set_application_payload(&self, payload: Bytes) {
        pass!(self, it => it.set_application_payload(payload));
    }

    fn clock_offset(&self) -> Option<i64> {
        pass!(self, it => it.clock_offset())
    }

    async fn initiate(
        &self,
        peer: &PeerId,
        stream: BoxedStream,
    ) -> Result<AnyAnswered, HandshakeError> {
        step!(self, it => it.initiate(peer, stream).await, AnyAnswered)
    }

    async fn respond(
        &self,
        stream: BoxedStream,
        verified: impl FnOnce() + Send,
    ) -> Result<AnyProposed, Failed> {
        step!(self, it => it.respond(stream, verified).await, AnyProposed)
    }
}

impl Answered for AnyAnswered {
    type Committed = AnyCommitted;

    fn hello(&self) -> &Hello {
        pass!(self, it => it.hello())
    }

    async fn commit(self, stamp: u64, first: Vec<Bytes>) -> Result<AnyCommitted, HandshakeError> {
        step!(self, it => it.commit(stamp, first).await, AnyCommitted)
    }
}

impl Committed for AnyCommitted {
    async fn verdict(self) -> Result<Verdict, HandshakeError> {
        pass!(self, it => it.verdict().await)
    }
}

impl Proposed for AnyProposed {
    fn proposal(&self) -> &Proposal {
        pass!(self, it => it.proposal())
    }

    fn accept(self, acceptance: Acceptance) -> Box<Established> {
        pass!(self, it => it.accept(acceptance))
    }

    async fn reject(self, reason: RejectReason, retry_after: Option<Duration>) {
        pass!(self, it => it.reject(reason, retry_after).await);
    }
}
