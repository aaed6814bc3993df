//! Names of things: peers, sessions, dial attempts, and who began a session.
//!
//! Owns the identifiers and their text forms. Numbers given out here never repeat within a process,
//! so that a stale handle can never be taken for its successor.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

/// A remote router, named by its canonical X25519 static public key (32 bytes).
///
/// Ordering is by bytes, lexicographically; the simultaneous-open rule depends on it.
/// `Display` is the full text form, `Debug` and [`PeerId::short`] a short one for logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// The key's bytes, as they travel in handshakes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

macro_rules! process_unique {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        pub struct $name(NonZeroU64);

        impl $name {
            /// The next number of this process.
            pub(crate) fn next() -> Self {
                static NEXT: AtomicU64 = AtomicU64::new(1);
                let n = NEXT.fetch_add(1, Ordering::Relaxed);
                // A counter of 2^64 cannot wrap in the life of a process.
                Self(NonZeroU64::new(n).unwrap_or(NonZeroU64::MAX))
            }

            /// The number itself, for logs and tables.
            pub const fn get(self) -> u64 {
                self.0.get()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

process_unique! {
    /// One session of this process; never given out twice.
    SessionId
}
process_unique! {
    /// One dial of this process; never given out twice.
    AttemptId
}

/// Who opened a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Origin {
    /// We dialled: we are the Noise initiator.
    Outbound,
    /// The peer dialled, and we accepted: we are the Noise responder.
    Inbound,
}
