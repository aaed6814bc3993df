//! The state of one native session, and what it answers to a driver.
//!
//! Owns the phases of both directions, the verdict, and the session's abilities. How a frame is read
//! and written is [`receiving`](super::receiving)'s and [`sending`](super::sending)'s business.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::base::error::{CloseReason, GoodbyeReason, ProtocolError};
use crate::proto::HandshakeRole;
use crate::proto::native::crypto::{TAG, Transport};
use crate::proto::native::frame;
use crate::proto::native::frame::Split;
use crate::proto::native::outbox::Outbox;
use crate::proto::native::record;
use crate::proto::native::record::Verdict;
use crate::proto::wire::batch::MessageBatch;
use crate::proto::wire::connection::{
    Abilities, Connection, Event, MAX_FRAME, MAX_OVERHEAD, Memory,
};
use crate::proto::wire::source::{MessageSource, Sealed};

/// Frames after which a direction rekeys however few bytes they held: far from the 2^64 at which
/// nonces end, and the most that NIST SP 800-38D, section 8.3, allows GCM under one key however its
/// nonces are made. What a key may encrypt in bytes is for `rekey_after_bytes` to bound.
pub(super) const REKEY_AFTER_FRAMES: u64 = 1 << 32;

const _: () = assert!(frame::MAX_FRAME == MAX_FRAME && TAG <= MAX_OVERHEAD);

/// Most bytes of messages that may follow message 3 before the verdict. What a responder does not accept
/// stays in its system's memory; a connection's first window holds about as much.
const MAX_FIRST: usize = 16 * 1024;

/// All that there is to be able to do. Beside the messages of a frame there is room for a goodbye, the
/// largest record that follows messages.
pub(crate) const ABILITIES: Abilities = Abilities {
    probe: true,
    drain: true,
    confirms: true,
    max_first: MAX_FIRST,
    data_type: Some(record::DATA),
    max_packed: frame::MAX_PLAINTEXT - 16,
};

/// What both sides have settled before a session begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionParams {
    /// Who gives the verdict.
    pub(crate) role: HandshakeRole,
    /// The largest message that we accept, in bytes.
    pub(crate) max_message: usize,
    /// The largest message that the peer accepts, in bytes.
    pub(crate) peer_max_message: usize,
    /// Ciphertext bytes after which we rekey what we send.
    pub(crate) rekey_after_bytes: u64,
    /// Pings that we answer per second, and at once; at 0 each ping is a flood.
    pub(crate) pings_per_second: u32,
}

/// How far one direction of the session has come; the table in the module's doc has the transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing may flow: the verdict is due in the other direction.
    Silent,
    /// The verdict is due.
    Verdict,
    /// Messages, and nothing else: they were sent before our verdict.
    First,
    /// Anything but a verdict or a goodbye.
    Open,
    /// Only a goodbye.
    Drained,
    /// Nothing, for ever.
    Ended,
}

/// A frame that was opened and checked, as far as it has not been polled.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) plaintext: Bytes,
    /// How many messages it holds, if it holds nothing else and none was polled.
    pub(super) all_messages: Option<u32>,
    /// Less than half of its memory is messages: they are copied out, so that kept messages cannot
    /// hold memory that is large for other reasons.
    pub(super) sparse: bool,
    /// Of the pong in it. There is at most one, since at most one ping is open.
    pub(super) rtt: Option<Duration>,
}

/// One established session of the native wire, without its socket.
pub(crate) struct NativeConnection {
    pub(super) transport: Transport,
    pub(super) params: ConnectionParams,
    pub(super) failed: Option<ProtocolError>,
    /// Bytes that a frame is to have at most, where what waits can be cut.
    pub(super) frame_aim: usize,

    pub(super) sending: Phase,
    pub(super) outbox: Outbox,
    pub(super) verdict: Option<Verdict>,
    pub(super) drain: bool,
    pub(super) goodbye: Option<GoodbyeReason>,
    /// Messages written whole into frames.
    pub(crate) sent: u64,
    pub(super) bytes_since_rekey: u64,
    pub(super) frames_since_rekey: u64,
    pub(super) rekeys: u64,

    pub(super) receiving: Phase,
    pub(super) opened: Option<Opened>,
    /// Frames opened before that one was polled; none in a driver that polls after each, so that
    /// receiving needs no memory but the frame's.
    pub(super) opened_later: VecDeque<Opened>,
    /// Bytes that the message under reassembly still lacks, as of the last frame opened.
    pub(super) missing: u32,
    /// The message under reassembly, as of the last event polled.
    pub(super) assembly: Vec<u8>,
    pub(super) received: u64,
    pub(super) drain_polled: bool,

    pub(super) open_ping: Option<(u64, Instant)>,
    pub(super) srtt: Option<Duration>,
    /// The ping limit as a virtual clock: each answered ping takes its share of a second.
    pub(super) pings_paid_until: Option<Instant>,
}

impl NativeConnection {
    /// A session whose handshake is complete and whose verdict is outstanding.
    pub(crate) fn new(transport: Transport, params: ConnectionParams) -> Self {
        let (sending, receiving) = match params.role {
            HandshakeRole::Initiator => (Phase::Silent, Phase::Verdict),
            HandshakeRole::Responder => (Phase::Verdict, Phase::Silent),
        };
        Self {
            transport,
            params,
            failed: None,
            frame_aim: frame::MAX_PLAINTEXT,
            sending,
            outbox: Outbox::default(),
            verdict: None,
            drain: false,
            goodbye: None,
            sent: 0,
            bytes_since_rekey: 0,
            frames_since_rekey: 0,
            rekeys: 0,
            receiving,
            opened: None,
            opened_later: VecDeque::new(),
            missing: 0,
            assembly: Vec::new(),
            received: 0,
            drain_polled: false,
            open_ping: None,
            srtt: None,
            pings_paid_until: None,
        }
    }

    /// Queues the responder's verdict; without effect on an initiator and after the first. From a yes on
    /// the peer's messages are opened: they may be there already.
    pub(crate) fn verdict(&mut self, verdict: Verdict) {
        if self.sending == Phase::Verdict && self.verdict.is_none() {
            if matches!(verdict, Verdict::Accept { .. }) {
                self.receiving = Phase::First;
            }
            self.verdict = Some(verdict);
        }
    }

    /// Whether the peer still owes its verdict.
    pub(crate) fn awaits_verdict(&self) -> bool {
        self.receiving == Phase::Verdict
    }

    /// Bytes held for messages that have not been delivered.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn held(&self) -> usize {
        let opened = self.opened.iter().chain(&self.opened_later);
        let opened: usize = opened.map(|frame| frame.plaintext.len()).sum();
        opened + self.assembly.capacity()
    }
}

impl Connection for NativeConnection {
    fn abilities(&self) -> &'static Abilities {
        &ABILITIES
    }

    /// Lengths are not masked: there is nothing to keep.
    #[inline]
    fn cut_frame(&mut self, input: &[u8]) -> Result<Option<Range<usize>>, ProtocolError> {
        Ok(match frame::split(input)? {
            Split::Whole { body, .. } => Some(frame::PREFIX..frame::PREFIX + body.len()),
            Split::Partial { .. } => None,
        })
    }

    fn open_in<M: Memory>(
        &mut self,
        body: &[u8],
        now: Instant,
        memory: impl FnOnce(usize) -> M,
    ) -> Result<(), ProtocolError> {
        self.receive(body, now, memory)
    }

    #[inline]
    fn poll_messages(&mut self) -> Option<MessageBatch> {
        self.take_messages()
    }

    #[inline]
    fn poll_event(&mut self) -> Option<Event> {
        self.take_event()
    }

    #[inline]
    fn seal(
        &mut self,
        source: &mut dyn MessageSource,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
        max: usize,
    ) -> Result<Sealed, ProtocolError> {
        self.seal_frames(source, scratch, out, max)
    }

    fn take_unfinished(&mut self) -> Option<Bytes> {
        self.outbox.take_unfinished()
    }

    fn aim_at(&mut self, bytes: usize) {
        self.frame_aim = bytes;
    }

    fn ping(&mut self, nonce: u64, now: Instant) {
        if self.is_open() && self.open_ping.is_none() {
            self.open_ping = Some((nonce, now));
            self.outbox.ping(nonce);
        }
    }

    fn open_ping(&self) -> Option<Instant> {
        self.open_ping.map(|(_, queued_at)| queued_at)
    }

    fn keep_alive(&mut self) {
        self.outbox.keep_alive();
    }

    fn receipt(&mut self) {
        self.outbox.receipt();
    }

    fn drain(&mut self) {
        self.drain = true;
    }

    fn goodbye(&mut self, reason: GoodbyeReason) {
        self.goodbye.get_or_insert(reason);
    }

    fn end_of_stream(&self, unread: usize) -> Result<(), CloseReason> {
        if self.receiving == Phase::Ended && unread == 0 {
            Ok(())
        } else {
            Err(CloseReason::Truncated)
        }
    }

    fn is_open(&self) -> bool {
        self.sending == Phase::Open && self.receiving == Phase::Open
    }

    fn wants_seal(&self) -> bool {
        self.failed.is_none()
            && match self.sending {
                Phase::Silent | Phase::First | Phase::Ended => false,
                Phase::Verdict => self.verdict.is_some(),
                Phase::Open => self.drain || self.outbox.is_waiting(),
                Phase::Drained => self.goodbye_due().is_some(),
            }
    }

    fn finished_writing(&self) -> bool {
        self.sending == Phase::Ended
    }

    fn finished_reading(&self) -> bool {
        self.receiving == Phase::Ended
    }

    fn received(&self) -> u64 {
        self.received
    }

    fn rekeys(&self) -> u64 {
        self.rekeys
    }

    fn srtt(&self) -> Option<Duration> {
        self.srtt
    }
}
