//! What a pool takes from outside besides bytes: the wall clock and randomness.
//!
//! Owns the two sources that a simulation replaces, and their defaults. The monotonic clock is not
//! here: it is tokio's, which tests pause. Nothing in the crate may read the system's clock or
//! randomness except through these, but for the seeds of hash tables, which show in nothing.

use std::time::{SystemTime, UNIX_EPOCH};

/// A source of random bytes.
///
/// Keys are drawn from it, so in production it must be a cryptographically secure generator. A
/// simulation may fix it to make every run the same.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `dest` with random bytes.
    ///
    /// # Panics
    /// An implementation that cannot deliver must panic: predictable bytes would be worse.
    fn fill(&self, dest: &mut [u8]);
}

/// The wall clock, which dates message 1 of a handshake and snapshots.
pub trait WallClock: Send + Sync + 'static {
    /// Seconds since 1970-01-01 00:00 UTC.
    fn unix_seconds(&self) -> u64;
}

/// The operating system's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemWallClock;

impl WallClock for SystemWallClock {
    fn unix_seconds(&self) -> u64 {
        // A clock before 1970 is a clock that was never set; peers will call it skewed.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

/// The operating system's random numbers.
///
/// # Panics
///
/// [`Entropy::fill`] panics when the operating system has none to give: going on without would mean
/// predictable keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    #[expect(clippy::expect_used, reason = "no key may be made without randomness")]
    fn fill(&self, dest: &mut [u8]) {
        getrandom::fill(dest).expect("the operating system provides randomness");
    }
}

/// A share from 0 to 1, both included, drawn evenly from 32 random bits: for jitter.
pub(crate) fn share(entropy: &dyn Entropy) -> f64 {
    let mut random = [0; 4];
    entropy.fill(&mut random);
    f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u8);

    impl Entropy for Fixed {
        fn fill(&self, dest: &mut [u8]) {
            dest.fill(self.0);
        }
    }

    #[test]
    fn a_share_reaches_both_ends() {
        assert_eq!(share(&Fixed(0)), 0.0);
        assert_eq!(share(&Fixed(u8::MAX)), 1.0);
    }
}
