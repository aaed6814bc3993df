//! The stock of large buffers that all sessions of a pool share.
//!
//! Owns buffers between uses, never more than its bound; sessions own them while a poll needs them.
//! It must never hand out bytes of another session: a read buffer's old content is overwritten before
//! it is looked at, a write buffer comes empty.

use std::sync::{Mutex, PoisonError};

/// Bytes of a read buffer: one whole frame of the greatest size, so that bulk traffic costs about one
/// system call per frame, and little messages one for hundreds.
pub(super) const READ_BUFFER: usize = crate::proto::frame::MOST_FRAME;

/// A write buffer that has grown beyond this is not kept: a batch and its last frame fit.
const LARGEST_KEPT: usize = 512 * 1024;

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
        if kept.len() < self.most {
            kept.read.push(buffer);
        }
    }

    /// An empty buffer.
    pub(super) fn take_write(&self) -> Vec<u8> {
        self.lock().write.pop().unwrap_or_default()
    }

    pub(super) fn give_write(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() > LARGEST_KEPT || buffer.capacity() == 0 {
            return;
        }
        buffer.clear();
        let mut kept = self.lock();
        if kept.len() < self.most {
            kept.write.push(buffer);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn len(&self) -> usize {
        self.read.len() + self.write.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_no_more_than_its_bound_and_hands_out_empty_write_buffers() {
        let stock = BufferStock::new(2);
        stock.give_write(vec![1, 2, 3]);
        stock.give_read(stock.take_read());
        stock.give_write(vec![4]);
        assert_eq!(stock.lock().len(), 2);
        assert!(stock.take_write().is_empty());
        assert_eq!(stock.take_read().len(), READ_BUFFER);
        assert_eq!(stock.lock().len(), 0);
    }

    #[test]
    fn a_buffer_that_grew_too_large_is_not_kept() {
        let stock = BufferStock::new(2);
        stock.give_write(Vec::with_capacity(LARGEST_KEPT + 1));
        assert_eq!(stock.lock().len(), 0);
    }
}
