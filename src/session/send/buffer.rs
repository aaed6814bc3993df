//! Accepted messages, in order, from the queue to the driver.
//!
//! Owns the form in which they wait: small ones packed as blocks in common memory, so that sealing
//! copies bytes and touches no message; others as they came. It must never reorder them, and
//! never take much more memory than they have paid for.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use crate::base::config::message_cost;
use crate::proto::wire::block;
use crate::proto::wire::block::HEADER;
use crate::proto::wire::connection::Abilities;
use crate::session::buffers::{BufferPool, WRITE_BUFFER};

use super::quota::{Quota, Reserved};

/// Largest message that is copied. Up to here a copy costs less than the reference count that the
/// driver need not give back; at 1 KiB nothing is gained any more.
const SMALL: usize = 256;

/// Entries for which an empty buffer keeps memory (1 KiB); what a burst needed beyond is given back.
const LARGE_IDLE: usize = 16;

/// What waits next.
#[derive(Debug)]
pub(crate) enum Entry {
    Message(Queued),
    Packed(Packed),
}

impl Entry {
    /// How many messages there are in it.
    pub(crate) fn messages(&self) -> u64 {
        match self {
            Self::Message(_) => 1,
            Self::Packed(packed) => packed.messages(),
        }
    }

    /// What they cost.
    pub(crate) fn reserved(&self) -> Reserved {
        match self {
            Self::Message(message) => message.reserved(),
            Self::Packed(packed) => packed.reserved(),
        }
    }
}

/// A message by itself.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) body: Bytes,
    pub(crate) terms: Terms,
}

/// What is known of a message besides its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) deadline: Option<Instant>,
    quota: Quota,
}

#[cfg(test)]
impl Terms {
    /// Those of a message that the session's own reserve has paid for.
    pub(crate) fn for_tests() -> Self {
        Self { deadline: None, quota: Quota::Session }
    }
}

impl Queued {
    /// What it cost.
    pub(crate) fn reserved(&self) -> Reserved {
        Reserved::of(self.terms.quota, message_cost(self.body.len()))
    }
}

/// Small messages without deadlines, as blocks.
#[derive(Debug)]
pub(crate) struct Packed {
    bytes: Vec<u8>,
    messages: u32,
    reserved: Reserved,
}

impl Packed {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn messages(&self) -> u64 {
        self.messages.into()
    }

    /// What all of them cost.
    pub(crate) fn reserved(&self) -> Reserved {
        self.reserved
    }

    /// Bytes of the longest, or a few more.
    pub(super) fn longest(&self) -> usize {
        SMALL.min(self.bytes.len())
    }

    /// They are done with.
    pub(crate) fn give_back(self, buffers: &BufferPool) {
        buffers.give_write(self.bytes);
    }

    /// Whether a message of `len` bytes may lie here too.
    fn takes(&self, len: usize, max_packed: usize) -> bool {
        let max = self.bytes.capacity().min(max_packed);
        self.bytes.len() + HEADER + len <= max
    }

    fn push(&mut self, kind: u8, body: &[u8], quota: Quota) {
        block::put(&mut self.bytes, kind, body);
        self.messages += 1;
        self.reserved.add(Reserved::of(quota, message_cost(body.len())));
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SendBuffer {
    queued: QueuedMessages,
    /// None: messages are not packed.
    packing: Option<Packing>,
}

/// What waits, in order.
#[derive(Debug, Default)]
pub(crate) struct QueuedMessages {
    entries: VecDeque<Entry>,
}

/// How the wire packs small messages.
#[derive(Clone, Copy, Debug)]
struct Packing {
    /// The type of a block that is a message.
    kind: u8,
    /// Most bytes of blocks that lie together on this wire.
    max: u32,
    /// The same on this link.
    limit: u32,
}

impl SendBuffer {
    /// An empty buffer for messages on a wire with these abilities.
    pub(crate) fn new(abilities: &Abilities) -> Self {
        let max = u32::try_from(abilities.max_packed).unwrap_or(u32::MAX);
        let packing = abilities.data_type.map(|kind| Packing { kind, max, limit: max });
        Self { queued: QueuedMessages::default(), packing }
    }

    /// Packs up to so many bytes together from now on.
    pub(crate) fn pack_up_to(&mut self, bytes: usize) {
        if let Some(packing) = &mut self.packing {
            packing.limit = u32::try_from(bytes).unwrap_or(u32::MAX).min(packing.max);
        }
    }

    /// Puts these in front of all that waits.
    pub(crate) fn push_front(&mut self, mut earlier: QueuedMessages) {
        earlier.append(std::mem::take(&mut self.queued));
        self.queued = earlier;
    }

    /// What waits.
    pub(crate) fn queued(&mut self) -> &mut QueuedMessages {
        &mut self.queued
    }

    /// Adds a message: takes it out of `body`, or copies it and leaves `body` as it was. `paid` are the
    /// bytes that the session's messages have paid for: memory for blocks is at most as much again.
    #[inline]
    pub(crate) fn push(
        &mut self,
        body: &mut Bytes,
        deadline: Option<Instant>,
        quota: Quota,
        paid: usize,
        buffers: &BufferPool,
    ) {
        let packing = match self.packing {
            Some(packing) if body.len() <= SMALL && deadline.is_none() => packing,
            _ => {
                let body = std::mem::take(body);
                let terms = Terms { deadline, quota };
                self.queued.entries.push_back(Entry::Message(Queued { body, terms }));
                return;
            }
        };
        if let Some(Entry::Packed(last)) = self.queued.entries.back_mut()
            && last.takes(body.len(), packing.limit as usize)
        {
            return last.push(packing.kind, body, quota);
        }
        let bytes = match paid.max(HEADER + body.len()) {
            WRITE_BUFFER.. => buffers.take_write(),
            size => Vec::with_capacity(size),
        };
        let mut packed = Packed { bytes, messages: 0, reserved: Reserved::default() };
        packed.push(packing.kind, body, quota);
        self.queued.entries.push_back(Entry::Packed(packed));
    }
}

impl QueuedMessages {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
    }

    /// Adds these behind.
    pub(crate) fn append(&mut self, mut later: Self) {
        if self.entries.is_empty() {
            *self = later;
        } else {
            self.entries.append(&mut later.entries);
        }
    }

    /// Takes out what `keep` does not want, in order.
    pub(crate) fn split_off(&mut self, keep: impl Fn(&Entry) -> bool) -> Self {
        let (kept, other) = std::mem::take(&mut self.entries).into_iter().partition(keep);
        self.entries = kept;
        Self { entries: other }
    }

    pub(crate) fn front(&self) -> Option<&Entry> {
        self.entries.front()
    }

    pub(crate) fn pop(&mut self) -> Option<Entry> {
        self.entries.pop_front()
    }

    /// While there are none, keeps memory for no more than so many.
    pub(crate) fn shrink_to(&mut self, entries: usize) {
        if self.entries.is_empty() && self.entries.capacity() > entries {
            self.entries = VecDeque::new();
        }
    }

    /// Keeps no memory that only traffic needs.
    pub(crate) fn shrink(&mut self) {
        self.shrink_to(LARGE_IDLE);
    }

    /// Blocks that may wait for long keep no more memory than four times what they have, and `slack`.
    pub(crate) fn shrink_packed(&mut self, slack: usize, buffers: &BufferPool) {
        for entry in &mut self.entries {
            if let Entry::Packed(Packed { bytes, .. }) = entry
                && bytes.capacity() > 4 * bytes.len() + slack
            {
                let exact = bytes.as_slice().to_vec();
                buffers.give_write(std::mem::replace(bytes, exact));
            }
        }
    }
}

#[cfg(test)]
#[path = "../../verify/session/send/buffer.rs"]
mod tests;
