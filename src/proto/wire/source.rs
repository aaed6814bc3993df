//! Where the messages to send come from, and the frame that they go into.
//!
//! Owns the hand-over between a session's queue and its wire. It must never know what else is in a
//! frame.

use bytes::Bytes;

/// Where the messages to send come from.
pub(crate) trait MessageSource {
    /// What comes next. Messages that lie packed as blocks it adds to the frame itself; the peer has to
    /// accept messages of their size. Expired ones are skipped inside.
    fn next(&mut self, plaintext: &mut Plaintext<'_>) -> Next;

    /// The message that was given last is whole in the frame that is being filled, or in this and those
    /// before: here it is again. Packed ones are not given back.
    fn finished(&mut self, _message: Bytes) {}

    /// A frame is sealed; it ends at this byte of the output.
    fn frame_sealed(&mut self, _end: usize) {}
}

/// What a source has next.
pub(crate) enum Next {
    /// A message, for the caller to write.
    Message(Bytes),
    /// So many messages, which are in the frame.
    Packed(u64),
    /// Messages for which the frame has no room, or that may not go yet.
    NoRoom,
    /// Nothing for now.
    Empty,
}

/// What one call of `Connection::seal` wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// Frames that were appended.
    pub(crate) frames: u32,
    /// Messages whose last byte is in one of them, in the order in which the source gave them.
    pub(crate) messages_finished: u64,
    /// Bytes that were appended.
    pub(crate) bytes: usize,
}

/// The plaintext of the frame that is being filled.
pub(crate) struct Plaintext<'a> {
    bytes: &'a mut Vec<u8>,
    capacity: usize,
    /// What is longer than this goes alone, or in parts.
    aim: usize,
}

impl<'a> Plaintext<'a> {
    /// An empty frame of at most `capacity` bytes that uses `scratch` as its memory.
    pub(crate) fn new(scratch: &'a mut Vec<u8>, capacity: usize) -> Self {
        scratch.clear();
        Self { bytes: scratch, capacity, aim: capacity }
    }

    /// A frame that is to have no more than `aim` bytes, where what waits can be cut.
    pub(crate) fn aiming_at(mut self, aim: usize) -> Self {
        self.aim = aim.min(self.capacity);
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Allows `bytes` more.
    pub(crate) fn extend_capacity(&mut self, bytes: usize) {
        self.capacity += bytes;
        self.aim += bytes;
    }

    /// Bytes that may still be added.
    pub(crate) fn room(&self) -> usize {
        self.aim.saturating_sub(self.bytes.len())
    }

    /// Adds packed blocks if all of them fit; an empty frame takes as many as there may be in any.
    #[must_use]
    pub(crate) fn push_packed(&mut self, blocks: &[u8]) -> bool {
        let room = if self.is_empty() { self.capacity } else { self.room() };
        let fits = blocks.len() <= room;
        if fits {
            self.bytes.extend_from_slice(blocks);
        }
        fits
    }

    /// Lets `write` append exactly `length` bytes, if they fit.
    #[inline]
    #[must_use]
    pub(crate) fn push_with(&mut self, length: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let fits = length <= self.room();
        if fits {
            write(self.bytes);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_were_packed_before_the_link_was_known_go_alone() {
        let mut scratch = Vec::new();
        let mut plaintext = Plaintext::new(&mut scratch, 1_000).aiming_at(100);
        assert!(!plaintext.push_packed(&[0; 1_001]), "no frame takes so many");
        assert!(plaintext.push_packed(&[0; 150]));
        assert!(!plaintext.push_packed(&[0; 1]), "it has more than it is to have");
        assert_eq!(plaintext.room(), 0);
    }
}
