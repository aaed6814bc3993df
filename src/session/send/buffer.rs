//! Accepted messages, in order, from the queue to the driver.
//!
//! Owns the form in which they wait: small ones as records in common memory, so that whoever seals
//! them copies bytes and touches no message; others as they came. It must never reorder them, and
//! never take much more memory than they have paid for.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use crate::proto::native::frame::MAX_PLAINTEXT;
use crate::proto::native::record;
use crate::proto::native::record::HEADER;

use super::queue::{Reserved, cost};
use super::stock::{BufferPool, WRITE_BUFFER};

/// Largest message that is copied. Up to here a copy costs less than the reference count that the
/// driver need not give back; at 1 KiB nothing is gained any more.
const SMALL: usize = 256;

/// Most bytes of records that lie together: what fits in one frame, beside a control record.
const MAX_RECORDS: usize = MAX_PLAINTEXT - 16;

/// Entries for which an empty line keeps memory (1 KiB); what a burst needed beyond is given back.
const LARGE_IDLE: usize = 16;

/// Who pays for a message while it is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quota {
    /// The session's own reserve.
    Session,
    /// The pool's budget.
    Budget,
}

/// What waits next.
#[derive(Debug)]
pub(super) enum Entry {
    Message(Queued),
    Records(Records),
}

/// A message by itself.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) body: Bytes,
    pub(super) deadline: Option<Instant>,
    quota: Quota,
}

impl Queued {
    /// What it cost.
    pub(super) fn reserved(&self) -> Reserved {
        Reserved::of(self.quota, cost(self.body.len()))
    }
}

/// Small messages without deadlines, as records.
#[derive(Debug)]
pub(super) struct Records {
    bytes: Vec<u8>,
    messages: u32,
    reserved: Reserved,
}

impl Records {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn messages(&self) -> u64 {
        self.messages.into()
    }

    /// What all of them cost.
    pub(super) fn reserved(&self) -> Reserved {
        self.reserved
    }

    /// They are done with.
    pub(super) fn give_back(self, stock: &BufferPool) {
        stock.give_write(self.bytes);
    }

    /// Whether a message of `len` bytes may lie here too.
    fn takes(&self, len: usize) -> bool {
        let max = self.bytes.capacity().min(MAX_RECORDS);
        self.bytes.len() + HEADER + len <= max
    }

    fn push(&mut self, body: &[u8], quota: Quota) {
        record::encode_data(body, &mut self.bytes);
        self.messages += 1;
        self.reserved.add(Reserved::of(quota, cost(body.len())));
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SendBuffer {
    entries: VecDeque<Entry>,
}

impl SendBuffer {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a message: takes it out of `body`, or copies it and leaves `body` as it was. `paid` are the
    /// bytes that the session's messages have paid for: memory for records is at most as much again.
    #[inline]
    pub(super) fn push(
        &mut self,
        body: &mut Bytes,
        deadline: Option<Instant>,
        quota: Quota,
        paid: usize,
        stock: &BufferPool,
    ) {
        if body.len() > SMALL || deadline.is_some() {
            let body = std::mem::take(body);
            self.entries.push_back(Entry::Message(Queued { body, deadline, quota }));
            return;
        }
        if let Some(Entry::Records(last)) = self.entries.back_mut()
            && last.takes(body.len())
        {
            return last.push(body, quota);
        }
        let bytes = match paid.max(HEADER + body.len()) {
            WRITE_BUFFER.. => stock.take_write(),
            size => Vec::with_capacity(size),
        };
        let mut records = Records { bytes, messages: 0, reserved: Reserved::default() };
        records.push(body, quota);
        self.entries.push_back(Entry::Records(records));
    }

    pub(super) fn front(&self) -> Option<&Entry> {
        self.entries.front()
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        self.entries.pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Keeps no memory that only traffic needs.
    pub(super) fn give_up_memory(&mut self) {
        if self.entries.is_empty() && self.entries.capacity() > LARGE_IDLE {
            self.entries = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::native::record::Record;
    use crate::session::stock::LARGEST_KEPT;

    fn body(byte: u8, len: usize) -> Bytes {
        vec![byte; len].into()
    }

    /// Empties the line: the first byte of each message, and what all cost.
    fn emptied(line: &mut SendBuffer, stock: &BufferPool) -> (Vec<u8>, Reserved) {
        let (mut firsts, mut reserved) = (Vec::new(), Reserved::default());
        while let Some(entry) = line.pop() {
            match entry {
                Entry::Records(records) => {
                    let mut rest = records.bytes();
                    let mut messages = 0;
                    while !rest.is_empty() {
                        let (record, length) = Record::decode(rest).unwrap();
                        let Record::Data(body) = record else { panic!("{record:?}") };
                        firsts.push(body[0]);
                        messages += 1;
                        rest = &rest[length..];
                    }
                    assert_eq!(records.messages(), messages);
                    reserved.add(records.reserved());
                    records.give_back(stock);
                }
                Entry::Message(message) => {
                    firsts.push(message.body[0]);
                    reserved.add(message.reserved());
                }
            }
        }
        (firsts, reserved)
    }

    #[test]
    fn messages_of_every_kind_keep_their_order_and_who_paid_for_them() {
        let stock = BufferPool::new(2);
        let mut line = SendBuffer::default();
        let later = Some(Instant::now());
        let (mut own, mut budget) = (0, 0);
        for number in 0..200_u8 {
            let kind = usize::from(number) % 7;
            let mut body = body(number, [1, 64, SMALL, SMALL + 1, 8, 9, 70_000][kind]);
            let cost = cost(body.len());
            let (quota, paid) = match number % 5 {
                0 => (Quota::Budget, &mut budget),
                _ => (Quota::Session, &mut own),
            };
            *paid += cost;
            let deadline = if kind == 5 { later } else { None };
            line.push(&mut body, deadline, quota, own + budget, &stock);
            assert_eq!(body.is_empty(), matches!(kind, 3 | 5 | 6), "copied, or taken");
        }
        let (firsts, reserved) = emptied(&mut line, &stock);
        assert_eq!(firsts, (0..200).collect::<Vec<u8>>());
        let mut expected = Reserved::of(Quota::Session, own);
        expected.add(Reserved::of(Quota::Budget, budget));
        assert_eq!(reserved, expected);
        assert!(line.is_empty());
    }

    #[test]
    fn records_take_at_most_the_memory_that_was_paid_for_and_fit_in_a_frame() {
        let stock = BufferPool::new(2);
        // With 230 bytes each, a buffer of the stock's is taken when little more than that is paid for.
        for len in [0, 1, 64, 230, SMALL] {
            stock.give_write(Vec::with_capacity(LARGEST_KEPT));
            assert_eq!(stock.spare(), (0, 1), "one that has grown lies ready");
            let mut line = SendBuffer::default();
            let mut paid = 0;
            // Even the shortest fill more than one frame.
            for _ in 0..25_000 {
                paid += cost(len);
                line.push(&mut body(7, len), None, Quota::Budget, paid, &stock);
                let memory: usize = line.entries.iter().map(memory).sum();
                assert!(memory <= 2 * paid + HEADER, "{memory} bytes of memory, {paid} paid");
            }
            assert!(line.entries.iter().all(|entry| match entry {
                Entry::Records(records) => records.bytes().len() + 16 <= MAX_PLAINTEXT,
                Entry::Message(_) => false,
            }));
        }
    }

    #[test]
    fn an_empty_line_keeps_memory_for_a_few_and_gives_up_what_a_burst_needed() {
        let stock = BufferPool::new(2);
        let mut line = SendBuffer::default();
        for (burst, kept) in [(LARGE_IDLE, true), (LARGE_IDLE + 1, false)] {
            for _ in 0..burst {
                line.push(&mut body(7, SMALL + 1), None, Quota::Session, 0, &stock);
            }
            line.give_up_memory();
            assert!(line.entries.capacity() >= burst, "they are still waiting");
            assert_eq!(emptied(&mut line, &stock).0.len(), burst);
            line.give_up_memory();
            assert_eq!(line.entries.capacity() >= burst, kept);
            assert_eq!(line.entries.capacity() > 0, kept);
        }
    }

    fn memory(entry: &Entry) -> usize {
        match entry {
            Entry::Records(records) => records.bytes.capacity(),
            Entry::Message(_) => 0,
        }
    }
}
