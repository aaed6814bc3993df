//! The seam between the pool and what is below it: how a byte stream to a peer is had, and which
//! handshake runs on it.
//!
//! Owns [`Connector`] and [`Address`], the TCP connector, and the native handshake. It must never
//! decide who may have a session: it says who the peer is, and the pool judges.
//!
//! # A second transport
//!
//! The pool knows a handshake only by what `native` gives it. Another one (NTCP2, say) has to provide
//! the same five items, with the same promises:
//!
//! * an object per pool with `initiate` and `respond`, which says nothing to a stranger on failure;
//! * `Answered`: the responder is authenticated and nothing is committed. `commit` is the moment
//!   from which on the peer may have accepted;
//! * `Committed`: `verdict` waits for the peer's yes or no;
//! * `Proposed`: the initiator is authenticated and waits for `established` or `reject`;
//! * `Established`: a stream and a [`NativeConnection`](crate::proto::native::connection::NativeConnection) on it.
//!
//! A wire that has no verdict of its own answers `Accept` from the first frame it reads, and takes
//! its stamp from the order in which handshakes ended.

pub(crate) mod native;
mod tcp;

use std::io;

pub use tcp::TcpConnector;
pub(crate) use tcp::configure_tcp;

use crate::base::address::Address;
use crate::base::id::PeerId;
use crate::base::io::{BoxFuture, BoxedStream, TargetData};

/// How addresses of a peer, and a stream to an address, are had.
///
/// The pool calls it from its own dial tasks, outside every lock and under `connect_timeout`; a
/// panic in it fails the dial and nothing else. A router implements `resolve` over its network
/// database, and `connect` when its peers are not reached by plain TCP.
pub trait Connector: Send + Sync + 'static {
    /// Looks up where `peer` can be reached, best first. The default knows nobody.
    ///
    /// # Errors
    /// An error means that the look-up failed; that the peer is unknown is `Ok` and empty.
    ///
    /// # Cancel safety
    /// The pool drops the future when nobody waits for the dial any more.
    fn resolve<'a>(
        &'a self,
        peer: &'a PeerId,
        data: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<Vec<Address>>> {
        let (_, _) = (peer, data);
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Opens a stream to `address`.
    ///
    /// # Errors
    /// Whatever kept the stream from opening; it becomes the source of
    /// [`DialError::Connect`](crate::base::error::DialError::Connect).
    ///
    /// # Cancel safety
    /// The pool drops the future when another address was faster, or nobody waits any more.
    fn connect<'a>(
        &'a self,
        address: &'a Address,
        data: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<BoxedStream>>;
}
