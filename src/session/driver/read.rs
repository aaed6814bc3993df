//! The driver's reading half: bytes to frames to messages, and no further than there is room.
//!
//! Owns when the socket is read and when a frame is opened. It must never read while messages wait.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::error::CloseReason;
use crate::proto::native::connection::Event;
use crate::proto::native::crypto::TAG;
use crate::proto::native::frame;
use crate::proto::native::frame::Split;
use crate::proto::native::parcel::MessageBatch;

use super::super::NEEDS_PROBE;
use super::super::inbox::Priority;
use super::super::stock::WRITE_BUFFER;
use super::{Driver, Paused};

/// Messages, or whole frames of them, that are handed over at once; few enough that a frame of
/// empty ones costs little.
const HAND_OVER: usize = 64;

/// Bytes of ciphertext from which on a frame is opened in a buffer of the stock's: what is in it then
/// fills half of that.
const LARGE: usize = WRITE_BUFFER.div_ceil(2) + TAG;

impl Driver {
    /// Reads once and handles all that came. Whether there may be more.
    pub(super) fn read_once(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<bool, CloseReason> {
        if std::mem::take(&mut self.unopened) {
            // At the start the core may hold messages already: a verdict's frame can carry more.
            self.hand_over(now);
            self.open_frames(now)?;
        }
        if self.paused.is_some() || self.end_of_stream {
            return Ok(false);
        }
        let stock = &self.session.shared.stock;
        match self.input.poll_read(stock, &mut self.stream, cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => self.stream_ended().map(|()| false),
            Poll::Ready(Ok(count)) => {
                // The answer to a ping may come in the turn that sent it: by the turn's own time it
                // would have taken none.
                let now = if self.core.open_ping().is_some() { Instant::now() } else { now };
                self.session.metrics.read_bytes(count);
                self.open_frames(now).map(|()| true)
            }
            // After its goodbye a peer has nothing more to say; how its stream ends is no matter.
            Poll::Ready(Err(_)) if self.core.finished_reading() => {
                self.end_of_stream = true;
                Ok(false)
            }
            Poll::Ready(Err(error)) => Err(CloseReason::Io(error.kind().into())),
        }
    }

    fn stream_ended(&mut self) -> Result<(), CloseReason> {
        self.core.end_of_stream(!self.input.bytes().is_empty())?;
        self.end_of_stream = true;
        Ok(())
    }

    /// Opens what was read, frame by frame, until one is incomplete or there is no room.
    fn open_frames(&mut self, now: Instant) -> Result<(), CloseReason> {
        while self.paused.is_none()
            && let Split::Whole { body, .. } =
                frame::split(self.input.bytes()).map_err(CloseReason::Protocol)?
        {
            let length = frame::PREFIX + body.len();
            let opened = if body.len() >= LARGE {
                let stock = &self.session.shared.stock;
                self.core.open_in(body, now.into_std(), |length| stock.plaintext(length))
            } else {
                self.core.open(body, now.into_std())
            };
            opened.map_err(CloseReason::Protocol)?;
            self.input.take(length);
            self.heard(now);
        }
        Ok(())
    }

    /// A frame has come and was opened.
    fn heard(&mut self, now: Instant) {
        self.last_heard = now;
        if self.marked(NEEDS_PROBE) {
            self.session.unmark(NEEDS_PROBE);
        }
        self.hand_over(now);
    }

    /// Hands messages over until there are none, or no room.
    fn hand_over(&mut self, now: Instant) {
        let received = self.core.received();
        self.session.metrics.rekeys(self.core.rekeys());
        loop {
            if !self.pending.is_empty() {
                let priority = match self.drain {
                    Some(_) => Priority::Draining,
                    None => Priority::Usual,
                };
                self.session.deliver(&mut self.pending, priority);
            }
            if !self.pending.is_empty() {
                self.pause(now);
                break;
            }
            if !self.next_messages() {
                break;
            }
        }
        if self.core.received() > received {
            let session = &self.session;
            session.metrics.received(self.core.received());
            session.metrics.data(session.shared.millis(now));
        }
        if std::mem::take(&mut self.kept_alive) {
            self.keep_alive_heard = Some(now);
        }
        if let Some(rtt) = self.pong.take() {
            let session = &self.session;
            let srtt = self.core.srtt().unwrap_or(rtt);
            session.metrics.pong(srtt, session.shared.millis(now));
            self.probe_answered(rtt);
        }
        if self.peer_drained {
            self.begin_drain(None, now);
        }
    }

    /// Takes the next messages out of the core, and notes what else the peer said meanwhile. False
    /// when there is nothing more to hand over.
    pub(super) fn next_messages(&mut self) -> bool {
        while self.pending.len() < HAND_OVER {
            if let Some(parcel) = self.core.poll_messages() {
                tracing::trace!(
                    count = parcel.messages(),
                    bytes = parcel.bytes(),
                    "messages received"
                );
                self.pending.push(parcel);
                continue;
            }
            match self.core.poll_event() {
                None => break,
                Some(Event::Message(message)) => {
                    tracing::trace!(len = message.len(), "message received");
                    self.pending.push(MessageBatch::Message(message));
                }
                Some(Event::Pong { rtt }) => self.pong = Some(rtt),
                Some(Event::KeepAlive) => self.kept_alive = true,
                Some(Event::Drain) => self.peer_drained = true,
                Some(Event::Goodbye { reason, received }) => {
                    self.delivered = Some(received);
                    if let Some(drain) = &mut self.drain {
                        drain.peers_reason = Some(reason);
                    }
                }
                // The handshake has seen the verdict; the core lets no second one pass.
                Some(Event::Verdict(_)) => {}
            }
        }
        !self.pending.is_empty()
    }

    /// No room: the socket is not read until there is.
    fn pause(&mut self, now: Instant) {
        let every = self.keep_alive_every();
        self.paused.get_or_insert_with(|| {
            tracing::trace!("paused");
            Paused { keep_alive_at: now + every }
        });
    }

    /// There may be room again.
    pub(super) fn resume(&mut self, now: Instant) {
        let Some(paused) = self.paused.take() else {
            return;
        };
        self.hand_over(now);
        if let Some(again) = &mut self.paused {
            // Little room does not put the next keep-alive off.
            *again = paused;
            return;
        }
        tracing::trace!("resumed");
        self.unopened = true;
        // While we did not read, the peer's silence and its full pipe said nothing.
        self.last_heard = now;
        if self.blocked_since.is_some() {
            self.blocked_since = Some(now);
        }
    }

    /// While paused: three in a peer's `keepalive`, so that one may come late.
    pub(super) fn keep_alive_every(&self) -> Duration {
        self.session.shared.settings.keepalive / 3
    }
}
