//! Records: what one frame's plaintext says.
//!
//! Owns the encoding of each record, which is a [block](crate::proto::wire::block). It knows form
//! only; whether a record is in place is for [`connection`](super::connection) to say. It must never
//! allocate for a length that has only been announced.

use std::time::Duration;

use bytes::Bytes;

use crate::base::config::MAX_APPLICATION_PAYLOAD;
use crate::base::error::{GoodbyeReason, ProtocolError, RejectReason};
use crate::proto::native::frame;
use crate::proto::wire::block::{HEADER, put, put_header};

/// Bytes in front of a fragment's part of the message: the header and `remaining`.
pub(crate) const FRAGMENT_HEADER: usize = HEADER + 4;
/// Most bytes of a body; also the largest message that goes unfragmented.
pub(crate) const MAX_BODY: usize = frame::MAX_PLAINTEXT - HEADER;

pub(crate) const DATA: u8 = 0x01;
pub(crate) const FRAGMENT: u8 = 0x02;
pub(crate) const PING: u8 = 0x03;
pub(crate) const PONG: u8 = 0x04;
pub(crate) const KEEP_ALIVE: u8 = 0x05;
pub(crate) const REKEY: u8 = 0x06;
pub(crate) const DRAIN: u8 = 0x07;
pub(crate) const GOODBYE: u8 = 0x08;
pub(crate) const VERDICT: u8 = 0x09;
/// Set in the types that a receiver may skip when it does not know them.
const SKIPPABLE: u8 = 0x80;
/// Says that something has come. The frame itself says all, so that a receiver skips it.
pub(crate) const RECEIPT: u8 = SKIPPABLE;

const ACCEPT: u8 = 0x00;
const REJECT: u8 = 0x01;

/// One record, borrowed from the plaintext that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// A whole message.
    Data(&'a [u8]),
    /// A part of a message that is larger than a frame.
    Fragment {
        /// Bytes of the message that follow after this fragment.
        remaining: u32,
        /// At least one byte.
        part: &'a [u8],
    },
    /// Asks for a [`Record::Pong`] with the same nonce.
    Ping(u64),
    /// Answers a [`Record::Ping`].
    Pong(u64),
    /// Says that the sender is alive though it does not read.
    KeepAlive,
    /// The sender rekeys its direction right after this frame.
    Rekey,
    /// The sender sends no more messages.
    Drain,
    /// The sender's last record.
    Goodbye {
        /// Why it went.
        reason: GoodbyeReason,
        /// Messages that it received.
        received: u64,
    },
    /// The body of a verdict; [`Verdict::decode`] reads it.
    Verdict(&'a [u8]),
    /// Of a later version, and not needed to understand the rest.
    Skippable {
        /// Its type.
        kind: u8,
        /// Its body.
        body: &'a [u8],
    },
}

impl<'a> Record<'a> {
    /// Reads the record at the front of `input`; also the number of bytes that it takes.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::RecordLength`] when it goes past `input`, [`ProtocolError::RecordForm`] when
    /// its body has a length that its type forbids, [`ProtocolError::UnknownRecord`] when the type
    /// is unknown and may not be skipped.
    #[inline]
    pub(crate) fn decode(input: &'a [u8]) -> Result<(Self, usize), ProtocolError> {
        let Some((&[kind, high, low], rest)) = input.split_first_chunk::<HEADER>() else {
            return Err(ProtocolError::RecordLength);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let body = rest.get(..length).ok_or(ProtocolError::RecordLength)?;
        let form = ProtocolError::RecordForm(kind);
        let record = match kind {
            DATA => Self::Data(body),
            FRAGMENT => match body.split_first_chunk() {
                Some((remaining, part)) if !part.is_empty() => {
                    Self::Fragment { remaining: u32::from_be_bytes(*remaining), part }
                }
                _ => return Err(form),
            },
            PING => Self::Ping(number(body).ok_or(form)?),
            PONG => Self::Pong(number(body).ok_or(form)?),
            KEEP_ALIVE if body.is_empty() => Self::KeepAlive,
            REKEY if body.is_empty() => Self::Rekey,
            DRAIN if body.is_empty() => Self::Drain,
            KEEP_ALIVE | REKEY | DRAIN => return Err(form),
            GOODBYE => match body.split_first() {
                Some((&code, received)) => Self::Goodbye {
                    reason: goodbye_reason(code),
                    received: number(received).ok_or(form)?,
                },
                None => return Err(form),
            },
            VERDICT => Self::Verdict(body),
            kind if kind & SKIPPABLE != 0 => Self::Skippable { kind, body },
            kind => return Err(ProtocolError::UnknownRecord(kind)),
        };
        Ok((record, HEADER + length))
    }

    /// Appends the record to `out`. Bodies are at most [`MAX_BODY`] bytes.
    #[inline]
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Data(body) => put(out, DATA, body),
            Self::Fragment { remaining, part } => {
                put_header(out, FRAGMENT, 4 + part.len());
                out.extend_from_slice(&remaining.to_be_bytes());
                out.extend_from_slice(part);
            }
            Self::Ping(nonce) => put(out, PING, &nonce.to_be_bytes()),
            Self::Pong(nonce) => put(out, PONG, &nonce.to_be_bytes()),
            Self::KeepAlive => put_header(out, KEEP_ALIVE, 0),
            Self::Rekey => put_header(out, REKEY, 0),
            Self::Drain => put_header(out, DRAIN, 0),
            Self::Goodbye { reason, received } => {
                put_header(out, GOODBYE, 9);
                out.push(goodbye_code(reason));
                out.extend_from_slice(&received.to_be_bytes());
            }
            Self::Verdict(body) => put(out, VERDICT, body),
            Self::Skippable { kind, body } => put(out, kind, body),
        }
    }

    /// Bytes that [`encode`](Self::encode) appends.
    #[inline]
    pub(crate) fn encoded_len(&self) -> usize {
        HEADER
            + match self {
                Self::Data(body) | Self::Verdict(body) | Self::Skippable { body, .. } => body.len(),
                Self::Fragment { part, .. } => 4 + part.len(),
                Self::Ping(_) | Self::Pong(_) => 8,
                Self::KeepAlive | Self::Rekey | Self::Drain => 0,
                Self::Goodbye { .. } => 9,
            }
    }

    /// The record's type, for [`ProtocolError::OutOfPlace`].
    pub(crate) fn kind(&self) -> u8 {
        match *self {
            Self::Data(_) => DATA,
            Self::Fragment { .. } => FRAGMENT,
            Self::Ping(_) => PING,
            Self::Pong(_) => PONG,
            Self::KeepAlive => KEEP_ALIVE,
            Self::Rekey => REKEY,
            Self::Drain => DRAIN,
            Self::Goodbye { .. } => GOODBYE,
            Self::Verdict(_) => VERDICT,
            Self::Skippable { kind, .. } => kind,
        }
    }
}

/// The responder's first record on a new session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The session is open.
    Accept {
        /// The responder's stamp of this session.
        stamp: u64,
        /// The initiator's address as the responder saw it; may be empty. At most 255 bytes.
        observed: String,
        /// The responder's application payload, at most [`MAX_APPLICATION_PAYLOAD`] bytes.
        payload: Bytes,
    },
    /// The session ends here.
    Reject {
        /// Why.
        reason: RejectReason,
        /// When another attempt makes sense; on the wire in whole milliseconds, at most 49 days.
        retry_after: Option<Duration>,
    },
}

impl Verdict {
    /// Reads the body of a verdict record.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::RecordForm`] when it is not of the form above,
    /// [`ProtocolError::MessageTooLarge`] when the application payload is.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, ProtocolError> {
        let form = ProtocolError::RecordForm(VERDICT);
        let (&code, rest) = body.split_first().ok_or(form)?;
        match code {
            ACCEPT => {
                let (stamp, rest) = rest.split_first_chunk().ok_or(form)?;
                let (&length, rest) = rest.split_first().ok_or(form)?;
                let (observed, payload) = rest.split_at_checked(usize::from(length)).ok_or(form)?;
                if payload.len() > MAX_APPLICATION_PAYLOAD {
                    return Err(too_large(payload.len()));
                }
                Ok(Self::Accept {
                    stamp: u64::from_be_bytes(*stamp),
                    observed: str::from_utf8(observed).map_err(|_| form)?.to_owned(),
                    payload: Bytes::copy_from_slice(payload),
                })
            }
            REJECT => {
                let &[reason, ref retry_after @ ..] = rest.first_chunk::<5>().ok_or(form)?;
                if rest.len() != 5 {
                    return Err(form);
                }
                let millis = u32::from_be_bytes(*retry_after);
                Ok(Self::Reject {
                    reason: reject_reason(reason),
                    retry_after: (millis != 0).then(|| Duration::from_millis(millis.into())),
                })
            }
            _ => Err(form),
        }
    }

    /// The body of a verdict record.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::MessageTooLarge`] when the application payload is over its limit, and
    /// [`ProtocolError::RecordForm`] when the observed address is.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, ProtocolError> {
        match self {
            Self::Accept { stamp, observed, payload } => {
                let length =
                    u8::try_from(observed.len()).map_err(|_| ProtocolError::RecordForm(VERDICT))?;
                if payload.len() > MAX_APPLICATION_PAYLOAD {
                    return Err(too_large(payload.len()));
                }
                let mut body = Vec::with_capacity(10 + observed.len() + payload.len());
                body.push(ACCEPT);
                body.extend_from_slice(&stamp.to_be_bytes());
                body.push(length);
                body.extend_from_slice(observed.as_bytes());
                body.extend_from_slice(payload);
                Ok(body)
            }
            Self::Reject { reason, retry_after } => {
                // Rounded up: an early retry would only be refused again.
                let millis = retry_after.map_or(0, |after| after.as_nanos().div_ceil(1_000_000));
                let millis = u32::try_from(millis).unwrap_or(u32::MAX);
                let mut body = vec![REJECT, reject_code(*reason)];
                body.extend_from_slice(&millis.to_be_bytes());
                Ok(body)
            }
        }
    }
}

/// The error for a message, or an application payload, of `bytes` bytes.
pub(crate) fn too_large(bytes: usize) -> ProtocolError {
    ProtocolError::MessageTooLarge(u32::try_from(bytes).unwrap_or(u32::MAX))
}

fn number(body: &[u8]) -> Option<u64> {
    body.try_into().ok().map(u64::from_be_bytes)
}

fn goodbye_reason(code: u8) -> GoodbyeReason {
    match code {
        0 => GoodbyeReason::Answer,
        1 => GoodbyeReason::Idle,
        2 => GoodbyeReason::Age,
        3 => GoodbyeReason::Evicted,
        4 => GoodbyeReason::Superseded,
        5 => GoodbyeReason::Disconnected,
        6 => GoodbyeReason::Shutdown,
        code => GoodbyeReason::Other(code),
    }
}

fn goodbye_code(reason: GoodbyeReason) -> u8 {
    match reason {
        GoodbyeReason::Answer => 0,
        GoodbyeReason::Idle => 1,
        GoodbyeReason::Age => 2,
        GoodbyeReason::Evicted => 3,
        GoodbyeReason::Superseded => 4,
        GoodbyeReason::Disconnected => 5,
        GoodbyeReason::Shutdown => 6,
        GoodbyeReason::Other(code) => code,
    }
}

fn reject_reason(code: u8) -> RejectReason {
    match code {
        1 => RejectReason::Full,
        2 => RejectReason::Draining,
        3 => RejectReason::Refused,
        4 => RejectReason::Simultaneous,
        5 => RejectReason::Duplicate,
        code => RejectReason::Other(code),
    }
}

fn reject_code(reason: RejectReason) -> u8 {
    match reason {
        RejectReason::Full => 1,
        RejectReason::Draining => 2,
        RejectReason::Refused => 3,
        RejectReason::Simultaneous => 4,
        RejectReason::Duplicate => 5,
        RejectReason::Other(code) => code,
    }
}

#[cfg(test)]
#[path = "../../verify/proto/native/record.rs"]
mod tests;
