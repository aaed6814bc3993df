//! How a byte stream to a peer is had, and which handshake runs on it.
//!
//! [`seam`] says what a transport must do, [`any`] which there are, [`native`] is ours.

mod any;
mod connector;
pub(crate) mod native;
pub(crate) mod seam;
mod tcp;
mod tcp_stream;

pub(crate) use any::{AnyAnswered, AnyProposed, AnyTransport};
pub use connector::Connector;
pub(crate) use tcp::Listener;
pub use tcp::TcpConnector;
