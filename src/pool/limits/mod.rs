//! What the pool bounds: counts by permits, room for sessions, idleness.

pub(crate) mod capacity;
pub(crate) mod counted;
pub(crate) mod idle;
