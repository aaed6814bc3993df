//! Exactly one encrypted, authenticated Noise session per peer, shared by all tasks of an overlay router.

pub mod error;
mod id;

pub use id::{AttemptId, Origin, PeerId, SessionId};
