//! One established session: its leases, its queues, and the driver that owns socket and keys.
//!
//! Owns everything between a caller's `send` and the bytes on the stream, and back to the inbox.
//! It must never decide which session a peer has: the pool does, and hears of what it has to know
//! through [`Host`].
//!
//! | where | what |
//! |---|---|
//! | `state`, `life` | [`Session`]: what leases, driver and pool share of one session; how far it has come |
//! | `context` | [`SessionContext`]: what all sessions of a pool share |
//! | `lease` | who may use a session: shares, their count, waiting for one |
//! | `exclusive` | all leases of a session at once, with its received messages |
//! | `send` | from [`Lease::send`] to the driver |
//! | `receive` | from the driver to [`Inbox::recv`] |
//! | `driver` | the one future that owns socket and keys |
//! | `host` | what a session tells the pool |

mod buffers;
mod context;
mod driver;
mod exclusive;
mod host;
mod lease;
mod life;
mod metrics;
mod probe;
mod receive;
mod send;
mod signal;
mod state;
#[cfg(test)]
#[path = "../verify/session/mod.rs"]
mod tests;

pub use exclusive::ExclusiveLease;
pub use lease::handle::{Lease, SendOptions};
pub use receive::inbox::{Inbox, Message};

pub(crate) use driver::task::Driver;
pub(crate) use host::{Ended, Host};
pub(crate) use lease::handle::{LeaseCore, LeaseHandle, UncountedRef};
pub(crate) use lease::waiter::LeaseWaiter;
pub(crate) use life::Availability;
pub(crate) use send::unsent::Unsent;
pub(crate) use state::{CarriedOver, Session, SessionContext, SessionSpec};
