//! The sending half: fills frames in the order that the session's rules give, and encrypts them.
//!
//! Owns when verdict, rekey, drain and goodbye are written. It must never take a message from the
//! source that may not be sent, and never write a record after the last one that its phase allows.

use super::state::{NativeConnection, Phase, REKEY_AFTER_FRAMES};
use crate::base::error::ProtocolError;
use crate::proto::native::frame;
use crate::proto::native::outbox::push;
use crate::proto::native::record::{Record, Verdict};
use crate::proto::wire::block;
use crate::proto::wire::source::{MessageSource, Plaintext, Sealed};

impl NativeConnection {
    /// Appends frames to `out` until nothing waits or `out` is at least `max` bytes long.
    pub(super) fn seal_frames(
        &mut self,
        source: &mut dyn MessageSource,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
        max: usize,
    ) -> Result<Sealed, ProtocolError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let begin = out.len();
        let mut sealed = Sealed::default();
        while out.len() < max {
            match self.seal_frame(source, scratch, out, &mut sealed) {
                Ok(true) => {
                    sealed.frames += 1;
                    source.frame_sealed(out.len());
                }
                Ok(false) => break,
                Err(error) => {
                    self.failed = Some(error);
                    return Err(error);
                }
            }
        }
        sealed.bytes = out.len() - begin;
        Ok(sealed)
    }

    /// Appends the messages that follow message 3, before the verdict: all of the source's.
    pub(crate) fn seal_first(
        &mut self,
        source: &mut dyn MessageSource,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        debug_assert!(self.awaits_verdict() && self.sending == Phase::Silent);
        self.sending = Phase::Open;
        let sealed = self.seal_frames(source, &mut Vec::new(), out, usize::MAX);
        self.sending = Phase::Silent;
        sealed.map(drop)
    }

    /// Appends one frame, if there is something to say.
    fn seal_frame(
        &mut self,
        source: &mut dyn MessageSource,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
        sealed: &mut Sealed,
    ) -> Result<bool, ProtocolError> {
        let rekey_due = self.bytes_since_rekey >= self.params.rekey_after_bytes
            || self.frames_since_rekey >= REKEY_AFTER_FRAMES;
        let reserved = if rekey_due { block::HEADER } else { 0 };
        let mut plaintext =
            Plaintext::new(scratch, frame::MAX_PLAINTEXT - reserved).aiming_at(self.frame_aim);
        let mut rekey = false;

        if self.sending == Phase::Verdict
            && let Some(verdict) = self.verdict.take()
        {
            self.fill_verdict(&verdict, &mut plaintext)?;
        }
        if self.sending == Phase::Open {
            self.outbox.fill_control(&mut plaintext);
            let max_message = self.params.peer_max_message;
            let filled = self.outbox.fill_messages(&mut plaintext, source, max_message)?;
            self.sent += filled.finished;
            sealed.messages_finished += filled.finished;
            if self.drain && filled.source_empty && push(&mut plaintext, Record::Drain) {
                self.sending = Phase::Drained;
            } else if rekey_due && (!plaintext.is_empty() || self.outbox.message_under_way()) {
                plaintext.extend_capacity(reserved);
                rekey = push(&mut plaintext, Record::Rekey);
            }
        }
        if self.sending == Phase::Drained
            && let Some(goodbye) = self.goodbye_due()
            && push(&mut plaintext, goodbye)
        {
            self.sending = Phase::Ended;
        }

        if plaintext.is_empty() {
            return Ok(false);
        }
        let begin = out.len();
        frame::seal(&mut self.transport, scratch, out)?;
        self.bytes_since_rekey += (out.len() - begin) as u64;
        self.frames_since_rekey += 1;
        if rekey {
            self.transport.rekey_outgoing();
            self.bytes_since_rekey = 0;
            self.frames_since_rekey = 0;
            self.rekeys += 1;
        }
        Ok(true)
    }

    fn fill_verdict(
        &mut self,
        verdict: &Verdict,
        plaintext: &mut Plaintext<'_>,
    ) -> Result<(), ProtocolError> {
        let fits = push(plaintext, Record::Verdict(&verdict.encode()?));
        debug_assert!(fits, "a verdict is far smaller than an empty frame");
        match verdict {
            Verdict::Accept { .. } => (self.sending, self.receiving) = (Phase::Open, Phase::Open),
            Verdict::Reject { .. } => (self.sending, self.receiving) = (Phase::Ended, Phase::Ended),
        }
        Ok(())
    }

    pub(super) fn goodbye_due(&self) -> Option<Record<'static>> {
        let reason = self.goodbye.filter(|_| self.drain_polled)?;
        Some(Record::Goodbye { reason, received: self.received })
    }
}
