//! Received messages that go on together.
//!
//! Owns how messages that came in one frame are told apart again. They stay where they were opened
//! until the application takes them, so that a thousand little ones cost the layers in between no more
//! than one. It must never copy a message, and must only be given blocks that were checked.

use bytes::{Buf, Bytes};

use super::block::{HEADER, body_len};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MessageBatch {
    /// One message.
    Message(Bytes),
    /// A frame's blocks: messages, and nothing else.
    Frame {
        /// The rest of the frame.
        blocks: Bytes,
        /// How many there are.
        messages: u32,
    },
}

impl MessageBatch {
    /// How many messages there are.
    pub(crate) fn messages(&self) -> usize {
        match self {
            Self::Message(_) => 1,
            Self::Frame { messages, .. } => *messages as usize,
        }
    }

    /// Bytes of all messages.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.len(),
            Self::Frame { blocks, messages } => blocks.len() - *messages as usize * HEADER,
        }
    }

    /// Bytes of the first message.
    pub(crate) fn first_bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.len(),
            Self::Frame { blocks, .. } => body_len(blocks),
        }
    }

    /// Takes the first message; whether it was the last.
    #[inline]
    pub(crate) fn take(&mut self) -> (Bytes, bool) {
        match self {
            Self::Message(message) => (std::mem::take(message), true),
            Self::Frame { blocks, messages } => {
                let bytes = body_len(blocks);
                *messages = messages.saturating_sub(1);
                let last = *messages == 0;
                blocks.advance(HEADER.min(blocks.len()));
                let message = match bytes {
                    0 => Bytes::new(),
                    // The last message takes the frame itself, which saves its reference count.
                    _ if last => std::mem::take(blocks),
                    _ => blocks.split_to(bytes),
                };
                (message, last)
            }
        }
    }
}
