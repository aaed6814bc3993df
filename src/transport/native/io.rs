//! Reading and writing the handshake's messages.
//!
//! A length is judged before anything is read that only it can justify, and memory is taken as bytes
//! arrive, not as they are announced.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::base::error::HandshakeError;
use crate::base::io::BoxedStream;
use crate::proto::native::frame::{self, PREFIX};

/// How long a connection that ends may take for its farewell.
const PARTING: Duration = Duration::from_secs(1);
/// Memory that a message begins with or grows by, in bytes, and the room for a farewell's last input.
const STEP: usize = 512;

/// A message as it was read.
pub(super) struct Message {
    input: Vec<u8>,
    /// Bytes of the message and its prefix.
    total: usize,
}

impl Message {
    /// The message without its prefix.
    pub(super) fn body(&self) -> &[u8] {
        self.input.get(PREFIX..self.total).unwrap_or_default()
    }

    /// What was read past it: the beginning of what comes next.
    pub(super) fn into_rest(mut self) -> Vec<u8> {
        // Nearly always nothing, and then without memory.
        self.input.split_off(self.total)
    }
}

/// Reads handshake message `number`, of `min` to `max` bytes, with its prefix.
///
/// Message 1 is a stranger's, and nothing past it is read. Behind the others it asks for one byte
/// more: a read that brings less than was asked for has emptied the socket, as the runtime knows; one
/// that brings all has to be followed by another, in vain, before anybody waits.
pub(super) async fn read(
    stream: &mut BoxedStream,
    number: u8,
    min: usize,
    max: usize,
) -> Result<Message, HandshakeError> {
    // So much belongs to every message that is legal, and is asked for in one read.
    let mut total = PREFIX + min;
    let past = usize::from(number > 1);
    let mut input = Vec::with_capacity(total + past);
    loop {
        if let Some(prefix) = input.first_chunk() {
            let length = u16::from_be_bytes(*prefix);
            if !(min..=max).contains(&usize::from(length)) {
                return Err(HandshakeError::Length { message: number, length });
            }
            total = PREFIX + usize::from(length);
        }
        if input.len() >= total {
            return Ok(Message { input, total });
        }
        let wanted = total + past - input.len();
        grow(&mut input, wanted);
        let mut next = (&mut *stream).take(wanted as u64);
        if next.read_buf(&mut input).await? == 0 {
            return Err(ended());
        }
    }
}

/// Reads until there is a whole frame, which the verdict is, behind `rest`. May read past it.
pub(super) async fn read_frame(
    stream: &mut BoxedStream,
    rest: Vec<u8>,
) -> Result<Vec<u8>, HandshakeError> {
    let mut input = rest;
    input.reserve(STEP);
    loop {
        let frame::Split::Partial { missing } = frame::split(&input)? else {
            return Ok(input);
        };
        grow(&mut input, missing);
        if stream.read_buf(&mut input).await? == 0 {
            return Err(ended());
        }
    }
}

/// Makes room for the next read: no more than is missing, nor much more than there is.
fn grow(input: &mut Vec<u8>, missing: usize) {
    if input.len() == input.capacity() {
        input.reserve(missing.min(input.len().max(STEP)));
    }
}

/// Writes a message of at most 65,535 bytes with its prefix, in one write.
pub(super) async fn write(stream: &mut BoxedStream, message: &[u8]) -> Result<(), HandshakeError> {
    let mut framed = Vec::with_capacity(PREFIX + message.len());
    framed.extend_from_slice(&[0; PREFIX]);
    framed.extend_from_slice(message);
    put_prefix(&mut framed);
    write_all(stream, &framed).await
}

/// Fills in the prefix of a message that stands behind room for it.
pub(super) fn put_prefix(framed: &mut [u8]) {
    let length = (framed.len() - PREFIX) as u16;
    framed[..PREFIX].copy_from_slice(&length.to_be_bytes());
}

/// Writes all of it, and flushes.
pub(super) async fn write_all(
    stream: &mut BoxedStream,
    bytes: &[u8],
) -> Result<(), HandshakeError> {
    stream.write_all(bytes).await?;
    stream.flush().await?;
    Ok(())
}

/// Writes the farewell, half-closes, and reads until the peer has closed too, for a second at most.
///
/// Whatever fails here, the connection was over before.
pub(super) async fn linger_close(mut stream: BoxedStream, last_bytes: Vec<u8>) {
    let parting = async {
        stream.write_all(&last_bytes).await?;
        stream.shutdown().await?;
        let mut discarded = Vec::with_capacity(STEP);
        while stream.read_buf(&mut discarded).await? != 0 {
            discarded.clear();
        }
        io::Result::Ok(())
    };
    let _ = timeout(PARTING, parting).await;
}

/// What an initiator makes of a stream that ends before message 2: the responder does not explain.
pub(super) fn eof_as_no_answer(error: HandshakeError) -> HandshakeError {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};

    match &error {
        HandshakeError::Io(source) => match source.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => {
                HandshakeError::NoAnswer
            }
            _ => error,
        },
        _ => error,
    }
}

fn ended() -> HandshakeError {
    io::Error::from(io::ErrorKind::UnexpectedEof).into()
}
