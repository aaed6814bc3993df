//! The stock of large buffers that all sessions of a pool share.
//!
//! Owns buffers between uses, never more than its bound; sessions own them while a poll needs them.
//! It must never hand out bytes of another session: a read buffer's old content is overwritten before
//! it is looked at, a write buffer comes empty.

use std::sync::{Mutex, PoisonError};

use crate::proto::frame::MOST_FRAME;

/// Bytes of a read buffer: two whole frames of the greatest size, so that there is room for one behind
/// the beginning of another. Bulk traffic costs about one system call per frame, and little messages
/// one for hundreds.
pub(super) const READ_BUFFER: usize = 2 * MOST_FRAME;

/// Bytes of a new write buffer. Smaller ones are not kept either: blocked writes shrink theirs, and the
/// stock must not fill up with what is left of those.
pub(super) const WRITE_BUFFER: usize = MOST_FRAME;

/// A write buffer that has grown beyond this is not kept. Buffers double, so this is what one has that
/// holds a batch and its last frame.
pub(super) const LARGEST_KEPT: usize = 2 * WRITE_BUFFER;

/// See the module.
#[derive(Debug)]
pub(crate) struct BufferStock {
    kept: Mutex<Kept>,
    most: usize,
}

#[derive(Debug, Default)]
struct Kept {
    read: Vec<Box<[u8]>>,
    write: Vec<Vec<u8>>,
}

impl BufferStock {
    /// A stock that keeps at most `most` buffers.
    pub(crate) fn new(most: usize) -> Self {
        Self { kept: Mutex::default(), most }
    }

    /// A buffer of [`READ_BUFFER`] bytes of undefined content.
    pub(super) fn take_read(&self) -> Box<[u8]> {
        let kept = self.lock().read.pop();
        kept.unwrap_or_else(|| vec![0; READ_BUFFER].into_boxed_slice())
    }

    pub(super) fn give_read(&self, buffer: Box<[u8]>) {
        debug_assert_eq!(buffer.len(), READ_BUFFER);
        let mut kept = self.lock();
        if kept.read.len() < self.most - self.most / 2 {
            kept.read.push(buffer);
        }
    }

    /// An empty buffer.
    pub(super) fn take_write(&self) -> Vec<u8> {
        let kept = self.lock().write.pop();
        kept.unwrap_or_else(|| Vec::with_capacity(WRITE_BUFFER))
    }

    pub(super) fn give_write(&self, mut buffer: Vec<u8>) {
        if !(WRITE_BUFFER..=LARGEST_KEPT).contains(&buffer.capacity()) {
            return;
        }
        buffer.clear();
        let mut kept = self.lock();
        // Half of the room each, or the kind of which more are wanted at one time crowds out the other.
        if kept.write.len() < self.most / 2 {
            kept.write.push(buffer);
        }
    }

    /// Read and write buffers that are not in use.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize) {
        let kept = self.lock();
        (kept.read.len(), kept.write.len())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_no_more_than_its_bound_and_hands_out_empty_write_buffers() {
        let stock = BufferStock::new(2);
        let mut used = stock.take_write();
        used.push(1);
        let (read, other) = (stock.take_read(), stock.take_write());
        stock.give_write(used);
        stock.give_read(read);
        stock.give_write(other);
        assert_eq!(stock.kept(), (1, 1));
        assert!(stock.take_write().is_empty());
        assert_eq!(stock.take_read().len(), READ_BUFFER);
        assert_eq!(stock.kept(), (0, 0));
    }

    #[test]
    fn buffers_of_odd_sizes_are_not_kept() {
        let stock = BufferStock::new(2);
        stock.give_write(Vec::with_capacity(LARGEST_KEPT + 1));
        stock.give_write(vec![1, 2, 3]);
        assert_eq!(stock.kept(), (0, 0));
    }
}
