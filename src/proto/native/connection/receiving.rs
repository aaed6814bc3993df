//! The receiving half: decrypts, checks whether each record is in place, delivers.
//!
//! Owns what a frame may change and when. A frame is checked as a whole before any of it is
//! delivered, and delivered record by record from its own bytes, so that twenty thousand empty
//! messages in one frame cost no more memory than the frame. It must never trust a length that it
//! has not checked, and never hold more than twice what has arrived.

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};

use super::state::{NativeConnection, Opened, Phase};
use crate::base::error::ProtocolError;
use crate::proto::native::crypto::TAG;
use crate::proto::native::frame;
use crate::proto::native::record;
use crate::proto::native::record::{Record, Verdict};
use crate::proto::wire::batch::MessageBatch;
use crate::proto::wire::block;
use crate::proto::wire::connection::{Event, Memory};

impl Opened {
    /// The next `length` bytes as a message.
    fn take(&mut self, length: usize) -> Bytes {
        if length == 0 {
            Bytes::new()
        } else if self.sparse {
            let message = Bytes::copy_from_slice(&self.plaintext[..length]);
            self.plaintext.advance(length);
            message
        } else if length == self.plaintext.len() {
            // The last message takes the frame itself, which saves its reference count.
            std::mem::take(&mut self.plaintext)
        } else {
            self.plaintext.split_to(length)
        }
    }
}

impl NativeConnection {
    /// Decrypts one frame's body and checks all that it says; nothing of a frame that breaks the
    /// protocol is delivered, and the session is over.
    pub(super) fn receive<M: Memory>(
        &mut self,
        ciphertext: &[u8],
        now: Instant,
        memory: impl FnOnce(usize) -> M,
    ) -> Result<(), ProtocolError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.decrypt(ciphertext, memory)
            .and_then(|(plaintext, memory)| self.look_at(plaintext, memory, now))
            .inspect_err(|&error| self.failed = Some(error))
    }

    /// The plaintext, and how much memory it holds.
    fn decrypt<M: Memory>(
        &mut self,
        ciphertext: &[u8],
        memory: impl FnOnce(usize) -> M,
    ) -> Result<(Bytes, usize), ProtocolError> {
        let length = u16::try_from(ciphertext.len()).unwrap_or(u16::MAX);
        if !(frame::MIN_CIPHERTEXT..=frame::MAX_CIPHERTEXT).contains(&ciphertext.len()) {
            return Err(ProtocolError::FrameLength(length));
        }
        let mut memory = memory(ciphertext.len() - TAG);
        self.transport.open(ciphertext, memory.as_mut())?;
        let size = memory.size();
        Ok((memory.into(), size))
    }

    /// Checks all that a frame says, and keeps it to be polled.
    fn look_at(
        &mut self,
        plaintext: Bytes,
        memory: usize,
        now: Instant,
    ) -> Result<(), ProtocolError> {
        let mut rest = &plaintext[..];
        let mut messages = 0;
        let mut all_messages = Some(0);
        let mut rtt = None;
        while !rest.is_empty() {
            let (record, length) = Record::decode(rest)?;
            rest = &rest[length..];
            self.check(record, now)?;
            if let Record::Data(_) = record {
                messages += length;
                all_messages = all_messages.map(|count| count + 1);
                continue;
            }
            all_messages = None;
            match record {
                Record::Pong(nonce) => rtt = Some(self.check_pong(nonce, now)?),
                Record::Rekey if !rest.is_empty() => {
                    return Err(ProtocolError::OutOfPlace(record::REKEY));
                }
                _ => {}
            }
        }
        let opened = Opened { plaintext, all_messages, sparse: messages < memory / 2, rtt };
        match self.opened {
            None => self.opened = Some(opened),
            Some(_) => self.opened_later.push_back(opened),
        }
        Ok(())
    }

    /// Whether the record is in place, and what that changes.
    fn check(&mut self, record: Record<'_>, now: Instant) -> Result<(), ProtocolError> {
        let out_of_place = ProtocolError::OutOfPlace(record.kind());
        match (self.receiving, record) {
            (Phase::Verdict, Record::Verdict(body)) => {
                let phase = match Verdict::decode(body)? {
                    Verdict::Accept { .. } => Phase::Open,
                    Verdict::Reject { .. } => Phase::Ended,
                };
                (self.sending, self.receiving) = (phase, phase);
            }
            (Phase::First | Phase::Open, Record::Data(message)) => {
                if self.missing > 0 {
                    return Err(ProtocolError::FragmentOrder);
                }
                if message.len() > self.params.max_message {
                    return Err(record::too_large(message.len()));
                }
            }
            (Phase::First | Phase::Open, Record::Fragment { remaining, part }) => {
                self.check_fragment(remaining, part.len())?;
            }
            (Phase::Open, Record::Ping(nonce)) => self.check_ping(nonce, now)?,
            (Phase::Open, Record::Rekey) => {
                self.transport.rekey_incoming();
                self.rekeys += 1;
            }
            (Phase::Open, Record::Drain) => {
                if self.missing > 0 {
                    return Err(ProtocolError::FragmentOrder);
                }
                self.receiving = Phase::Drained;
                // It will not answer any more.
                self.open_ping = None;
                self.outbox.cancel_ping();
            }
            (Phase::Open, Record::Pong(_) | Record::KeepAlive | Record::Skippable { .. }) => {}
            // Its count is final only after our own drain.
            (Phase::Drained, Record::Goodbye { .. })
                if matches!(self.sending, Phase::Drained | Phase::Ended) =>
            {
                self.receiving = Phase::Ended;
            }
            _ => return Err(out_of_place),
        }
        Ok(())
    }

    fn check_fragment(&mut self, remaining: u32, part: usize) -> Result<(), ProtocolError> {
        // A part is at most a frame, so the sum needs 33 bits at most.
        let total = u64::from(remaining) + part as u64;
        if self.missing == 0 {
            if total > self.params.max_message as u64 {
                return Err(ProtocolError::MessageTooLarge(
                    u32::try_from(total).unwrap_or(u32::MAX),
                ));
            }
        } else if total != u64::from(self.missing) {
            return Err(ProtocolError::FragmentOrder);
        }
        self.missing = remaining;
        Ok(())
    }

    fn check_ping(&mut self, nonce: u64, now: Instant) -> Result<(), ProtocolError> {
        const SECOND: Duration = Duration::from_secs(1);
        let Some(share) = SECOND.checked_div(self.params.pings_per_second) else {
            return Err(ProtocolError::PingFlood);
        };
        let paid_until = self.pings_paid_until.map_or(now, |until| until.max(now));
        if paid_until.saturating_duration_since(now) + share > SECOND {
            return Err(ProtocolError::PingFlood);
        }
        self.pings_paid_until = Some(paid_until + share);
        let max = self.params.pings_per_second as usize;
        self.outbox.pong(nonce, max);
        Ok(())
    }

    fn check_pong(&mut self, nonce: u64, now: Instant) -> Result<Duration, ProtocolError> {
        let Some((_, sent_at)) = self.open_ping.take_if(|(open, _)| *open == nonce) else {
            return Err(ProtocolError::UnknownPong);
        };
        let rtt = now.saturating_duration_since(sent_at);
        // RFC 6298, section 2: the first sample as it is, then one eighth of each.
        self.srtt = Some(match self.srtt {
            None => rtt,
            Some(srtt) => srtt - srtt / 8 + rtt / 8,
        });
        Ok(rtt)
    }

    /// The messages of the next frame, if it holds nothing else; then there is nothing to poll in it.
    pub(super) fn take_messages(&mut self) -> Option<MessageBatch> {
        let messages = self.opened.as_ref()?.all_messages?;
        let blocks = self.opened.take()?.plaintext;
        self.opened = self.opened_later.pop_front();
        self.received += u64::from(messages);
        Some(MessageBatch::Frame { blocks, messages })
    }

    /// The responder's verdict, if that is what the peer said next: the first record of an initiator's
    /// session, before everything that [`poll_event`](crate::proto::wire::connection::Connection::poll_event)
    /// gives.
    pub(crate) fn poll_verdict(&mut self) -> Option<Verdict> {
        let opened = self.opened.as_mut()?;
        let (Record::Verdict(body), length) = Record::decode(&opened.plaintext).ok()? else {
            return None;
        };
        let verdict = Verdict::decode(body).ok();
        opened.plaintext.advance(length);
        verdict
    }

    /// What the peer said next. A verdict that was not polled is passed over.
    pub(super) fn take_event(&mut self) -> Option<Event> {
        loop {
            let opened = self.opened.as_mut()?;
            // `open` has checked each record of it, so the error stands for its end alone.
            let Ok((record, length)) = Record::decode(&opened.plaintext) else {
                self.opened = self.opened_later.pop_front();
                continue;
            };
            let event = match record {
                Record::Data(message) => {
                    let length = message.len();
                    opened.all_messages = None;
                    opened.plaintext.advance(block::HEADER);
                    self.received += 1;
                    return Some(Event::Message(opened.take(length)));
                }
                Record::Fragment { remaining, part } => {
                    assemble(&mut self.assembly, remaining, part);
                    (remaining == 0).then(|| {
                        self.received += 1;
                        Event::Message(std::mem::take(&mut self.assembly).into())
                    })
                }
                Record::Pong(_) => opened.rtt.map(|rtt| Event::Pong { rtt }),
                Record::KeepAlive => Some(Event::KeepAlive),
                Record::Drain => {
                    self.drain_polled = true;
                    Some(Event::Drain)
                }
                Record::Goodbye { reason, received } => {
                    Some(Event::Goodbye { reason, received: received.min(self.sent) })
                }
                Record::Verdict(_) | Record::Ping(_) | Record::Rekey | Record::Skippable { .. } => {
                    None
                }
            };
            opened.plaintext.advance(length);
            if event.is_some() {
                return event;
            }
        }
    }
}

/// Adds a part to a message. Memory at most doubles with what arrives, and ends at exactly the
/// message's size.
fn assemble(assembly: &mut Vec<u8>, remaining: u32, part: &[u8]) {
    let length = assembly.len() + part.len();
    if length > assembly.capacity() {
        let total = length.saturating_add(remaining as usize);
        let capacity = total.min(length.saturating_mul(2));
        assembly.reserve_exact(capacity - assembly.len());
    }
    assembly.extend_from_slice(part);
}
