//! What can go wrong: one enum per operation. A dial's says whether and when to retry.
//!
//! A table of contents. What the protocol needs (`close`, `handshake`, `limit`, `protocol`, `reject`)
//! knows neither addresses nor tokio. Nothing here names a key or a payload.

mod adopt;
mod close;
mod dial;
mod handshake;
mod limit;
mod listen;
mod protocol;
mod reject;
mod send;

pub use adopt::AdoptError;
pub use close::{CloseReason, ErrorKind, GoodbyeReason};
pub use dial::{DialError, Retry};
pub use handshake::HandshakeError;
pub use limit::Limit;
pub use listen::ListenError;
pub use protocol::ProtocolError;
pub use reject::{Refusal, RejectReason, RejectedBy};
pub use send::{PingError, SendError, SendErrorKind, SendToError, SessionClosed};
