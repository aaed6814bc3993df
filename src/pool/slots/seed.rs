//! How the hasher of peers is seeded.
//!
//! Strangers choose their keys. They must not be able to make them collide, so that the hasher takes in
//! all bytes and its seed is secret.

#[cfg(not(noise_pool_loom))]
use std::hash::BuildHasher;
#[cfg(not(noise_pool_loom))]
use std::sync::OnceLock;

#[cfg(not(noise_pool_loom))]
use foldhash::SharedSeed;
#[cfg(not(noise_pool_loom))]
use foldhash::fast::{FixedState, FoldHasher, SeedableRandomState};

/// How the hasher is seeded.
#[derive(Clone, Copy)]
#[cfg_attr(noise_pool_loom, expect(dead_code, reason = "a sorted map has no hasher"))]
pub(crate) enum Seed {
    /// At random.
    Secret {
        /// For the whole process; the first map's counts.
        process: u64,
        /// For this map.
        map: u64,
    },
    /// The same in every run, for simulations.
    Fixed(u64),
}

/// A seeded hasher over all bytes of the key.
#[cfg(not(noise_pool_loom))]
#[derive(Clone)]
pub(super) enum Seeded {
    Random(SeedableRandomState),
    Fixed(FixedState),
}

#[cfg(not(noise_pool_loom))]
impl BuildHasher for Seeded {
    type Hasher = FoldHasher<'static>;

    #[inline]
    fn build_hasher(&self) -> Self::Hasher {
        match self {
            Self::Random(state) => state.build_hasher(),
            Self::Fixed(state) => state.build_hasher(),
        }
    }
}

#[cfg(not(noise_pool_loom))]
impl From<Seed> for Seeded {
    fn from(seed: Seed) -> Self {
        /// The half of the seed that all maps of the process share.
        static SHARED: OnceLock<SharedSeed> = OnceLock::new();
        match seed {
            Seed::Secret { process, map } => {
                let shared = SHARED.get_or_init(|| SharedSeed::from_u64(process));
                Self::Random(SeedableRandomState::with_seed(map, shared))
            }
            Seed::Fixed(seed) => Self::Fixed(FixedState::with_seed(seed)),
        }
    }
}
