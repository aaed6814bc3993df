//! The keys of an established session: seals and opens frames, and rekeys.

use snow::TransportState;
use snow::error::{Error, StateProblem};

use super::primitives::TAG;
use crate::base::error::ProtocolError;

/// Both directions' cipher states of one session (`CipherState` of the Noise specification).
#[derive(Debug)]
pub(crate) struct Transport(TransportState);

impl Transport {
    pub(crate) fn new(state: TransportState) -> Self {
        Self(state)
    }

    /// Seals `plaintext` into the start of `out`, which must have room for 16 bytes more than it.
    ///
    /// Returns the ciphertext's length.
    ///
    /// # Errors
    /// [`ProtocolError::NoncesExhausted`] after 2^64 - 1 frames; [`ProtocolError::Cipher`] if
    /// `out` is too short, the frame would be over 65,535 bytes, or the cipher itself failed. What
    /// is in `out` then must not be sent.
    pub(crate) fn seal(
        &mut self,
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, ProtocolError> {
        let written = self.0.write_message(plaintext, out).map_err(sealing)?;
        // A cipher that failed says so by a wrong length: snow's trait has no other way.
        if written == plaintext.len() + TAG { Ok(written) } else { Err(ProtocolError::Cipher) }
    }

    /// Opens `ciphertext` into the start of `out`, which must have room for 16 bytes less than it.
    ///
    /// Returns the plaintext's length.
    ///
    /// # Errors
    /// [`ProtocolError::Decrypt`] if the tag does not verify, or `out` is too short;
    /// [`ProtocolError::NoncesExhausted`] after 2^64 - 1 frames.
    pub(crate) fn open(
        &mut self,
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, ProtocolError> {
        self.0.read_message(ciphertext, out).map_err(|error| match error {
            Error::State(StateProblem::Exhausted) => ProtocolError::NoncesExhausted,
            _ => ProtocolError::Decrypt,
        })
    }

    /// Noise `REKEY` of what we send.
    pub(crate) fn rekey_outgoing(&mut self) {
        self.0.rekey_outgoing();
    }

    /// Noise `REKEY` of what we receive.
    pub(crate) fn rekey_incoming(&mut self) {
        self.0.rekey_incoming();
    }
}

fn sealing(error: Error) -> ProtocolError {
    match error {
        Error::State(StateProblem::Exhausted) => ProtocolError::NoncesExhausted,
        _ => ProtocolError::Cipher,
    }
}

#[cfg(test)]
#[path = "../../../verify/proto/native/crypto/transport.rs"]
mod tests;
