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
    input: Input,
}

impl<T> Messages<T> {
    pub fn new(io: T, flush: Flush) -> Self {
        Self { io, flush, input: Input::default() }
    }
}

/// What was read and not looked at yet.
#[derive(Default)]
pub struct Input {
    /// Made at the first read, so that a handshake alone does not pay for it.
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
}

impl Input {
    /// Reads once behind what is there.
    pub async fn read(&mut self, io: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        self.buffer.resize(BUFFER, 0);
        self.buffer.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end - self.begin);
        match io.read(&mut self.buffer[self.end..]).await? {
            0 => Err(ended()),
            read => {
                self.end += read;
                Ok(())
            }
        }
    }

    /// The next of what is there that stands whole behind its length.
    pub fn next(&mut self) -> Option<&mut [u8]> {
        let (length, rest) = self.buffer[self.begin..self.end].split_first_chunk_mut::<PREFIX>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let whole = rest.get_mut(..length)?;
        self.begin += PREFIX + length;
        Some(whole)
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
        let mut count = 0;
        while count == 0 {
            self.input.read(&mut self.io).await?;
            while let Some(body) = self.input.next() {
                check.message(body);
                count += 1;
            }
        }
        Ok(count)
    }
}
