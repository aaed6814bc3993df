//! Received bytes that are not opened yet.
//!
//! Owns the memory between the socket and the connection. During a poll it is one large buffer, into
//! which the socket is read and in which frames are opened where they lie; between polls it is no more
//! than four times what it holds, so that a peer who stops in the middle of a frame does not keep what
//! it has not filled. It must never hand out a byte that was not read on this session.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use crate::base::io::BoxedStream;
use crate::proto::wire::connection::MAX_FRAME;
use crate::session::buffers::{BufferPool, READ_BUFFER};

/// See the module.
pub(super) enum Input {
    /// In memory of its own size.
    Held(Vec<u8>),
    /// In a buffer of the pool's.
    Lent { buffer: Box<[u8]>, begin: u32, end: u32 },
}

impl Input {
    /// What has been read and not taken.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Held(bytes) => bytes,
            Self::Lent { buffer, begin, end } => &buffer[*begin as usize..*end as usize],
        }
    }

    /// Drops the first `count` bytes.
    pub(super) fn take(&mut self, count: usize) {
        match self {
            Self::Held(bytes) => drop(bytes.drain(..count)),
            Self::Lent { begin, .. } => *begin += count as u32,
        }
    }

    /// Reads once, behind what is there; how many bytes came, 0 at the end of the stream.
    ///
    /// Less than a frame may be there, or there is no room for the rest of it.
    pub(super) fn poll_read(
        &mut self,
        buffers: &BufferPool,
        stream: &mut BoxedStream,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<usize>> {
        debug_assert!(self.bytes().len() < MAX_FRAME);
        let mut fresh = None;
        let (buffer, begin, end) = match self {
            Self::Lent { buffer, begin, end } => {
                if begin == end || buffer.len() - (*end as usize) < MAX_FRAME {
                    buffer.copy_within(*begin as usize..*end as usize, 0);
                    (*begin, *end) = (0, *end - *begin);
                }
                (buffer, *begin, *end)
            }
            Self::Held(bytes) => {
                let buffer = fresh.insert(buffers.take_read());
                buffer[..bytes.len()].copy_from_slice(bytes);
                (buffer, 0, bytes.len() as u32)
            }
        };
        let mut read = ReadBuf::new(&mut buffer[end as usize..]);
        let outcome = Pin::new(stream).poll_read(cx, &mut read);
        let count = read.filled().len();
        match (fresh, count) {
            (None, _) => {
                if let Self::Lent { end, .. } = self {
                    *end += count as u32;
                }
            }
            // What is held stays where it is: many polls bring nothing to read.
            (Some(buffer), 0) => buffers.give_read(buffer),
            (Some(buffer), _) => *self = Self::Lent { buffer, begin, end: end + count as u32 },
        }
        outcome.map_ok(|()| count)
    }

    /// Keeps no more memory than what is there calls for, until the next poll.
    pub(super) fn shrink(&mut self, buffers: &BufferPool) {
        let Self::Lent { begin, end, .. } = self else { return };
        if (*end - *begin) as usize >= READ_BUFFER / 4 {
            return;
        }
        let held = Self::Held(self.bytes().to_vec());
        if let Self::Lent { buffer, .. } = std::mem::replace(self, held) {
            buffers.give_read(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    /// An input that has read `count` bytes at once, and its buffers.
    async fn having_read(count: usize) -> (Input, BufferPool) {
        let buffers = BufferPool::new(4);
        let (near, mut far) = duplex(READ_BUFFER);
        far.write_all(&vec![7; count]).await.unwrap();
        let mut stream: BoxedStream = Box::new(near);
        let mut input = Input::Held(Vec::new());
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(
            matches!(input.poll_read(&buffers, &mut stream, cx), Poll::Ready(Ok(n)) if n == count)
        );
        (input, buffers)
    }

    #[tokio::test]
    async fn the_beginning_of_a_frame_keeps_no_large_buffer() {
        let (mut input, buffers) = having_read(100).await;
        input.shrink(&buffers);
        assert_eq!(buffers.spare().0, 1);
        assert!(matches!(&input, Input::Held(bytes) if bytes.capacity() == 100));
        assert_eq!(input.bytes(), [7; 100]);
    }

    #[tokio::test]
    async fn what_fills_a_quarter_of_it_stays_where_it_was_read() {
        let (mut input, buffers) = having_read(READ_BUFFER / 4).await;
        input.shrink(&buffers);
        assert!(matches!(input, Input::Lent { .. }));
        input.take(1);
        input.shrink(&buffers);
        assert_eq!((input.bytes().len(), buffers.spare().0), (READ_BUFFER / 4 - 1, 1));
    }
}
