//! Messages on any byte stream, each behind its length.
//!
//! Owns framing for the peers that give a byte stream: one write per message, which the peer turns
//! into whatever it does, and one buffer out of which the receiver takes messages where they lie.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{Check, Lane, PREFIX, Receiver, Sender, ended};

/// Room for what one read may bring, and a message that began before it.
const BUFFER: usize = 128 * 1024;

/// When a sender asks its stream to let go of what it has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// After each message, as a user does who wants it delivered.
    Each,
    /// After the last one only: what a user may do who knows when that is.
    Last,
}

/// One end of a stream of messages.
pub struct Messages<T> {
    io: T,
    flush: Flush,
    buffer: Box<[u8]>,
    /// What was read and not looked at yet.
    begin: usize,
    end: usize,
}

impl<T> Messages<T> {
    pub fn new(io: T, flush: Flush) -> Self {
        Self { io, flush, buffer: vec![0; BUFFER].into(), begin: 0, end: 0 }
    }
}

impl<T: AsyncWrite + Unpin + Send + 'static> Sender for Messages<T> {
    async fn send(&mut self, lane: &Lane, at: u64) -> io::Result<()> {
        self.io.write_all(lane.prefixed(at)).await?;
        match self.flush {
            Flush::Each => self.io.flush().await,
            Flush::Last => Ok(()),
        }
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.io.flush().await
    }
}

impl<T: AsyncRead + Unpin + Send + 'static> Receiver for Messages<T> {
    async fn receive(&mut self, check: &mut Check) -> io::Result<u64> {
        loop {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
            let read = self.io.read(&mut self.buffer[self.end..]).await?;
            if read == 0 {
                return Err(ended());
            }
            self.end += read;
            let input = &self.buffer[..self.end];
            let (count, taken) = each(input, |body| check.message(body));
            self.begin = taken;
            if count > 0 {
                return Ok(count);
            }
        }
    }
}

/// Gives each whole message to `take`; how many there were, and the bytes that they took.
pub fn each(input: &[u8], mut take: impl FnMut(&[u8])) -> (u64, usize) {
    let (mut count, mut rest) = (0, input);
    while let Some((length, after)) = rest.split_first_chunk::<PREFIX>()
        && let Some((body, after)) = after.split_at_checked(u16::from_be_bytes(*length).into())
    {
        take(body);
        (count, rest) = (count + 1, after);
    }
    (count, input.len() - rest.len())
}
