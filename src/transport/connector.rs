//! How addresses of a peer, and a stream to an address, are had: the application's part.

use std::io;

use crate::base::address::Address;
use crate::base::id::PeerId;
use crate::base::io::{BoxFuture, BoxedStream, TargetData};

/// How addresses of a peer, and a stream to an address, are had.
///
/// The pool calls it from its own dial tasks, outside every lock and under `connect_timeout`; a
/// panic in it fails the dial and nothing else. A router implements `resolve` over its network
/// database, and `connect` when its peers are not reached by plain TCP.
pub trait Connector: Send + Sync + 'static {
    /// Looks up where `peer` can be reached, best first. The default knows no peer.
    ///
    /// # Errors
    /// An error means that the look-up failed; that the peer is unknown is `Ok` and empty.
    ///
    /// # Cancel safety
    /// The pool drops the future when no caller waits for the dial any more.
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
    /// The pool drops the future when another address was faster, or no caller waits any more.
    fn connect<'a>(
        &'a self,
        address: &'a Address,
        data: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<BoxedStream>>;
}
