//! The application's say: whom to admit, whom to trust, when a session is ready and healthy.
//!
//! Owns the calls into code of the application. They run outside every lock, under `hook_timeout`,
//! and a panic in one is a refusal that is logged and counted. A hook that blocks its thread cannot
//! be interrupted: it must be asynchronous.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;

use crate::base::address::Address;
use crate::base::error::Refusal;
use crate::base::id::{Origin, PeerId, SessionId};
use crate::base::io::BoxFuture;
use crate::base::timer::{Elapsed, Timer};

/// A session whose handshake is complete and that waits to be pooled.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Candidate {
    /// The authenticated peer.
    pub peer: PeerId,
    /// The remote end of the stream, where it is known.
    pub address: Option<Address>,
    /// Who dialled.
    pub origin: Origin,
    /// The Noise handshake hash, 32 bytes: after message 2 for a dial, after message 3 for an
    /// accepted connection. It names this handshake and no other.
    pub handshake_hash: [u8; 32],
    /// The number that our own pool drew when it began, as the peer sees it.
    pub our_instance: u64,
    /// The number that the peer's pool drew when it began; another one says that it restarted.
    pub peer_instance: u64,
    /// The largest message that the peer takes, in bytes.
    pub peer_max_message: u32,
    /// What the peer put into its handshake. Empty for a dial: the responder sends its payload
    /// with its verdict, after this check.
    pub application_payload: Bytes,
}

/// An established session, for the health check.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionInfo {
    /// The peer.
    pub peer: PeerId,
    /// The session.
    pub session: SessionId,
    /// Who dialled it.
    pub origin: Origin,
    /// The remote end of the stream, where it is known.
    pub address: Option<Address>,
}

/// The application's checks. Every default says yes.
///
/// Each call is bounded by `hook_timeout`, and the two checks of an inbound peer together by three
/// quarters of `verdict_timeout`, since the peer waits no longer; one that is late or panics counts
/// as a refusal. A hook may call the pool, but one that waits for a session to the very peer that it
/// is asked about waits for itself, until it is late.
pub trait Hooks: Send + Sync + 'static {
    /// Whether to read from an inbound connection at all, by its source address. Asked before any
    /// cryptography.
    fn admit<'a>(&'a self, _source: &'a SocketAddr) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(true))
    }

    /// Whether to have a session with this peer.
    fn authorise<'a>(&'a self, _peer: &'a PeerId, _origin: Origin) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(true))
    }

    /// Whether this session may be pooled: the ready check.
    fn ready<'a>(&'a self, _candidate: &'a Candidate) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(true))
    }

    /// Whether a session that was silent and has just answered a ping is healthy; `None` if there
    /// is nothing to ask.
    fn health(&self, _session: SessionInfo) -> Option<BoxFuture<'static, bool>> {
        None
    }
}

/// Runs one call of a hook: bounded in time, panics contained.
///
/// `call` makes the future, so that a panic before the first poll is contained too.
pub(crate) async fn ask<'a>(
    limit: Duration,
    call: impl FnOnce() -> BoxFuture<'a, bool>,
) -> Result<(), Refusal> {
    match contained(limit, call).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::Refused),
        Err(refusal) => Err(refusal),
    }
}

/// Runs code of the application: bounded in time, panics contained.
pub(crate) async fn contained<'a, T>(
    limit: Duration,
    call: impl FnOnce() -> BoxFuture<'a, T>,
) -> Result<T, Refusal> {
    contained_by(&mut Timer::default(), limit, call).await
}

/// As [`contained`], with the timer of a connection.
pub(crate) async fn contained_by<'a, T>(
    timer: &mut Timer,
    limit: Duration,
    call: impl FnOnce() -> BoxFuture<'a, T>,
) -> Result<T, Refusal> {
    let guarded = pin!(AssertUnwindSafe(async move { call().await }).catch_unwind());
    match timer.timeout(limit, guarded).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_panic)) => Err(Refusal::Panicked),
        Err(Elapsed) => Err(Refusal::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_hook_that_hangs_or_panics_refuses() {
        assert_eq!(ask(LIMIT, || Box::pin(std::future::pending())).await, Err(Refusal::TimedOut));
        assert_eq!(
            ask(LIMIT, || Box::pin(async { panic!("in the future") })).await,
            Err(Refusal::Panicked)
        );
        assert_eq!(ask(LIMIT, || panic!("in the call")).await, Err(Refusal::Panicked));
        assert_eq!(ask(LIMIT, || Box::pin(async { false })).await, Err(Refusal::Refused));
        assert_eq!(ask(LIMIT, || Box::pin(async { true })).await, Ok(()));
    }
}
