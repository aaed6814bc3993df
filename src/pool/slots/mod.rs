//! The slots of all peers, in concurrent maps.
//!
//! [`slot_map`] is what the pool uses. Only this folder names the maps that are underneath: under loom,
//! which cannot see into those of production, others take their place.

mod handle;
#[cfg(noise_pool_loom)]
mod modelled;
#[cfg(not(noise_pool_loom))]
mod read_index;
mod seed;
#[cfg(not(noise_pool_loom))]
mod sharded;
mod slot_map;

pub(crate) use handle::{HandleId, HasHandle, PeerHandle};
pub(crate) use seed::Seed;
pub(crate) use slot_map::{Open, SlotMap};
