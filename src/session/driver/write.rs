//! The driver's writing half: all that has queued up goes out as one write.
//!
//! Owns the sealed bytes that are under way, and what their messages had cost until they are written.
//! Nothing waits in order to be coalesced. It must never seal while sealed bytes wait, so that control
//! records are not delayed by more than one batch.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::time::Instant;

use crate::base::error::{CloseReason, ErrorKind};
use crate::proto::native::batch::{MessageSource, Next, Plaintext};
use crate::proto::native::frame::MAX_FRAME;

use super::super::line::{Entry, SendBuffer};
use super::super::queue::{Queue, Reserved};
use super::super::stock::{BufferPool, LARGEST_KEPT};
use super::{Batch, Driver};

/// Bytes of ciphertext after which a batch is closed: one large frame, or two that are not. By then the
/// system call hardly shows; more would leave the processor's cache before it is written, keep the
/// peer waiting who could open the first frame, and delay control records.
const BATCH: usize = MAX_FRAME / 2;
const _: () = assert!(BATCH + MAX_FRAME <= LARGEST_KEPT, "the stock keeps a batch's buffer");

/// Bytes that a blocked write may waste in a buffer too large for it.
const SLACK: usize = 4 * 1024;

impl Driver {
    /// Writes what is sealed, or seals what waits and writes that; then flushes, and half-closes after
    /// our last record. Whether it got through and there may be more.
    pub(super) fn write_once(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<bool, CloseReason> {
        if self.half_closed {
            return Ok(false);
        }
        if self.out.is_empty() && !self.unflushed {
            self.seal(now)?;
        }
        match self.poll_out(cx, now) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(wrote)) => Ok(wrote),
            // The peer has said all and heard all that matters to it.
            Poll::Ready(Err(_)) if self.core.finished_reading() => {
                self.half_closed = true;
                Ok(false)
            }
            Poll::Ready(Err(kind)) => Err(CloseReason::Io(kind)),
        }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Result<bool, ErrorKind>> {
        let mut wrote = false;
        while self.written < self.out.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out[self.written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(ErrorKind::Other)),
                Poll::Ready(Ok(count)) => {
                    self.written += count;
                    self.session.metrics.wrote_bytes(count);
                    self.blocked_since = None;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.kind().into())),
                Poll::Pending => {
                    self.blocked_since.get_or_insert(now);
                    self.slim();
                    return Poll::Pending;
                }
            }
        }
        if !self.out.is_empty() {
            self.give_out_back();
            self.unflushed = true;
            wrote = true;
        }
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.unflushed = false;
                    self.blocked_since = None;
                    self.batch_done();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.kind().into())),
                Poll::Pending => {
                    self.blocked_since.get_or_insert(now);
                    return Poll::Pending;
                }
            }
        }
        if self.core.finished_writing() {
            match Pin::new(&mut self.stream).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => self.half_closed = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.kind().into())),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(wrote))
    }

    /// Seals control records and queued messages, up to a batch.
    fn seal(&mut self, now: Instant) -> Result<(), CloseReason> {
        let session = Arc::clone(&self.session);
        if !self.core.wants_seal() && self.taken.is_empty() {
            session.queue.take_all(&mut self.taken);
            if self.taken.is_empty() {
                return Ok(());
            }
        }
        let stock = &session.shared.stock;
        let mut scratch = stock.take_write();
        self.out = stock.take_batch();
        let mut source = Source {
            queue: &session.queue,
            stock,
            taken: &mut self.taken,
            batch: &mut self.batch,
            current: &mut self.current,
            begun: &mut self.begun,
            now,
        };
        let sealed = self
            .core
            .seal(&mut source, &mut scratch, &mut self.out, BATCH)
            .map_err(CloseReason::Protocol)?;
        stock.give_write(scratch);
        self.batch.messages += sealed.messages_finished;
        if self.begun == self.core.sent()
            && let Some(reserved) = self.current.take()
        {
            self.batch.reserved.add(reserved);
        }
        tracing::trace!(
            frames = sealed.frames,
            messages = sealed.messages_finished,
            bytes = sealed.bytes,
            "sealed"
        );
        if sealed.messages_finished > 0 {
            session.metrics.data(session.shared.millis(now));
        }
        session.metrics.rekeys(self.core.rekeys());
        if self.out.is_empty() {
            // Nothing but expired messages.
            self.give_out_back();
            self.batch_done();
        }
        Ok(())
    }

    /// The batch is written: its messages' room is free.
    fn give_out_back(&mut self) {
        let shared = &self.session.shared;
        shared.stock.give_write(std::mem::take(&mut self.out));
        self.written = 0;
        let reserved = std::mem::take(&mut self.batch.reserved);
        shared.note_buffered();
        self.session.queue.release(&shared.budget, reserved);
    }

    /// The batch is flushed: its messages are done.
    fn batch_done(&mut self) {
        let Batch { messages, expired, .. } = std::mem::take(&mut self.batch);
        if messages + expired > 0 {
            self.session.metrics.finished(messages, expired);
            self.session.flushed.notify_waiters();
        }
    }

    /// A write is blocked, perhaps for long: it keeps no more memory than four times what it still has
    /// to write. Less would have busy sessions, whose writes block all the time, copy most of them.
    fn slim(&mut self) {
        let rest = &self.out[self.written..];
        if self.out.capacity() > 4 * rest.len() + SLACK {
            let rest = rest.to_vec();
            let large = std::mem::replace(&mut self.out, rest);
            self.session.shared.stock.give_write(large);
            self.written = 0;
        }
    }

    /// Whether a new message could be sealed at once: if so, it has to wake the driver.
    pub(super) fn wants_messages(&self) -> bool {
        self.out.is_empty() && !self.unflushed && !self.half_closed
    }
}

/// The queue as the core sees it.
struct Source<'a> {
    queue: &'a Queue,
    stock: &'a BufferPool,
    taken: &'a mut SendBuffer,
    batch: &'a mut Batch,
    current: &'a mut Option<Reserved>,
    begun: &'a mut u64,
    now: Instant,
}

impl MessageSource for Source<'_> {
    fn next(&mut self, plaintext: &mut Plaintext<'_>) -> Next {
        // Asked for another one, the core has sealed the one before.
        if let Some(reserved) = self.current.take() {
            self.batch.reserved.add(reserved);
        }
        loop {
            if self.taken.is_empty() {
                self.queue.take_all(self.taken);
            }
            if let Some(Entry::Records(records)) = self.taken.front()
                && !plaintext.push_encoded(records.bytes())
            {
                return Next::NoRoom;
            }
            match self.taken.pop() {
                None => return Next::Empty,
                Some(Entry::Records(records)) => {
                    let count = records.messages();
                    *self.begun += count;
                    self.batch.reserved.add(records.reserved());
                    records.give_back(self.stock);
                    return Next::Records(count);
                }
                Some(Entry::Message(message))
                    if message.deadline.is_some_and(|deadline| deadline <= self.now) =>
                {
                    self.batch.expired += 1;
                    self.batch.reserved.add(message.reserved());
                }
                Some(Entry::Message(message)) => {
                    *self.begun += 1;
                    *self.current = Some(message.reserved());
                    return Next::Message(message.body);
                }
            }
        }
    }
}
