//! One established session of the native wire, without its socket.
//!
//! Owns everything that both sides of a session agree on after the handshake: which record may come
//! when, reassembly, rekeying, pings, the drain. It is a [`Connection`](crate::proto::wire::connection),
//! where the use of it is described. It must never panic on anything that a peer sends, never hold more
//! than twice what has arrived, and hold no buffer while nothing is under way.
//!
//! What is in place when, for what we write and for what we accept alike:
//!
//! ```text
//! responder:  verdict ──Accept──▶ open ──Drain──▶ drained ──Goodbye──▶ ended
//!                └──────────────────Reject────────────────────────────▶ ended
//! initiator:  messages behind message 3; silent until it has opened the verdict; then the same
//! ```
//!
//! The messages behind message 3 are opened once our own verdict is yes.
//!
//! Skippable records of later versions are in place while a direction is open, and only there.
//! `Drain` is written once the source is empty, `Goodbye` once the peer's `Drain` has been polled, for
//! only then is `received` final. Messages keep their order: one that is sent in fragments ends before the next begins, and only
//! control records come in between; anything else there is a `FragmentOrder` error.

mod receiving;
mod sending;
mod state;
#[cfg(test)]
#[path = "../../../verify/proto/native/connection/mod.rs"]
mod tests;

pub(crate) use state::{ABILITIES, ConnectionParams, NativeConnection};
