//! Why a listener does not open.
//!
//! Owns [`ListenError`].

use std::io;

use thiserror::Error;

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
