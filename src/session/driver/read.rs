//! The driver's reading half: bytes to frames to messages, and no further than there is room.
//!
//! Owns when the socket is read and when a frame is opened. It must never read while messages wait.

use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::base::error::CloseReason;
use crate::proto::liveness::Liveness;
use crate::proto::wire::batch::MessageBatch;
use crate::proto::wire::connection::{Connection, Event, MAX_OVERHEAD};
use crate::session::buffers::WRITE_BUFFER;
use crate::session::receive::window::Priority;

use super::task::{Drain, Driver, Peer};

/// Messages, or whole frames of them, that are delivered at once; few enough that a frame of empty
/// ones costs little.
const MAX_AT_ONCE: usize = 64;

/// Bytes of a frame's body from which on it is opened in a buffer of the pool's: what is in it then
/// fills half of that.
const LARGE: usize = WRITE_BUFFER.div_ceil(2) + MAX_OVERHEAD;

impl Driver {
    /// Reads once and handles all that came. Whether there may be more.
    pub(super) fn read_once(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<bool, CloseReason> {
        if std::mem::take(&mut self.reading.unopened) {
            // At the start the connection may hold messages already: a verdict's frame can carry more.
            self.deliver(now);
            self.open_frames(now)?;
        }
        if self.liveness.is_paused() || self.reading.end_of_stream {
            return Ok(false);
        }
        let buffers = &self.session.context.buffers;
        match self.reading.input.poll_read(buffers, &mut self.stream, cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => {
                self.connection.end_of_stream(self.reading.input.bytes().len())?;
                self.reading.end_of_stream = true;
                Ok(false)
            }
            Poll::Ready(Ok(count)) => {
                // The answer to a ping may come in the poll that sent it: by the poll's own time it
                // would have taken none.
                let is_asked = self.connection.open_ping().is_some();
                let now = if is_asked { Instant::now() } else { now };
                self.session.metrics.read_bytes(count);
                if self.liveness.heard(count, now.into_std()) {
                    self.session.clear_needs_probe();
                }
                let received = self.connection.received();
                self.open_frames(now)?;
                if Liveness::are_use(count) && self.connection.received() == received {
                    // A message that takes minutes to come is use as well.
                    self.session.metrics.data(self.session.context.millis(now));
                }
                Ok(true)
            }
            // After its last word a peer has nothing more to say; how its stream ends is no matter.
            Poll::Ready(Err(_)) if self.connection.finished_reading() => {
                self.reading.end_of_stream = true;
                Ok(false)
            }
            Poll::Ready(Err(error)) => Err(CloseReason::Io(error.kind().into())),
        }
    }

    /// Opens what was read, frame by frame, until one is incomplete or there is no room.
    fn open_frames(&mut self, now: Instant) -> Result<(), CloseReason> {
        while !self.liveness.is_paused()
            && let Some(body) = self
                .connection
                .cut_frame(self.reading.input.bytes())
                .map_err(CloseReason::Protocol)?
        {
            let frame_end = body.end;
            let body = &self.reading.input.bytes()[body];
            let opened = if body.len() >= LARGE {
                let buffers = &self.session.context.buffers;
                self.connection.open_in(body, now.into_std(), |length| buffers.plaintext(length))
            } else {
                self.connection.open(body, now.into_std())
            };
            opened.map_err(CloseReason::Protocol)?;
            self.reading.input.take(frame_end);
            self.deliver(now);
        }
        Ok(())
    }

    /// Delivers messages until there are none, or no room; then looks at what else the peer has said.
    fn deliver(&mut self, now: Instant) {
        let received = self.connection.received();
        self.session.metrics.rekeys(self.connection.rekeys());
        loop {
            if !self.reading.pending.is_empty() {
                let priority = match self.drain {
                    Drain::Begun(_) => Priority::Draining,
                    Drain::Open => Priority::Usual,
                };
                self.session.deliver(&mut self.reading.pending, priority);
            }
            if !self.reading.pending.is_empty() {
                // No room: the socket is not read until there is.
                self.liveness.paused(&self.session.context.settings, now.into_std());
                break;
            }
            if !self.next_messages() {
                break;
            }
        }
        if self.connection.received() > received {
            let session = &self.session;
            session.metrics.received(self.connection.received());
            session.metrics.data(session.context.millis(now));
            self.liveness.received(now.into_std());
        }
        if std::mem::take(&mut self.reading.keep_alive) {
            self.liveness.heard_keep_alive(now.into_std());
        }
        if let Some(rtt) = self.reading.pong.take() {
            let session = &self.session;
            let srtt = self.connection.srtt().unwrap_or(rtt);
            session.metrics.pong(srtt, session.context.millis(now));
            if self.liveness.probe_over() {
                self.probe_answered(rtt);
            }
        }
        if self.peer != Peer::Open {
            self.begin_drain(None, now);
        }
    }

    /// Takes the next messages out of the connection, and notes what else the peer said meanwhile.
    /// False when there is nothing more to deliver.
    pub(super) fn next_messages(&mut self) -> bool {
        while self.reading.pending.len() < MAX_AT_ONCE {
            if let Some(batch) = self.connection.poll_messages() {
                tracing::trace!(
                    count = batch.messages(),
                    bytes = batch.bytes(),
                    "messages received"
                );
                self.reading.pending.push(batch);
                continue;
            }
            match self.connection.poll_event() {
                None => break,
                Some(Event::Message(message)) => {
                    tracing::trace!(len = message.len(), "message received");
                    self.reading.pending.push(MessageBatch::Message(message));
                }
                Some(Event::Pong { rtt }) => self.reading.pong = Some(rtt),
                Some(Event::KeepAlive) => self.reading.keep_alive = true,
                Some(Event::Drain) => self.peer = Peer::Drained,
                Some(Event::Goodbye { reason, received }) => {
                    let is_confirmed = self.connection.abilities().confirms;
                    let delivered = if is_confirmed { received } else { 0 };
                    self.peer = Peer::Gone { why: reason, delivered };
                }
            }
        }
        !self.reading.pending.is_empty()
    }

    /// There may be room again.
    pub(super) fn resume(&mut self, now: Instant) {
        if !self.liveness.is_paused() {
            return;
        }
        self.deliver(now);
        if self.reading.pending.is_empty() {
            tracing::trace!("resumed");
            self.reading.unopened = true;
            self.liveness.resumed(now.into_std());
        }
    }
}
