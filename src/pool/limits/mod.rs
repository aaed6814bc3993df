//! What the pool bounds: counts by permits, slots, idleness, the sessions that drain.

mod capacity;
mod counted;
mod draining;
mod idle;
mod idle_index;
mod slot_permit;

pub(crate) use capacity::{Capacity, Reserved, with_permit};
pub(crate) use counted::{CountedLimit, Permit};
pub(crate) use draining::Draining;
pub(crate) use idle::IdleSessions;
pub(crate) use idle_index::Evict;
pub(crate) use slot_permit::SlotPermit;
