//! Batching: what goes out next, packed into as few frames as it fits.
//!
//! Owns the outgoing half of a session between its queue and its cipher: waiting control records,
//! the message that is being fragmented, and the order of all that. It must never hold a buffer
//! while nothing is under way, and never let a message delay a control record by more than a frame.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use crate::base::error::ProtocolError;
use crate::proto::native::frame;
use crate::proto::native::record;
use crate::proto::native::record::Record;

/// Where the messages to send come from.
pub(crate) trait MessageSource {
    /// What comes next. Messages that lie ready as records it adds to the frame itself; the peer has to
    /// accept messages of their size. Expired ones are skipped inside.
    fn next(&mut self, plaintext: &mut Plaintext<'_>) -> Next;
}

/// What a source has next.
pub(crate) enum Next {
    /// A message, for the caller to write.
    Message(Bytes),
    /// So many messages, which are in the frame.
    Records(u64),
    /// Messages for which the frame has no room.
    NoRoom,
    /// Nothing for now.
    Empty,
}

/// What one call of `SessionCore::seal` wrote.
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
}

impl<'a> Plaintext<'a> {
    /// An empty frame that uses `scratch` as its memory and keeps `reserved` bytes free at its end.
    pub(crate) fn new(scratch: &'a mut Vec<u8>, reserved: usize) -> Self {
        scratch.clear();
        Self { bytes: scratch, capacity: frame::MAX_PLAINTEXT - reserved }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Makes the reserved bytes usable.
    pub(crate) fn release_reserved(&mut self) {
        self.capacity = frame::MAX_PLAINTEXT;
    }

    fn room(&self) -> usize {
        self.capacity - self.bytes.len()
    }

    /// Adds records if all of them fit.
    #[must_use]
    pub(crate) fn push_encoded(&mut self, records: &[u8]) -> bool {
        let fits = records.len() <= self.room();
        if fits {
            self.bytes.extend_from_slice(records);
        }
        fits
    }

    /// Adds the record if it fits.
    #[inline]
    #[must_use]
    pub(crate) fn push(&mut self, record: Record<'_>) -> bool {
        let fits = record.encoded_len() <= self.room();
        if fits {
            record.encode(self.bytes);
        }
        fits
    }
}

/// A message that was taken from the source and is not written yet, or not wholly.
#[derive(Debug)]
struct Current {
    rest: Bytes,
    /// Its first fragment is out, so the rest goes as fragments too.
    begun: bool,
}

/// The waiting records of an open session, except verdict, drain and goodbye.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pongs: VecDeque<u64>,
    ping: Option<u64>,
    keep_alive: bool,
    current: Option<Current>,
}

impl Outbox {
    /// Queues an answer. At most `max` answers wait; then the oldest gives way, so that a peer that
    /// pings but does not read cannot make them pile up.
    pub(crate) fn pong(&mut self, nonce: u64, max: usize) {
        if self.pongs.len() >= max {
            self.pongs.pop_front();
        }
        self.pongs.push_back(nonce);
    }

    /// Queues a ping.
    pub(crate) fn ping(&mut self, nonce: u64) {
        self.ping = Some(nonce);
    }

    /// Takes back a ping that was not written yet.
    pub(crate) fn cancel_ping(&mut self) {
        self.ping = None;
    }

    /// Queues a keep-alive; several are one.
    pub(crate) fn keep_alive(&mut self) {
        self.keep_alive = true;
    }

    /// Whether a message was taken from the source and is not written, or not wholly.
    pub(crate) fn message_under_way(&self) -> bool {
        self.current.is_some()
    }

    /// Whether a control record waits or a message is under way.
    pub(crate) fn is_waiting(&self) -> bool {
        self.message_under_way() || self.ping.is_some() || self.keep_alive || !self.pongs.is_empty()
    }

    /// Adds the waiting control records, as far as they fit.
    pub(crate) fn fill_control(&mut self, plaintext: &mut Plaintext<'_>) {
        while let Some(&nonce) = self.pongs.front() {
            if !plaintext.push(Record::Pong(nonce)) {
                return;
            }
            self.pongs.pop_front();
        }
        if self.pongs.capacity() > 0 {
            self.pongs = VecDeque::new();
        }
        if let Some(nonce) = self.ping
            && plaintext.push(Record::Ping(nonce))
        {
            self.ping = None;
        }
        if self.keep_alive && plaintext.push(Record::KeepAlive) {
            self.keep_alive = false;
        }
    }

    /// Adds messages until the frame is full or the source is empty; counts those that ended.
    ///
    /// A message that a frame can hold goes whole: when it does not fit in what is left of this one,
    /// it waits for the next. Only a larger one is fragmented, since its receiver has to copy it.
    pub(crate) fn fill_messages(
        &mut self,
        plaintext: &mut Plaintext<'_>,
        source: &mut dyn MessageSource,
        max_message: usize,
    ) -> Result<Filled, ProtocolError> {
        let mut finished = 0;
        loop {
            let mut current = match self.current.take() {
                Some(current) => current,
                None if plaintext.room() < record::HEADER => {
                    return Ok(Filled { finished, source_empty: false });
                }
                None => match source.next(plaintext) {
                    Next::Message(rest) => {
                        if rest.len() > max_message || u32::try_from(rest.len()).is_err() {
                            return Err(record::too_large(rest.len()));
                        }
                        Current { rest, begun: false }
                    }
                    Next::Records(count) => {
                        finished += count;
                        continue;
                    }
                    Next::NoRoom => return Ok(Filled { finished, source_empty: false }),
                    Next::Empty => return Ok(Filled { finished, source_empty: true }),
                },
            };
            if !current.begun && current.rest.len() <= record::MAX_BODY {
                if plaintext.push(Record::Data(&current.rest)) {
                    finished += 1;
                    continue;
                }
            } else if let Some(room @ 1..) = plaintext.room().checked_sub(record::FRAGMENT_HEADER) {
                let length = room.min(current.rest.len());
                let remaining = current.rest.len() - length;
                let fits = plaintext.push(Record::Fragment {
                    // The length was checked above when the message was taken.
                    remaining: remaining as u32,
                    part: &current.rest[..length],
                });
                debug_assert!(fits, "the part was cut to the room");
                current.begun = true;
                current.rest.advance(length);
                if remaining == 0 {
                    finished += 1;
                    continue;
                }
            }
            self.current = Some(current);
            return Ok(Filled { finished, source_empty: false });
        }
    }
}

/// What [`Outbox::fill_messages`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filled {
    /// Messages whose last byte went into this frame.
    pub(crate) finished: u64,
    /// The source had nothing more, and no message is under way.
    pub(crate) source_empty: bool,
}
