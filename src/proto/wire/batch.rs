//! ReceiveQueue: received messages that go on together.
//!
//! Owns how messages that came in one frame are told apart again. They stay where they were opened
//! until somebody takes them, so that a thousand little ones cost those in between no more than one.
//! It must never copy a message, and never be given records that were not checked.

use bytes::{Buf, Bytes};

use super::record::HEADER;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MessageBatch {
    /// One message.
    Message(Bytes),
    /// A frame's records: messages, and nothing else.
    Frame {
        /// The rest of the frame.
        records: Bytes,
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
            Self::Frame { records, messages } => records.len() - *messages as usize * HEADER,
        }
    }

    /// Bytes of the first message.
    pub(crate) fn first_bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.len(),
            Self::Frame { records, .. } => first_bytes(records),
        }
    }

    /// Takes the first message; whether it was the last.
    #[inline]
    pub(crate) fn take(&mut self) -> (Bytes, bool) {
        match self {
            Self::Message(message) => (std::mem::take(message), true),
            Self::Frame { records, messages } => {
                let bytes = first_bytes(records);
                *messages = messages.saturating_sub(1);
                let last = *messages == 0;
                records.advance(HEADER.min(records.len()));
                let message = match bytes {
                    0 => Bytes::new(),
                    // The last message takes the frame itself, which saves its reference count.
                    _ if last => std::mem::take(records),
                    _ => records.split_to(bytes),
                };
                (message, last)
            }
        }
    }
}

fn first_bytes(records: &[u8]) -> usize {
    match records {
        &[_, high, low, ..] => u16::from_be_bytes([high, low]).into(),
        _ => 0,
    }
}
