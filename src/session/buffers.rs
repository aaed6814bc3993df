//! Large buffers that all sessions of a pool share.
//!
//! Owns buffers between uses, never more than its bound; sessions own them while a poll needs them.
//! A received frame's plaintext is lent one for as long as the application keeps a message of it. It
//! must never hand out bytes of another session: a read buffer's old content is overwritten before it
//! is looked at, a write buffer comes empty.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::base::sync::lock_std;
use crate::proto::wire::connection::{MAX_FRAME, Memory};

/// Bytes of a read buffer: two whole frames of the greatest size, so that there is room for one behind
/// the beginning of another. Bulk traffic costs about one system call per frame, and little messages
/// one for hundreds.
pub(super) const READ_BUFFER: usize = 2 * MAX_FRAME;

/// Bytes of a new write buffer. Smaller ones are not kept either: blocked writes shrink theirs, and the
/// pool must not fill up with what is left of those.
pub(super) const WRITE_BUFFER: usize = MAX_FRAME;

/// A write buffer that has grown beyond this is not kept. Buffers double, so this is what one has that
/// holds a batch and its last frame. It serves for batches alone: any other user of a write buffer may
/// hold it for long, and was promised its size.
pub(super) const LARGEST_KEPT: usize = 2 * WRITE_BUFFER;

/// See the module.
#[derive(Debug)]
pub(crate) struct BufferPool {
    spare: Mutex<Spare>,
    max: usize,
}

#[derive(Debug, Default)]
struct Spare {
    read: Vec<Box<[u8]>>,
    /// Of [`WRITE_BUFFER`] bytes each.
    write: Vec<Vec<u8>>,
    /// Of more, up to [`LARGEST_KEPT`].
    grown: Vec<Vec<u8>>,
}

impl BufferPool {
    /// A pool that keeps at most `max` buffers.
    pub(crate) fn new(max: usize) -> Self {
        Self { spare: Mutex::default(), max }
    }

    /// A buffer of [`READ_BUFFER`] bytes of undefined content.
    pub(super) fn take_read(&self) -> Box<[u8]> {
        let spare = self.lock().read.pop();
        spare.unwrap_or_else(|| vec![0; READ_BUFFER].into_boxed_slice())
    }

    pub(super) fn give_read(&self, buffer: Box<[u8]>) {
        debug_assert_eq!(buffer.len(), READ_BUFFER);
        let mut spare = self.lock();
        if spare.read.len() < self.max - self.max / 2 {
            spare.read.push(buffer);
        }
    }

    /// An empty buffer of [`WRITE_BUFFER`] bytes.
    pub(super) fn take_write(&self) -> Vec<u8> {
        let spare = self.lock().write.pop();
        spare.unwrap_or_else(|| Vec::with_capacity(WRITE_BUFFER))
    }

    /// An empty buffer for a batch, which may outgrow it: one that has grown before, if there is one.
    pub(super) fn take_batch(&self) -> Vec<u8> {
        let spare = {
            let mut spare = self.lock();
            spare.grown.pop().or_else(|| spare.write.pop())
        };
        spare.unwrap_or_else(|| Vec::with_capacity(WRITE_BUFFER))
    }

    pub(super) fn give_write(&self, mut buffer: Vec<u8>) {
        if !(WRITE_BUFFER..=LARGEST_KEPT).contains(&buffer.capacity()) {
            return;
        }
        buffer.clear();
        let has_grown = buffer.capacity() > WRITE_BUFFER;
        let mut spare = self.lock();
        // Half of the room each, or the kind of which more are wanted at one time crowds out the other.
        let full = spare.write.len() + spare.grown.len() >= self.max / 2;
        match (has_grown, full) {
            (true, true) => {}
            (true, false) => spare.grown.push(buffer),
            (false, false) => spare.write.push(buffer),
            // It serves everybody, and takes the place of one that serves batches alone: a surge of
            // those must not leave no room for it from then on.
            (false, true) => {
                if let Some(grown) = spare.grown.pop() {
                    spare.write.push(std::mem::replace(&mut buffer, grown));
                }
            }
        }
    }

    /// Memory of `length` bytes, which comes back with the last message in it. It takes a whole write
    /// buffer, so that `length` should be half of one at least.
    pub(super) fn plaintext(self: &Arc<Self>, length: usize) -> Plaintext {
        debug_assert!((WRITE_BUFFER.div_ceil(2)..=WRITE_BUFFER).contains(&length));
        let mut bytes = self.take_write();
        bytes.resize(length, 0);
        Plaintext { bytes, pool: Arc::clone(self) }
    }

    /// Read and write buffers that are not in use.
    #[cfg(test)]
    pub(super) fn spare(&self) -> (usize, usize) {
        let spare = self.lock();
        (spare.read.len(), spare.write.len() + spare.grown.len())
    }

    fn lock(&self) -> MutexGuard<'_, Spare> {
        lock_std(&self.spare)
    }
}

/// A write buffer that holds a large frame's plaintext. Without it, bulk traffic has the allocator
/// give memory back to the system and get it again all the time.
pub(super) struct Plaintext {
    bytes: Vec<u8>,
    pool: Arc<BufferPool>,
}

impl AsRef<[u8]> for Plaintext {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for Plaintext {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Memory for Plaintext {
    fn size(&self) -> usize {
        self.bytes.capacity()
    }
}

impl From<Plaintext> for Bytes {
    fn from(plaintext: Plaintext) -> Self {
        Self::from_owner(plaintext)
    }
}

impl Drop for Plaintext {
    fn drop(&mut self) {
        self.pool.give_write(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
#[path = "../verify/session/buffers.rs"]
mod tests;
