//! The driver's writing half: all that has queued up goes out as one write.
//!
//! Owns when a batch is sealed, written and done with. Nothing waits in order to be coalesced. It must never seal while sealed bytes wait, so that control
//! records are not delayed by more than one batch.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite as _;
use tokio::time::Instant;

use crate::base::error::{CloseReason, ErrorKind};
use crate::proto::wire::connection::Connection;
use crate::proto::wire::source::{MessageSource, Next, Plaintext};
use crate::session::send::buffer::{Entry, Queued, QueuedMessages, Terms};
use crate::session::send::queue::Queue;

use super::outgoing::OutgoingMessages;
use super::task::{Batch, Driver, PingOut};

impl Driver {
    /// Writes what is sealed, or seals what waits and writes that; then flushes, and half-closes after
    /// our last record. Whether it got through and there may be more.
    pub(super) fn write_once(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<bool, CloseReason> {
        if self.writing.half_closed {
            return Ok(false);
        }
        if self.writing.out.is_empty() && !self.writing.unflushed {
            self.seal(now)?;
        }
        match self.poll_out(cx, now) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(wrote)) => Ok(wrote),
            // The peer has said all and heard all that matters to it.
            Poll::Ready(Err(_)) if self.connection.finished_reading() => {
                self.writing.half_closed = true;
                Ok(false)
            }
            Poll::Ready(Err(kind)) => Err(CloseReason::Io(kind)),
        }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Result<bool, ErrorKind>> {
        let mut wrote = false;
        while !self.writing.out.is_written() {
            match self.writing.out.poll_write(&mut self.stream, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(ErrorKind::Other)),
                Poll::Ready(Ok(count)) => {
                    self.session.metrics.wrote_bytes(count);
                    let has_sent = self.writing.begun > 0;
                    self.liveness.wrote(count, has_sent, now.into_std());
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.kind().into())),
                Poll::Pending => {
                    self.liveness.blocked(now.into_std());
                    self.writing.pace.blocked(now);
                    self.writing.out.shrink_blocked(&self.session.context.buffers);
                    return Poll::Pending;
                }
            }
        }
        if !self.writing.out.is_empty() {
            if self.writing.ping == PingOut::Sealed {
                self.writing.ping = PingOut::Left(now);
            }
            if let Some(bytes) = self.writing.pace.written(now) {
                self.session.queue.pack_up_to(bytes);
                self.connection.aim_at(bytes);
            }
            self.give_out_back();
            self.writing.unflushed = true;
            wrote = true;
        }
        if self.writing.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.writing.unflushed = false;
                    self.liveness.wrote(0, false, now.into_std());
                    self.batch_done();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.kind().into())),
                Poll::Pending => {
                    self.liveness.blocked(now.into_std());
                    return Poll::Pending;
                }
            }
        }
        if self.connection.finished_writing() {
            match Pin::new(&mut self.stream).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => self.writing.half_closed = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.kind().into())),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(wrote))
    }

    /// Seals control records and queued messages, up to a batch.
    fn seal(&mut self, now: Instant) -> Result<(), CloseReason> {
        let session = Arc::clone(&self.session);
        if !self.connection.wants_seal() && self.writing.taken.is_empty() {
            session.queue.take_all(&mut self.writing.taken);
            if self.writing.taken.is_empty() {
                return Ok(());
            }
        }
        let buffers = &session.context.buffers;
        let mut scratch = buffers.take_write();
        let (out, messages) = self.writing.out.begin(buffers);
        let mut source = Source {
            queue: &session.queue,
            taken: &mut self.writing.taken,
            messages,
            batch: &mut self.writing.batch,
            current: &mut self.writing.current,
            begun: &mut self.writing.begun,
            now,
        };
        let sealed = self
            .connection
            .seal(&mut source, &mut scratch, out, self.writing.pace.batch())
            .map_err(CloseReason::Protocol)?;
        if sealed.frames > 0 && self.writing.ping == PingOut::Queued {
            self.writing.ping = PingOut::Sealed;
        }
        buffers.give_write(scratch);
        self.writing.batch.messages += sealed.messages_finished;
        tracing::trace!(
            frames = sealed.frames,
            messages = sealed.messages_finished,
            bytes = sealed.bytes,
            "sealed"
        );
        if sealed.messages_finished > 0 {
            session.metrics.data(session.context.millis(now));
        }
        session.metrics.rekeys(self.connection.rekeys());
        if self.writing.out.is_empty() {
            // Nothing but expired messages.
            self.give_out_back();
            self.batch_done();
        }
        Ok(())
    }

    /// The batch is written: its messages' room is free.
    fn give_out_back(&mut self) {
        let context = &self.session.context;
        let mut reserved = self.writing.out.finish(&context.buffers);
        reserved.add(std::mem::take(&mut self.writing.batch.expired_cost));
        context.budget.note_use();
        self.session.queue.release(&context.budget, reserved);
    }

    /// The batch is flushed: its messages are done.
    fn batch_done(&mut self) {
        let Batch { messages, expired, .. } = std::mem::take(&mut self.writing.batch);
        if messages + expired > 0 {
            self.session.metrics.finished(messages, expired);
            self.session.flushed.notify_waiters();
        }
    }

    /// Whether a new message could be sealed at once: if so, it has to wake the driver.
    pub(super) fn wants_messages(&self) -> bool {
        self.writing.out.is_empty() && !self.writing.unflushed && !self.writing.half_closed
    }
}

/// The queue as the connection sees it.
struct Source<'a> {
    queue: &'a Queue,
    taken: &'a mut QueuedMessages,
    /// Those that are sealed.
    messages: OutgoingMessages<'a>,
    batch: &'a mut Batch,
    current: &'a mut Option<Terms>,
    begun: &'a mut u64,
    now: Instant,
}

impl MessageSource for Source<'_> {
    fn next(&mut self, plaintext: &mut Plaintext<'_>) -> Next {
        loop {
            if self.taken.is_empty() && !self.queue.take_all(self.taken) {
                return Next::NoRoom;
            }
            if let Some(Entry::Packed(packed)) = self.taken.front()
                && !plaintext.push_packed(packed.bytes())
            {
                return Next::NoRoom;
            }
            match self.taken.pop() {
                None => return Next::Empty,
                Some(Entry::Packed(packed)) => {
                    let count = packed.messages();
                    *self.begun += count;
                    self.messages.push(Entry::Packed(packed));
                    return Next::Packed(count);
                }
                Some(Entry::Message(message))
                    if message.terms.deadline.is_some_and(|deadline| deadline <= self.now) =>
                {
                    self.batch.expired += 1;
                    self.batch.expired_cost.add(message.reserved());
                }
                Some(Entry::Message(Queued { body, terms })) => {
                    *self.begun += 1;
                    *self.current = Some(terms);
                    return Next::Message(body);
                }
            }
        }
    }

    fn finished(&mut self, message: Bytes) {
        if let Some(terms) = self.current.take() {
            self.messages.push(Entry::Message(Queued { body: message, terms }));
        }
    }

    fn frame_sealed(&mut self, end: usize) {
        self.messages.frame_sealed(end);
    }
}
