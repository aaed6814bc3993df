//! Names of things: peers, sessions, dial attempts, and the side that opened a session.
//!
//! Owns the identifiers and their text forms. Numbers given out here never repeat within a process,
//! so that a stale handle can never be taken for its successor.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use data_encoding::{BASE32_NOPAD, DecodeKind};
use thiserror::Error;

/// Characters of a [`PeerId`]'s text form: 256 bits in digits of 5.
const TEXT: usize = 52;
/// Characters of its short form: 40 bits tell the peers of one log apart.
const SHORT: usize = 8;

/// A router, named by 32 bytes that its transport authenticates: on the native wire, its X25519
/// static public key in canonical form (RFC 7748, section 5).
///
/// Any 32 bytes are a name. A transport refuses those that it cannot authenticate when they are
/// dialled: the native one with
/// [`HandshakeError::NonCanonicalKey`](crate::error::HandshakeError::NonCanonicalKey).
///
/// Ordering is by bytes, lexicographically; the simultaneous-open rule depends on it.
/// `Display` is the full text form, 52 characters of base32 (RFC 4648, section 6) in lower case
/// without padding; `Debug` and [`PeerId::short`] show its first 8, for logs.
///
/// ```
/// use noise_pool::PeerId;
///
/// let peer: PeerId = "eaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".parse()?;
/// assert_eq!(peer.as_bytes()[0], 0x20);
/// assert_eq!(peer.short().to_string(), "eaaaaaaa");
/// # Ok::<(), noise_pool::error::PeerIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// The peer of this name.
    pub const fn from_bytes(name: [u8; 32]) -> Self {
        Self(name)
    }

    /// The 32 bytes of the name.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 8 characters of the text form, to be shown in logs.
    pub fn short(&self) -> impl fmt::Display + use<> {
        Text::<SHORT>(*self)
    }
}

/// The first `N` characters of a peer's text form.
struct Text<const N: usize>(PeerId);

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; TEXT];
        BASE32_NOPAD.encode_mut(&self.0.0, &mut text);
        text.make_ascii_lowercase();
        f.pad(std::str::from_utf8(&text[..N]).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Text::<TEXT>(*self).fmt(f)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", self.short())
    }
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = text.chars().enumerate().find(|(_, c)| !matches!(c, 'a'..='z' | '2'..='7'));
        if let Some((at, character)) = found {
            let position = at + 1;
            return Err(PeerIdError::Character { character, position });
        }
        if text.len() != TEXT {
            return Err(PeerIdError::Length(text.len()));
        }
        let mut name = [0; 32];
        BASE32_NOPAD.decode_mut(text.to_ascii_uppercase().as_bytes(), &mut name).map_err(
            |partial| match partial.error.kind {
                DecodeKind::Trailing => PeerIdError::TrailingBits,
                _ => PeerIdError::Length(text.len()),
            },
        )?;
        Ok(Self(name))
    }
}

/// Why a text is not a [`PeerId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PeerIdError {
    /// The text has another length.
    #[error("a peer id has 52 characters, not {0}")]
    Length(usize),
    /// The text has a character that is not in its alphabet.
    #[error("{character:?} at position {position} is not in a peer id's alphabet, a-z and 2-7")]
    Character {
        /// What was found.
        character: char,
        /// Where, counted in characters from 1.
        position: usize,
    },
    /// The last character holds more than the last bit: the text is of no 32 bytes.
    #[error("a peer id ends in a or q, since its last character holds one bit only")]
    TrailingBits,
}

/// Implements serde for a type by its text form.
#[cfg(feature = "serde")]
macro_rules! serde_as_text {
    ($name:ident, $expected:literal) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                struct Text;

                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                input.deserialize_str(Text)
            }
        }
    };
}
#[cfg(feature = "serde")]
pub(crate) use serde_as_text;

#[cfg(feature = "serde")]
serde_as_text!(PeerId, "a peer id: 52 characters of a-z and 2-7");

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

            /// A chosen number, for tests whose states must be reproducible.
            #[cfg(test)]
            pub(crate) fn from_raw(n: u64) -> Self {
                let Some(n) = NonZeroU64::new(n) else { panic!("identifiers start at 1") };
                Self(n)
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

/// Which side opened a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Origin {
    /// We dialled: we are the Noise initiator.
    Outbound,
    /// The peer dialled, and we accepted: we are the Noise responder.
    Inbound,
}

#[cfg(test)]
#[path = "../verify/base/id.rs"]
mod tests;
