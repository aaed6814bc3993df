//! Who may use a session.
//!
//! A [`LeaseCore`](core::LeaseCore) is what all leases of a session hold together; its `Arc`'s count is
//! the count of leases. The [table](table) lists the cores of one session, the [slab](slab) has memory
//! for those to come. These know sessions only as [`Leased`](core::Leased); the public
//! [`Lease`](handle::Lease) and its [waiters](waiter) know them all.

pub(super) mod core;
pub(super) mod handle;
pub(super) mod slab;
pub(super) mod table;
pub(super) mod waiter;
