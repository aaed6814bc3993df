//! What goes out next, packed into as few frames as it fits.
//!
//! Owns the outgoing half of a session between its queue and its cipher: waiting control records,
//! the message that is being fragmented, and the order of all that. It must never hold a buffer
//! while nothing is under way, and never let a message delay a control record by more than a frame.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use crate::base::error::ProtocolError;
use crate::proto::native::record;
use crate::proto::native::record::Record;
use crate::proto::wire::block;
use crate::proto::wire::source::{MessageSource, Next, Plaintext};

/// A message that was taken from the source and is not written yet, or not wholly.
#[derive(Debug)]
struct Current {
    rest: Bytes,
    /// All of it, once its first fragment is out; then the rest goes as fragments too.
    begun: Option<Bytes>,
}

/// The waiting records of an open session, except verdict, drain and goodbye.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pongs: VecDeque<u64>,
    ping: Option<u64>,
    keep_alive: bool,
    receipt: bool,
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

    /// Queues a receipt; several are one, and whatever goes out is one as well.
    pub(crate) fn receipt(&mut self) {
        self.receipt = true;
    }

    /// Whether a message was taken from the source and is not written, or not wholly.
    pub(crate) fn message_under_way(&self) -> bool {
        self.current.is_some()
    }

    /// The message that was taken from the source and is not written, or not wholly.
    pub(crate) fn take_unfinished(&mut self) -> Option<Bytes> {
        let Current { rest, begun } = self.current.take()?;
        Some(begun.unwrap_or(rest))
    }

    /// Whether a control record waits or a message is under way.
    pub(crate) fn is_waiting(&self) -> bool {
        self.message_under_way()
            || self.ping.is_some()
            || self.keep_alive
            || self.receipt
            || !self.pongs.is_empty()
    }

    /// Adds the waiting control records, as far as they fit.
    pub(crate) fn fill_control(&mut self, plaintext: &mut Plaintext<'_>) {
        while let Some(&nonce) = self.pongs.front() {
            if !push(plaintext, Record::Pong(nonce)) {
                return;
            }
            self.pongs.pop_front();
        }
        if self.pongs.capacity() > 0 {
            self.pongs = VecDeque::new();
        }
        if let Some(nonce) = self.ping
            && push(plaintext, Record::Ping(nonce))
        {
            self.ping = None;
        }
        if self.keep_alive && push(plaintext, Record::KeepAlive) {
            self.keep_alive = false;
        }
        if std::mem::take(&mut self.receipt) && plaintext.is_empty() {
            let fits = push(plaintext, Record::Skippable { kind: record::RECEIPT, body: &[] });
            debug_assert!(fits, "the frame is empty");
        }
    }

    /// Adds messages until the frame is full or the source is empty; counts those that ended.
    ///
    /// A message that a frame can hold goes whole: when it does not fit in what is left of this one,
    /// it waits for the next. Only one that is larger, or larger than frames are to be on this link, is
    /// fragmented, since its receiver has to copy it.
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
                None if plaintext.room() < block::HEADER => {
                    return Ok(Filled { finished, source_empty: false });
                }
                None => match source.next(plaintext) {
                    Next::Message(rest) => {
                        if rest.len() > max_message || u32::try_from(rest.len()).is_err() {
                            return Err(record::too_large(rest.len()));
                        }
                        Current { rest, begun: None }
                    }
                    Next::Packed(count) => {
                        finished += count;
                        continue;
                    }
                    Next::NoRoom => return Ok(Filled { finished, source_empty: false }),
                    Next::Empty => return Ok(Filled { finished, source_empty: true }),
                },
            };
            let is_whole = current.begun.is_none() && current.rest.len() <= record::MAX_BODY;
            if is_whole && push(plaintext, Record::Data(&current.rest)) {
                source.finished(current.rest);
                finished += 1;
                continue;
            }
            // What does not fit in an empty frame goes in parts.
            let waits = is_whole && !plaintext.is_empty();
            if !waits
                && let Some(room @ 1..) = plaintext.room().checked_sub(record::FRAGMENT_HEADER)
            {
                let length = room.min(current.rest.len());
                let remaining = current.rest.len() - length;
                let fits = push(
                    plaintext,
                    Record::Fragment {
                        // The length was checked above when the message was taken.
                        remaining: remaining as u32,
                        part: &current.rest[..length],
                    },
                );
                debug_assert!(fits, "the part was cut to the room");
                let whole = current.begun.get_or_insert_with(|| current.rest.clone());
                if remaining == 0 {
                    source.finished(std::mem::take(whole));
                    finished += 1;
                    continue;
                }
                current.rest.advance(length);
            }
            self.current = Some(current);
            return Ok(Filled { finished, source_empty: false });
        }
    }
}

/// Adds the record if it fits.
#[inline]
#[must_use]
pub(crate) fn push(plaintext: &mut Plaintext<'_>, record: Record<'_>) -> bool {
    plaintext.push_with(record.encoded_len(), |bytes| record.encode(bytes))
}

/// What [`Outbox::fill_messages`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filled {
    /// Messages whose last byte went into this frame.
    pub(crate) finished: u64,
    /// The source had nothing more, and no message is under way.
    pub(crate) source_empty: bool,
}
