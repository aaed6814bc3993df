//! The application's say: whom to admit, whom to trust, when a session is ready and healthy.
//!
//! Owns the public trait [`Hooks`] and what its methods are shown; how they are asked is in `checks`.
//! A hook that blocks its thread cannot be interrupted: it must be asynchronous.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::base::address::Address;
use crate::base::id::{Origin, PeerId, SessionId};
use crate::base::io::BoxFuture;

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
