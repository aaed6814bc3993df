//! The connection half of the seam: one established session of any wire, without its socket.
//!
//! Owns the contract between a session's driver and its wire, and the constants that hold for every
//! wire. It must never name a wire.
//!
//! How a driver uses a [`Connection`]:
//!
//! * Reading: [`cut_frame`](Connection::cut_frame) finds the frame at the front of the received bytes,
//!   [`open`](Connection::open) takes its body, then [`poll_messages`](Connection::poll_messages) and
//!   [`poll_event`](Connection::poll_event) until both answer none. A frame that breaks the protocol
//!   delivers nothing. A driver that cannot take more simply stops polling and opening: what waits is
//!   one frame's plaintext.
//! * Writing: control methods only take note. [`seal`](Connection::seal) writes them first, then
//!   messages from the source, as far as they go.
//! * Drain: close the source to newcomers, then call [`drain`](Connection::drain) and
//!   [`goodbye`](Connection::goodbye). The connection decides when each may be written.
//! * After an error of `open` or `seal` the session is over: both repeat the error.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::base::error::{CloseReason, GoodbyeReason, ProtocolError};
use crate::proto::wire::batch::MessageBatch;
use crate::proto::wire::source::{MessageSource, Sealed};

/// Most bytes of one frame on any wire: a Noise message (65,535 bytes) and its length.
pub(crate) const MAX_FRAME: usize = 2 + u16::MAX as usize;

/// Bytes of ciphertext after which a batch is closed on a fast link: one large frame, or two that are
/// not. By then the system call hardly shows; more would leave the processor's cache before it is
/// written, keep a peer waiting that could open the first frame, and delay control records.
pub(crate) const LARGE_BATCH: usize = MAX_FRAME / 2;

/// Most bytes by which a frame's body is longer than its plaintext, on any wire: an AEAD's tag.
pub(crate) const MAX_OVERHEAD: usize = 16;

/// What a wire can do. Sessions ask for this where a wire may lack something, and never which wire
/// it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// There is a ping that the peer has to answer. Without one nothing is probed, and no session
    /// ends because its peer is silent.
    pub(crate) probe: bool,
    /// A record says that no more messages follow, before the goodbye. Without one a drain writes
    /// what is queued, says goodbye, and reads to the end of the stream.
    pub(crate) drain: bool,
    /// The goodbye counts the messages that its sender has received. Without that, none is reported
    /// as delivered.
    pub(crate) confirms: bool,
    /// Most bytes of messages that may travel right behind the initiator's last handshake message, before
    /// its peer has accepted; 0: none may.
    pub(crate) max_first: usize,
    /// The type of a block that is a whole message: small messages wait as such
    /// [blocks](super::block), ready to be copied into a frame. None: they are not packed ahead.
    pub(crate) data_type: Option<u8>,
    /// Most bytes of blocks that are packed ahead together: they fit in one frame, beside a control
    /// record.
    pub(crate) max_packed: usize,
}

/// What a peer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A whole message, counted in [`Connection::received`] from now on.
    Message(Bytes),
    /// The answer to our ping.
    Pong {
        /// Time since the ping was queued.
        rtt: Duration,
    },
    /// The peer is alive, though it may not be reading.
    KeepAlive,
    /// The peer sends no more messages.
    Drain,
    /// The peer's last word.
    Goodbye {
        /// Why it went.
        reason: GoodbyeReason,
        /// Our messages that it received, never more than we have sent; ignored on a wire that
        /// does not [confirm](Abilities::confirms).
        received: u64,
    },
}

/// Memory that a frame is opened in.
pub(crate) trait Memory: AsMut<[u8]> + Into<Bytes> {
    /// All bytes of it, those beyond the frame's among them.
    fn size(&self) -> usize;
}

impl Memory for Vec<u8> {
    fn size(&self) -> usize {
        self.capacity()
    }
}

/// One established session of some wire; see the module. A wire that lacks something leaves the default.
pub(crate) trait Connection {
    /// What this wire can do.
    fn abilities(&self) -> &'static Abilities;

    /// Finds the frame at the front of `input`: where its body lies, whose end is the frame's end.
    /// None while the frame is not whole. Until then it is asked again with the same bytes and more;
    /// a frame that it has found is opened before it is asked for the next. So a wire that masks its
    /// lengths keeps the one that it has unmasked, and unmasks each once.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::FrameLength`] as soon as the length is known and impossible.
    fn cut_frame(&mut self, input: &[u8]) -> Result<Option<Range<usize>>, ProtocolError>;

    /// Decrypts one frame's body and checks all that it says; [`poll_messages`](Self::poll_messages)
    /// and [`poll_event`](Self::poll_event) then deliver it.
    ///
    /// # Errors
    ///
    /// What the peer did wrong; nothing of this frame is delivered, and the session is over.
    fn open(&mut self, body: &[u8], now: Instant) -> Result<(), ProtocolError> {
        self.open_in(body, now, |length| vec![0; length])
    }

    /// [`open`](Self::open) in memory of the caller's choice, for as many bytes as it is asked for.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    fn open_in<M: Memory>(
        &mut self,
        body: &[u8],
        now: Instant,
        memory: impl FnOnce(usize) -> M,
    ) -> Result<(), ProtocolError>;

    /// The messages of the next frame, if it holds nothing else; then there is nothing to poll in it.
    fn poll_messages(&mut self) -> Option<MessageBatch> {
        None
    }

    /// What the peer said next.
    fn poll_event(&mut self) -> Option<Event>;

    /// Appends frames to `out` until nothing waits or `out` is at least `max` bytes long; one frame
    /// may take it past that by up to [`MAX_FRAME`] bytes. The source is asked only while messages may
    /// be sent. `scratch` holds one frame's plaintext and is free again when the call returns.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::MessageTooLarge`] for a message that the peer does not accept, and what the
    /// cipher gives. The session is over, and `out` is not to be written.
    fn seal(
        &mut self,
        source: &mut dyn MessageSource,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
        max: usize,
    ) -> Result<Sealed, ProtocolError>;

    /// The message that was taken from the source and is not whole in frames, once there will be no more
    /// of them.
    fn take_unfinished(&mut self) -> Option<Bytes> {
        None
    }

    /// Frames are to have about so many bytes at most from now on, as far as the wire can cut what waits.
    fn aim_at(&mut self, _bytes: usize) {}

    /// Queues a ping; without effect while one is open, whose answer serves as well, and while the
    /// connection is not [open](Self::is_open). On an open one with the ability there is an
    /// [open ping](Self::open_ping) after it: the driver asks until there is.
    fn ping(&mut self, _nonce: u64, _now: Instant) {}

    /// When the open ping was queued. A ping stops being open with its answer, or when the peer will
    /// not answer any more.
    fn open_ping(&self) -> Option<Instant> {
        None
    }

    /// Queues a keep-alive, on a wire that has one.
    fn keep_alive(&mut self) {}

    /// Queues a word that says nothing but that something has come, on a wire that has one.
    fn receipt(&mut self) {}

    /// Lets the next [`seal`](Self::seal) that empties the source say that no more messages follow.
    fn drain(&mut self) {}

    /// Lets [`seal`](Self::seal) write our goodbye as soon as the wire allows it, and never before the
    /// source is empty. The first reason stands.
    fn goodbye(&mut self, reason: GoodbyeReason);

    /// What the end of the stream means with `unread` bytes of an unfinished frame left.
    ///
    /// # Errors
    ///
    /// [`CloseReason::Truncated`] unless it comes between frames and after the peer's last word.
    fn end_of_stream(&self, unread: usize) -> Result<(), CloseReason>;

    /// Whether messages may flow in both directions: neither side has drained.
    fn is_open(&self) -> bool;

    /// Whether [`seal`](Self::seal) would write something even with an empty source.
    fn wants_seal(&self) -> bool;

    /// Whether we have written our last word: the stream can be half-closed.
    fn finished_writing(&self) -> bool;

    /// Whether the peer has said its last word: only the end of the stream may follow.
    fn finished_reading(&self) -> bool;

    /// Messages received and polled.
    fn received(&self) -> u64;

    /// How often keys changed, both directions together.
    fn rekeys(&self) -> u64 {
        0
    }

    /// Smoothed round-trip time, as in RFC 6298.
    fn srtt(&self) -> Option<Duration> {
        None
    }
}
