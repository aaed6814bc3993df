//! What an established session needs of its wire, whichever wire it is.
//!
//! [`Connection`](connection::Connection) is the contract, which the compiler checks; everything else
//! here is the plain data that crosses it. A session's driver holds an
//! [`AnyConnection`](any::AnyConnection) and asks for [`Abilities`](connection::Abilities), never for
//! the wire. To add a wire is to implement the trait and to add a variant to that enum.

pub(crate) mod any;
pub(crate) mod batch;
pub(crate) mod block;
pub(crate) mod connection;
pub(crate) mod source;
