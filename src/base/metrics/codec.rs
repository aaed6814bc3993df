//! The binary form of snapshots: `Snapshot::encode` and `Snapshot::decode`.
//!
//! Owns the format, and is the only file that names `bincode`. That crate is no longer maintained
//! (RUSTSEC-2025-0141; its version 3.0.0 does not compile on purpose), so it is pinned, stays behind a
//! feature of its own, and must never be put on the wire. Input is treated as hostile all the same: a
//! file's length is checked before anything is read, texts are borrowed from the input, and a sequence
//! is given room for 1 MiB at most before its elements are there.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic: `89 4E 50 53 4E 41 50 0A` |
//! | 2 | format version, little-endian |
//! | 8 | length of what follows, little-endian |
//! | rest | the fields of [`Snapshot`] in their order: integers in full width, little-endian; lengths as `u64`, variants as `u32`; peers and addresses as text |
//!
//! A change of a type of a snapshot raises [`VERSION`] and keeps a reader for older files. What version 2
//! has more than version 1 are numbers at the end, which are 0 in a file of version 1.

use std::fmt;

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::error::DecodeError;
use thiserror::Error;

use super::snapshot::Snapshot;

/// The first bytes of a file. The first is no text, and the last shows up an editor that has changed
/// the ends of lines.
const MAGIC: [u8; 8] = *b"\x89NPSNAP\n";
/// The format version that is written.
const VERSION: u16 = 2;
/// The oldest that is read.
const OLDEST: u16 = 1;
/// Bytes that version 2 has more: `messages_carried` and `messages_unsent`.
const ADDED: usize = 2 * 8;
/// Magic, version and length.
const HEADER: usize = MAGIC.len() + 2 + 8;

/// A short name in this file.
const MAX: usize = Snapshot::MAX_ENCODED_LEN;

const FORM: Configuration<LittleEndian, Fixint, Limit<MAX>> =
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<MAX>();

impl Snapshot {
    /// The longest binary form, in bytes: 64 MiB, which holds about 250,000 sessions.
    pub const MAX_ENCODED_LEN: usize = 64 << 20;

    /// The binary form, to be stored and read again by [`Snapshot::decode`].
    ///
    /// # Errors
    ///
    /// [`SnapshotEncodeError`] if it would be longer than [`Snapshot::MAX_ENCODED_LEN`].
    pub fn encode(&self) -> Result<Vec<u8>, SnapshotEncodeError> {
        let payload = bincode::serde::encode_to_vec(self, FORM).map_err(|_| SnapshotEncodeError)?;
        // Values that are written always have a form; what is left to fail is the length.
        if payload.len() > MAX - HEADER {
            return Err(SnapshotEncodeError);
        }
        let mut out = Vec::with_capacity(HEADER + payload.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        out.extend_from_slice(&payload);
        Ok(out)
    }

    /// Reads the binary form. All input must belong to it.
    ///
    /// Input of more than [`Snapshot::MAX_ENCODED_LEN`] is refused unread. Whatever it claims,
    /// decoding takes at most 1 MiB and sixteen times the bytes that are there; a good snapshot
    /// takes at most about three times its length.
    ///
    /// # Errors
    ///
    /// [`SnapshotDecodeError`] says what is wrong with the input.
    pub fn decode(input: &[u8]) -> Result<Self, SnapshotDecodeError> {
        if input.len() > MAX {
            return Err(SnapshotDecodeError::TooLong { length: input.len(), max: MAX });
        }
        let magic = &input[..input.len().min(MAGIC.len())];
        if magic != &MAGIC[..magic.len()] {
            return Err(SnapshotDecodeError::NotASnapshot);
        }
        let short =
            SnapshotDecodeError::Truncated { expected: HEADER as u64, found: input.len() as u64 };
        let Some((header, payload)) = input.split_first_chunk::<HEADER>() else {
            return Err(short);
        };
        let [_, _, _, _, _, _, _, _, v0, v1, length @ ..] = *header;
        let version = u16::from_le_bytes([v0, v1]);
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(SnapshotDecodeError::Version { found: version, known: VERSION });
        }
        let expected = u64::from_le_bytes(length);
        let found = payload.len() as u64;
        if found < expected {
            return Err(SnapshotDecodeError::Truncated { expected, found });
        }
        if found > expected {
            return Err(SnapshotDecodeError::Trailing { bytes: found - expected });
        }
        let as_current = (version == OLDEST).then(|| [payload, &[0; ADDED]].concat());
        let payload = as_current.as_deref().unwrap_or(payload);
        // Borrowing: an owned string would be given the room that it claims before it is read.
        let (snapshot, read) = bincode::serde::borrow_decode_from_slice(payload, FORM)
            .map_err(|error| SnapshotDecodeError::Malformed(Malformed(error)))?;
        if read < payload.len() {
            return Err(SnapshotDecodeError::Trailing { bytes: (payload.len() - read) as u64 });
        }
        Ok(snapshot)
    }
}

/// The snapshot is too large to be stored: its binary form would be longer than
/// [`Snapshot::MAX_ENCODED_LEN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the snapshot's binary form would be longer than {MAX} bytes")]
pub struct SnapshotEncodeError;

/// Why some bytes are not a snapshot.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotDecodeError {
    /// More bytes than any snapshot has; nothing was read.
    #[error("{length} bytes are too long for a snapshot, the most is {max}")]
    TooLong {
        /// Their number.
        length: usize,
        /// The most that is read.
        max: usize,
    },
    /// They do not begin as a snapshot does.
    #[error("not a snapshot: it does not begin with a snapshot's magic bytes")]
    NotASnapshot,
    /// A version of the format that this crate does not know.
    #[error(
        "the snapshot has format version {found}, known are those up to {known}: read it with the release that wrote it"
    )]
    Version {
        /// The version that was found.
        found: u16,
        /// The newest version that is known.
        known: u16,
    },
    /// They end too early.
    #[error("the snapshot is cut off: {found} of {expected} bytes are there")]
    Truncated {
        /// How many should follow.
        expected: u64,
        /// How many do.
        found: u64,
    },
    /// They go on after the end.
    #[error("{bytes} bytes follow the end of the snapshot")]
    Trailing {
        /// How many.
        bytes: u64,
    },
    /// A value inside is none of its type.
    #[error("the snapshot is malformed: {0}")]
    Malformed(Malformed),
}

/// What is wrong inside of a snapshot; for people, by `Display`.
pub struct Malformed(DecodeError);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            DecodeError::UnexpectedEnd { .. } => f.write_str("a value goes past the end"),
            DecodeError::LimitExceeded => f.write_str("a length goes past the limit"),
            DecodeError::Utf8 { .. } => f.write_str("a text is not UTF-8"),
            DecodeError::UnexpectedVariant { type_name, found, .. } => {
                write!(f, "{type_name} has no variant {found}")
            }
            DecodeError::Other(text) => f.write_str(text),
            DecodeError::OtherString(text) => f.write_str(text),
            other => fmt::Debug::fmt(other, f),
        }
    }
}

impl fmt::Debug for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
#[path = "../../verify/base/metrics/codec.rs"]
mod tests;
