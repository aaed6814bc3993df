//! The connection half of the plain wire: a frame is a length of two bytes and one message.
//!
//! Owns the layout: the length is two more than the message's, 0 is the goodbye, and 1 a greeting, which
//! says nothing but that the responder has accepted. Lengths are masked by the number of the frame, so
//! that a length that is unmasked twice loses the stream. The messages of the handshake are frames too.

use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;

use crate::base::error::{CloseReason, GoodbyeReason, ProtocolError};
use crate::proto::wire::connection::{Abilities, Connection, Event, Memory};
use crate::proto::wire::source::{MessageSource, Next, Plaintext, Sealed};

pub(crate) const ABILITIES: Abilities = Abilities {
    probe: false,
    drain: false,
    confirms: false,
    max_first: 0,
    data_type: None,
    max_packed: 0,
};

pub(super) const PREFIX: usize = 2;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct PlainConnection {
    frames_in: u16,
    frames_out: u16,
    /// The length of the frame at the front of the input, once unmasked.
    length: Option<usize>,
    opened: Option<Event>,
    /// Our greeting is to be written.
    greets: bool,
    goodbye: Option<GoodbyeReason>,
    /// Our goodbye is written, the peer's has come.
    done: (bool, bool),
    received: u64,
}

impl PlainConnection {
    /// Lets the next [`seal`](Connection::seal) write the responder's yes.
    pub(super) fn greet(&mut self) {
        self.greets = true;
    }

    /// Appends a frame with this length.
    pub(super) fn put(&mut self, out: &mut Vec<u8>, length: u16, message: &[u8]) {
        self.frames_out = self.frames_out.wrapping_add(1);
        out.extend_from_slice(&(length ^ self.frames_out).to_be_bytes());
        out.extend_from_slice(message);
    }

    /// The message of a frame of the handshake.
    pub(super) fn take<'a>(&mut self, frame: &'a [u8]) -> Option<&'a [u8]> {
        let place = self.cut_frame(frame).ok()?;
        self.length = None;
        frame.get(place?)
    }
}

impl Connection for PlainConnection {
    fn abilities(&self) -> &'static Abilities {
        &ABILITIES
    }

    fn cut_frame(&mut self, input: &[u8]) -> Result<Option<Range<usize>>, ProtocolError> {
        if let (None, Some(prefix)) = (self.length, input.first_chunk()) {
            self.frames_in = self.frames_in.wrapping_add(1);
            self.length = Some(usize::from(u16::from_be_bytes(*prefix) ^ self.frames_in));
        }
        let end = self.length.map(|length| PREFIX + length.saturating_sub(2));
        Ok(end.filter(|&end| end <= input.len()).map(|end| PREFIX..end))
    }

    fn open_in<M: Memory>(
        &mut self,
        body: &[u8],
        _: Instant,
        memory: impl FnOnce(usize) -> M,
    ) -> Result<(), ProtocolError> {
        self.opened = match self.length.take() {
            Some(0) => {
                self.done.1 = true;
                Some(Event::Goodbye { reason: GoodbyeReason::Disconnected, received: 0 })
            }
            Some(1) => None,
            _ => {
                let mut plaintext = memory(body.len());
                plaintext.as_mut().copy_from_slice(body);
                Some(Event::Message(plaintext.into()))
            }
        };
        Ok(())
    }

    fn poll_event(&mut self) -> Option<Event> {
        let event = self.opened.take()?;
        self.received += u64::from(matches!(event, Event::Message(_)));
        Some(event)
    }

    fn seal(
        &mut self,
        source: &mut dyn MessageSource,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
        max: usize,
    ) -> Result<Sealed, ProtocolError> {
        let (begin, mut sealed) = (out.len(), Sealed::default());
        if std::mem::take(&mut self.greets) {
            self.put(out, 1, &[]);
            sealed.frames += 1;
        }
        while out.len() < max && !self.done.0 {
            let message = match source.next(&mut Plaintext::new(scratch, 0)) {
                Next::Message(message) => message,
                Next::Empty if self.goodbye.is_some() => {
                    self.done.0 = true;
                    Bytes::new()
                }
                Next::Empty | Next::NoRoom | Next::Packed(_) => break,
            };
            let length = if self.done.0 { 0 } else { message.len() as u16 + 2 };
            self.put(out, length, &message);
            if !self.done.0 {
                source.finished(message);
                sealed.messages_finished += 1;
            }
            source.frame_sealed(out.len());
            sealed.frames += 1;
        }
        sealed.bytes = out.len() - begin;
        Ok(sealed)
    }

    fn goodbye(&mut self, reason: GoodbyeReason) {
        self.goodbye.get_or_insert(reason);
    }

    fn end_of_stream(&self, unread: usize) -> Result<(), CloseReason> {
        if self.done.1 && unread == 0 { Ok(()) } else { Err(CloseReason::Truncated) }
    }

    fn is_open(&self) -> bool {
        self.done == (false, false)
    }

    fn wants_seal(&self) -> bool {
        self.greets || self.goodbye.is_some() && !self.done.0
    }

    fn finished_writing(&self) -> bool {
        self.done.0
    }

    fn finished_reading(&self) -> bool {
        self.done.1
    }

    fn received(&self) -> u64 {
        self.received
    }
}
