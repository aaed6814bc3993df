//! One established session, without its socket.
//!
//! Owns everything that both sides of a session agree on after the handshake: which record may come
//! when, reassembly, rekeying, pings, the drain. Bytes go in with [`SessionCore::open`] and come out
//! with [`SessionCore::seal`]; time is an argument. It must never panic on anything that a peer
//! sends, never hold more than twice what has arrived, and hold no buffer while nothing is under way.
//!
//! How a driver uses it:
//!
//! * Reading: [`split`](crate::proto::native::frame::split) cuts a frame off the received bytes, `open`
//!   takes its body, then [`SessionCore::poll_messages`] and [`SessionCore::poll_event`] until both
//!   answer none. A frame that breaks the protocol delivers nothing. A driver that cannot take more
//!   simply stops polling (and opening): what waits is one frame's plaintext, not its messages one
//!   by one.
//! * Writing: control methods only take note. [`SessionCore::seal`] writes them first, then messages
//!   from the source, as far as they go. `scratch` holds one frame's plaintext and is free again
//!   when the call returns, so it can be lent from a stock for just that long.
//! * Drain: close the source to newcomers, then call [`SessionCore::drain`] and
//!   [`SessionCore::goodbye`], both at any time. `Drain` is written once the source is empty,
//!   `Goodbye` once the peer's [`Event::Drain`] has been polled, for only then is `received` final.
//!   The peer's drain asks for the same two calls.
//! * After an error of `open` or `seal` the session is over: both repeat the error.
//!
//! What is in place when, for what we write and for what we accept alike:
//!
//! ```text
//! responder:  verdict ──Accept──▶ open ──Drain──▶ drained ──Goodbye──▶ ended
//!                └──────────────────Reject────────────────────────────▶ ended
//! initiator:  silent until it has opened the verdict, then the same
//! ```
//!
//! Skippable records of later versions are in place while a direction is open, and only there.
//! Messages keep their order: one that is sent in fragments ends before the next begins, and only
//! control records come in between; anything else there is a `FragmentOrder` error.

mod receiving;
mod sending;
#[cfg(test)]
#[path = "../../../verify/proto/native/connection/mod.rs"]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::base::error::{CloseReason, GoodbyeReason, ProtocolError};
use crate::proto::HandshakeRole;
use crate::proto::native::batch::Outbox;
use crate::proto::native::crypto::Transport;
use crate::proto::native::record::Verdict;
pub(crate) use receiving::Memory;
use receiving::Opened;

/// Frames after which a direction rekeys however few bytes they held: far from the 2^64 at which
/// nonces end, and the most that NIST SP 800-38D, section 8.3, allows GCM under one key however its
/// nonces are made. What a key may encrypt in bytes is for `rekey_after_bytes` to bound.
const REKEY_AFTER_FRAMES: u64 = 1 << 32;

/// What both sides have settled before a session begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CoreParams {
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

/// What a peer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The responder's verdict: the first event of an initiator's session.
    Verdict(Verdict),
    /// A whole message, counted in [`SessionCore::received`] from now on.
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
    /// The peer's last record.
    Goodbye {
        /// Why it went.
        reason: GoodbyeReason,
        /// Our messages that it received; never more than we have sent.
        received: u64,
    },
}

/// How far one direction of the session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing may flow: the verdict is due in the other direction.
    Silent,
    /// The verdict is due.
    Verdict,
    /// Anything but a verdict or a goodbye.
    Open,
    /// Only a goodbye.
    Drained,
    /// Nothing, for ever.
    Ended,
}

/// One established session, without its socket.
pub(crate) struct SessionCore {
    transport: Transport,
    params: CoreParams,
    failed: Option<ProtocolError>,

    sending: Phase,
    outbox: Outbox,
    verdict: Option<Verdict>,
    drain: bool,
    goodbye: Option<GoodbyeReason>,
    sent: u64,
    bytes_since_rekey: u64,
    frames_since_rekey: u64,
    rekeys: u64,

    receiving: Phase,
    opened: Option<Opened>,
    /// Frames opened before that one was polled; none in a driver that polls after each, so that
    /// receiving needs no memory but the frame's.
    opened_later: VecDeque<Opened>,
    /// Bytes that the message under reassembly still lacks, as of the last frame opened.
    missing: u32,
    /// The message under reassembly, as of the last event polled.
    assembly: Vec<u8>,
    received: u64,
    drain_polled: bool,

    open_ping: Option<(u64, Instant)>,
    srtt: Option<Duration>,
    /// The ping limit as a virtual clock: each answered ping takes its share of a second.
    pings_paid_until: Option<Instant>,
}

impl SessionCore {
    /// A session whose handshake is complete and whose verdict is outstanding.
    pub(crate) fn new(transport: Transport, params: CoreParams) -> Self {
        let (sending, receiving) = match params.role {
            HandshakeRole::Initiator => (Phase::Silent, Phase::Verdict),
            HandshakeRole::Responder => (Phase::Verdict, Phase::Silent),
        };
        Self {
            transport,
            params,
            failed: None,
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

    /// What the end of the stream means; `partial_frame` when bytes of an unfinished frame are left.
    ///
    /// # Errors
    ///
    /// [`CloseReason::Truncated`] unless it comes between frames and after the peer's goodbye or a
    /// rejecting verdict.
    pub(crate) fn end_of_stream(&self, partial_frame: bool) -> Result<(), CloseReason> {
        if self.receiving == Phase::Ended && !partial_frame {
            Ok(())
        } else {
            Err(CloseReason::Truncated)
        }
    }

    /// Queues the responder's verdict; without effect on an initiator and after the first.
    pub(crate) fn verdict(&mut self, verdict: Verdict) {
        if self.sending == Phase::Verdict {
            self.verdict.get_or_insert(verdict);
        }
    }

    /// Queues a ping; without effect while one is open, whose answer serves as well, and unless both
    /// directions are open. [`open_ping`](Self::open_ping) tells.
    pub(crate) fn ping(&mut self, nonce: u64, now: Instant) {
        let both_open = self.sending == Phase::Open && self.receiving == Phase::Open;
        if both_open && self.open_ping.is_none() {
            self.open_ping = Some((nonce, now));
            self.outbox.ping(nonce);
        }
    }

    /// Queues a keep-alive.
    pub(crate) fn keep_alive(&mut self) {
        self.outbox.keep_alive();
    }

    /// Lets the next [`seal`](Self::seal) that empties the source write our drain.
    pub(crate) fn drain(&mut self) {
        self.drain = true;
    }

    /// Lets [`seal`](Self::seal) write our goodbye as soon as both drains allow it. The first
    /// reason stands.
    pub(crate) fn goodbye(&mut self, reason: GoodbyeReason) {
        self.goodbye.get_or_insert(reason);
    }

    /// Whether `seal` would write something even with an empty source.
    pub(crate) fn wants_seal(&self) -> bool {
        self.failed.is_none()
            && match self.sending {
                Phase::Silent | Phase::Ended => false,
                Phase::Verdict => self.verdict.is_some(),
                Phase::Open => self.drain || self.outbox.is_waiting(),
                Phase::Drained => self.goodbye_due().is_some(),
            }
    }

    /// Messages received and polled.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Messages written whole into frames.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// How often keys changed, both directions together.
    pub(crate) fn rekeys(&self) -> u64 {
        self.rekeys
    }

    /// Smoothed round-trip time, as in RFC 6298.
    pub(crate) fn srtt(&self) -> Option<Duration> {
        self.srtt
    }

    /// When the open ping was queued. A ping stops being open with its pong or the peer's drain.
    pub(crate) fn open_ping(&self) -> Option<Instant> {
        self.open_ping.map(|(_, queued_at)| queued_at)
    }

    /// Bytes held for messages that have not been delivered.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn held(&self) -> usize {
        let opened = self.opened.iter().chain(&self.opened_later);
        let opened: usize = opened.map(|frame| frame.plaintext.len()).sum();
        opened + self.assembly.capacity()
    }

    /// Whether the peer still owes its verdict.
    pub(crate) fn awaits_verdict(&self) -> bool {
        self.receiving == Phase::Verdict
    }

    /// Whether the verdict was an acceptance and neither side has drained.
    pub(crate) fn is_open(&self) -> bool {
        self.sending == Phase::Open && self.receiving == Phase::Open
    }
    /// Whether we have written our last record: the stream can be half-closed.
    pub(crate) fn finished_writing(&self) -> bool {
        self.sending == Phase::Ended
    }

    /// Whether the peer has written its last record: only the end of the stream may follow.
    pub(crate) fn finished_reading(&self) -> bool {
        self.receiving == Phase::Ended
    }
}
