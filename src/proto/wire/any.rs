//! The connection of one of the wires that there are.
//!
//! Owns the choice, which costs a compare at most: a session's driver calls through it for each frame.
//! It must never do anything but pass calls on.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::base::error::{CloseReason, GoodbyeReason, ProtocolError};
use crate::proto::native::connection::NativeConnection;
use crate::proto::wire::batch::MessageBatch;
use crate::proto::wire::connection::{Abilities, Connection, Event, Memory};
use crate::proto::wire::source::{MessageSource, Sealed};
#[cfg(any(test, noise_pool_plain_wire))]
use crate::verify::plain::connection::PlainConnection;

/// See the module.
#[cfg_attr(
    any(test, noise_pool_plain_wire),
    expect(clippy::large_enum_variant, reason = "only tests have the small one")
)]
pub(crate) enum AnyConnection {
    /// Noise `XK` and frames of records: `docs/wire.md`.
    Native(NativeConnection),
    /// Frames without encryption, to prove that nothing but abilities is asked for.
    #[cfg(any(test, noise_pool_plain_wire))]
    Plain(PlainConnection),
}

impl From<NativeConnection> for AnyConnection {
    fn from(connection: NativeConnection) -> Self {
        Self::Native(connection)
    }
}

/// Evaluates the expression with the connection, whichever it is.
macro_rules! with {
    ($any:expr, $connection:ident => $call:expr) => {
        match $any {
            AnyConnection::Native($connection) => $call,
            #[cfg(any(test, noise_pool_plain_wire))]
            AnyConnection::Plain($connection) => $call,
        }
    };
}

impl Connection for AnyConnection {
    fn abilities(&self) -> &'static Abilities {
        with!(self, it => it.abilities())
    }

    #[inline]
    fn cut_frame(&mut self, input: &[u8]) -> Result<Option<Range<usize>>, ProtocolError> {
        with!(self, it => it.cut_frame(input))
    }

    #[inline]
    fn open_in<M: Memory>(
        &mut self,
        body: &[u8],
        now: Instant,
        memory: impl FnOnce(usize) -> M,
    ) -> Result<(), ProtocolError> {
        with!(self, it => it.open_in(body, now, memory))
    }

    #[inline]
    fn poll_messages(&mut self) -> Option<MessageBatch> {
        with!(self, it => it.poll_messages())
    }

    #[inline]
    fn poll_event(&mut self) -> Option<Event> {
        with!(self, it => it.poll_event())
    }

    #[inline]
    fn seal(
        &mut self,
        source: &mut dyn MessageSource,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
        max: usize,
    ) -> Result<Sealed, ProtocolError> {
        with!(self, it => it.seal(source, scratch, out, max))
    }

    fn take_unfinished(&mut self) -> Option<Bytes> {
        with!(self, it => it.take_unfinished())
    }

    fn aim_at(&mut self, bytes: usize) {
        with!(self, it => it.aim_at(bytes));
    }

    fn ping(&mut self, nonce: u64, now: Instant) {
        with!(self, it => it.ping(nonce, now));
    }

    #[inline]
    fn open_ping(&self) -> Option<Instant> {
        with!(self, it => it.open_ping())
    }

    fn keep_alive(&mut self) {
        with!(self, it => it.keep_alive());
    }

    fn receipt(&mut self) {
        with!(self, it => it.receipt());
    }

    fn drain(&mut self) {
        with!(self, it => it.drain());
    }

    fn goodbye(&mut self, reason: GoodbyeReason) {
        with!(self, it => it.goodbye(reason));
    }

    fn end_of_stream(&self, unread: usize) -> Result<(), CloseReason> {
        with!(self, it => it.end_of_stream(unread))
    }

    #[inline]
    fn is_open(&self) -> bool {
        with!(self, it => it.is_open())
    }

    #[inline]
    fn wants_seal(&self) -> bool {
        with!(self, it => it.wants_seal())
    }

    #[inline]
    fn finished_writing(&self) -> bool {
        with!(self, it => it.finished_writing())
    }

    #[inline]
    fn finished_reading(&self) -> bool {
        with!(self, it => it.finished_reading())
    }

    #[inline]
    fn received(&self) -> u64 {
        with!(self, it => it.received())
    }

    #[inline]
    fn rekeys(&self) -> u64 {
        with!(self, it => it.rekeys())
    }

    fn srtt(&self) -> Option<Duration> {
        with!(self, it => it.srtt())
    }
}
