//! Frames: how encrypted records lie on the stream.
//!
//! Owns the frame's sizes and its cutting out of a byte stream: `u16` big-endian length, then that
//! many bytes of AEAD ciphertext. It must never allocate for a length that has only been announced.

use crate::base::error::ProtocolError;
use crate::proto::native::crypto::{TAG, Transport};

/// Bytes of the length in front of each frame, as in front of each handshake message.
pub(crate) const PREFIX: usize = 2;
/// Least ciphertext: a tag and one byte, since a frame holds at least one record.
pub(crate) const MIN_CIPHERTEXT: usize = TAG + 1;
/// Most ciphertext: what the length can say, and what one Noise message may be.
pub(crate) const MAX_CIPHERTEXT: usize = u16::MAX as usize;
/// Most plaintext in one frame.
pub(crate) const MAX_PLAINTEXT: usize = MAX_CIPHERTEXT - TAG;
/// Most bytes of one frame on the stream.
pub(crate) const MAX_FRAME: usize = PREFIX + MAX_CIPHERTEXT;

/// What lies at the front of some received bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Split<'a> {
    /// A whole frame.
    Whole {
        /// Its ciphertext.
        body: &'a [u8],
        /// What follows it.
        rest: &'a [u8],
    },
    /// The beginning of a frame.
    Partial {
        /// Bytes that still miss until the frame, or first its length, is whole; at least 1.
        missing: usize,
    },
}

/// Cuts one frame off the front of `input`.
///
/// # Errors
///
/// [`ProtocolError::FrameLength`] as soon as the length is known and too small; no length is too large.
pub(crate) fn split(input: &[u8]) -> Result<Split<'_>, ProtocolError> {
    let Some((prefix, after)) = input.split_first_chunk::<PREFIX>() else {
        return Ok(Split::Partial { missing: PREFIX - input.len() });
    };
    let length = u16::from_be_bytes(*prefix);
    if usize::from(length) < MIN_CIPHERTEXT {
        return Err(ProtocolError::FrameLength(length));
    }
    match after.split_at_checked(usize::from(length)) {
        Some((body, rest)) => Ok(Split::Whole { body, rest }),
        None => Ok(Split::Partial { missing: usize::from(length) - after.len() }),
    }
}

/// Encrypts `plaintext` (1 to [`MAX_PLAINTEXT`] bytes) as one frame at the end of `out`.
pub(crate) fn seal(
    transport: &mut Transport,
    plaintext: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ProtocolError> {
    debug_assert!((1..=MAX_PLAINTEXT).contains(&plaintext.len()));
    let length = plaintext.len() + TAG;
    out.extend_from_slice(&(length as u16).to_be_bytes());
    let begin = out.len();
    out.resize(begin + length, 0);
    transport.seal(plaintext, &mut out[begin..])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_frames_one_after_another() {
        let mut input = vec![0, 17];
        input.extend([1; 17]);
        input.extend([0, 18]);
        input.extend([2; 18]);
        input.push(9);
        let Split::Whole { body, rest } = split(&input).unwrap() else {
            panic!("the first frame is whole");
        };
        assert_eq!(body, [1; 17]);
        let Split::Whole { body, rest } = split(rest).unwrap() else {
            panic!("the second frame is whole");
        };
        assert_eq!(body, [2; 18]);
        assert_eq!(rest, [9]);
        assert_eq!(split(rest).unwrap(), Split::Partial { missing: 1 });
    }

    #[test]
    fn a_frame_cut_at_any_byte_says_what_is_missing() {
        let mut input = vec![0, 40];
        input.extend([7; 40]);
        for cut in 0..input.len() {
            let missing = if cut < PREFIX { PREFIX - cut } else { input.len() - cut };
            assert_eq!(split(&input[..cut]).unwrap(), Split::Partial { missing });
        }
        assert!(matches!(split(&input).unwrap(), Split::Whole { rest: [], .. }));
    }

    #[test]
    fn lengths_without_room_for_a_record_are_refused_at_once() {
        for length in 0..17_u16 {
            assert_eq!(split(&length.to_be_bytes()), Err(ProtocolError::FrameLength(length)));
        }
        assert_eq!(split(&[0, 17]).unwrap(), Split::Partial { missing: 17 });
        assert_eq!(split(&[255, 255]).unwrap(), Split::Partial { missing: 65_535 });
    }
}
