//! The keys of an established session: seals and opens frames, and rekeys.

use snow::TransportState;
use snow::error::{Error, StateProblem};

use super::TAG;
use crate::error::ProtocolError;

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
mod tests {
    use super::*;
    use crate::proto::crypto::Suite;
    use crate::proto::crypto::testing::transports;

    #[test]
    fn what_is_sealed_opens_once_and_in_order() {
        let (mut a, mut b) = transports(Suite::default());
        let (mut one, mut two) = ([0; 21], [0; 21]);
        assert_eq!(a.seal(b"first", &mut one), Ok(21));
        assert_eq!(a.seal(b"other", &mut two), Ok(21));
        let mut out = [0; 5];
        assert_eq!(b.open(&two, &mut out), Err(ProtocolError::Decrypt));
        assert_eq!(b.open(&one, &mut out), Ok(5));
        assert_eq!(&out, b"first");
        assert_eq!(b.open(&one, &mut out), Err(ProtocolError::Decrypt));
        assert_eq!(b.open(&two, &mut out), Ok(5));
        assert_eq!((a.0.sending_nonce(), b.0.receiving_nonce()), (2, 2));
        assert_eq!((b.0.sending_nonce(), a.0.receiving_nonce()), (0, 0));
    }

    #[test]
    fn a_rekey_is_of_one_direction_and_keeps_the_nonce() {
        let (mut a, mut b) = transports(Suite::default());
        let mut sealed = [0; 17];
        let mut out = [0; 1];
        a.seal(b"x", &mut sealed).unwrap();
        b.open(&sealed, &mut out).unwrap();
        a.rekey_outgoing();
        a.seal(b"x", &mut sealed).unwrap();
        assert_eq!(b.open(&sealed, &mut out), Err(ProtocolError::Decrypt));
        b.rekey_incoming();
        assert_eq!(b.open(&sealed, &mut out), Ok(1));
        assert_eq!((a.0.sending_nonce(), b.0.receiving_nonce()), (2, 2));
        b.seal(b"x", &mut sealed).unwrap();
        assert_eq!(a.open(&sealed, &mut out), Ok(1));
    }

    #[test]
    fn lengths_are_checked() {
        let (mut a, mut b) = transports(Suite::default());
        assert_eq!(a.seal(b"x", &mut [0; 16]), Err(ProtocolError::Cipher));
        let mut large = vec![0; 65_536];
        let most = vec![7; 65_519];
        assert_eq!(a.seal(&[7; 65_520], &mut large), Err(ProtocolError::Cipher));
        assert_eq!(a.seal(&most, &mut large), Ok(65_535));
        let mut out = vec![0; 65_519];
        for length in 0..16 {
            assert_eq!(b.open(&large[..length], &mut out), Err(ProtocolError::Decrypt));
        }
        assert_eq!(b.open(&large[..65_535], &mut [0; 65_518]), Err(ProtocolError::Decrypt));
        assert_eq!(b.open(&large[..65_535], &mut out), Ok(65_519));
        assert_eq!(out, most);
    }

    #[test]
    fn the_last_nonce_is_never_used() {
        let (mut a, _) = transports(Suite::default());
        a.0.set_receiving_nonce(u64::MAX);
        let error = a.open(&[0; 17], &mut [0; 1]);
        assert_eq!(error, Err(ProtocolError::NoncesExhausted));
    }
}
