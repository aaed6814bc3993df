//! What is sealed and not wholly written, and the messages in it.
//!
//! Owns the sealed bytes, how many of them are written, and the messages until the frames that hold them
//! are: a peer cannot open a frame of which it lacks a byte, so a message whose frame is not wholly
//! written has certainly not been delivered. It must never take a message for undelivered that could be.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite as _;

use crate::base::io::BoxedStream;
use crate::session::buffers::BufferPool;
use crate::session::send::buffer::{Entry, QueuedMessages};
use crate::session::send::quota::Reserved;

/// Bytes that a blocked write may waste in a buffer too large for it.
const SLACK: usize = 4 * 1024;

/// Messages and frames of a batch for which an idle session keeps memory (some 300 bytes).
const IDLE: usize = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
    /// Bytes in front of `bytes` that were sealed with them; they are written, and their memory is free.
    cut: u32,
    /// The write was blocked before: its messages have no memory left to give back.
    are_messages_shrunk: bool,
    messages: QueuedMessages,
    frames: Vec<SealedFrame>,
}

/// A frame of the batch.
#[derive(Clone, Copy, Debug)]
struct SealedFrame {
    /// Where it ends, counted from the batch's first byte.
    end: usize,
    /// How many entries of messages end in it and in those before it.
    entries: usize,
}

impl Outgoing {
    /// Whether nothing waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Where a batch is to be sealed into, and where its messages are kept.
    pub(super) fn begin(&mut self, buffers: &BufferPool) -> (&mut Vec<u8>, OutgoingMessages<'_>) {
        debug_assert!(self.bytes.is_empty() && self.messages.is_empty());
        self.bytes = buffers.take_batch();
        let Self { bytes, messages, frames, .. } = self;
        (bytes, OutgoingMessages { messages, frames })
    }

    /// Writes more of it; how many bytes.
    pub(super) fn poll_write(
        &mut self,
        stream: &mut BoxedStream,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(stream).poll_write(cx, &self.bytes[self.written..]);
        if let Poll::Ready(Ok(count)) = written {
            self.written += count;
        }
        written
    }

    /// Whether all of it is written.
    pub(super) fn is_written(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// All of it is written, or there is nothing in it: its memory is free. What its messages had cost.
    pub(super) fn finish(&mut self, buffers: &BufferPool) -> Reserved {
        buffers.give_write(std::mem::take(&mut self.bytes));
        (self.written, self.cut, self.are_messages_shrunk) = (0, 0, false);
        self.frames.clear();
        let mut reserved = Reserved::default();
        while let Some(entry) = self.messages.pop() {
            reserved.add(entry.reserved());
            if let Entry::Packed(packed) = entry {
                packed.give_back(buffers);
            }
        }
        reserved
    }

    /// A write is blocked, perhaps for long: it keeps no more memory than four times what it still has
    /// to write. Less would have busy sessions, whose writes block all the time, copy most of them.
    pub(super) fn shrink_blocked(&mut self, buffers: &BufferPool) {
        let rest = &self.bytes[self.written..];
        if self.bytes.capacity() > 4 * rest.len() + SLACK {
            let rest = rest.to_vec();
            buffers.give_write(std::mem::replace(&mut self.bytes, rest));
            // A batch and its last frame are far smaller than that.
            self.cut += std::mem::take(&mut self.written) as u32;
        }
        if !std::mem::replace(&mut self.are_messages_shrunk, true) {
            self.messages.shrink_packed(SLACK, buffers);
        }
    }

    /// Keeps no memory that only traffic needs.
    pub(super) fn shrink_idle(&mut self) {
        self.messages.shrink_to(IDLE);
        if self.frames.is_empty() && self.frames.capacity() > IDLE {
            self.frames = Vec::new();
        }
    }

    /// The messages that have certainly not been delivered, in order. There is nothing to write any more.
    pub(super) fn take_unsent(&mut self) -> QueuedMessages {
        let written = self.cut as usize + self.written;
        let whole = self.frames.iter().rfind(|frame| frame.end <= written);
        let in_flight = whole.map_or(0, |frame| frame.entries);
        let mut messages = std::mem::take(self).messages;
        for _ in 0..in_flight {
            drop(messages.pop());
        }
        messages
    }
}

/// Where the messages of a batch are kept while it is sealed.
pub(super) struct OutgoingMessages<'a> {
    messages: &'a mut QueuedMessages,
    frames: &'a mut Vec<SealedFrame>,
}

impl OutgoingMessages<'_> {
    /// These are whole in the frame that is being filled.
    #[inline]
    pub(super) fn push(&mut self, entry: Entry) {
        self.messages.push(entry);
    }

    /// A frame ends here.
    pub(super) fn frame_sealed(&mut self, end: usize) {
        self.frames.push(SealedFrame { end, entries: self.messages.len() });
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;
    use tokio::io::duplex;

    use super::*;
    use crate::session::send::buffer::{Queued, Terms};

    /// Three frames of 100 bytes: messages 0 and 1, nothing but control records, message 2.
    fn sealed(buffers: &BufferPool) -> Outgoing {
        let mut outgoing = Outgoing::default();
        let (out, mut messages) = outgoing.begin(buffers);
        for (end, numbers) in [(100, 0..2), (200, 0..0), (300, 2..3)] {
            out.resize(end, 0);
            for number in numbers {
                let body = Bytes::from(vec![number]);
                messages.push(Entry::Message(Queued { body, terms: Terms::for_tests() }));
            }
            messages.frame_sealed(end);
        }
        outgoing
    }

    fn numbers(mut messages: QueuedMessages) -> Vec<u8> {
        let next = || match messages.pop()? {
            Entry::Message(message) => Some(message.body[0]),
            Entry::Packed(_) => None,
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_message_is_unsent_until_its_frame_is_written_whole() {
        for (written, unsent) in
            [(0, vec![0, 1, 2]), (99, vec![0, 1, 2]), (100, vec![2]), (299, vec![2]), (300, vec![])]
        {
            let buffers = BufferPool::new(4);
            let mut outgoing = sealed(&buffers);
            let cx = &mut Context::from_waker(Waker::noop());
            let mut left = written;
            while left > 0 {
                // As little as it takes: memory is given back between writes.
                let (near, _far) = duplex(left.min(50));
                let mut stream: BoxedStream = Box::new(near);
                let Poll::Ready(Ok(count)) = outgoing.poll_write(&mut stream, cx) else {
                    panic!("there is room")
                };
                left -= count;
                outgoing.shrink_blocked(&buffers);
            }
            assert_eq!(outgoing.is_written(), written == 300);
            assert_eq!(numbers(outgoing.take_unsent()), unsent, "{written} bytes are written");
            assert!(outgoing.is_empty());
        }
    }
}
