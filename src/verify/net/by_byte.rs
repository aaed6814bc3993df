//! Streams that move one byte at a time.
//!
//! Every read and every write is pending every other time, so that there is a step between any two
//! bytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

/// What all streams of one network share.
#[derive(Default)]
pub(crate) struct Steps {
    /// Whether bytes go one by one; otherwise as they come, to save time.
    pub(crate) by_byte: AtomicBool,
    /// Bytes that have moved: while it stands still, only time can go on.
    pub(crate) moved: AtomicU64,
}

/// One end of a stream that moves one byte and is pending every other poll.
pub(crate) struct ByByte {
    inner: DuplexStream,
    steps: Arc<Steps>,
    /// Whether the next read, and the next write, may move a byte.
    ready: [bool; 2],
}

impl ByByte {
    pub(crate) fn pair(steps: &Arc<Steps>) -> (Self, Self) {
        let (near, far) = duplex(64);
        let end = |inner| Self { inner, steps: Arc::clone(steps), ready: [false; 2] };
        (end(near), end(far))
    }

    fn is_by_byte(&self) -> bool {
        self.steps.by_byte.load(Ordering::Relaxed)
    }

    /// Whether this poll may move a byte; if not, the task is woken for the next.
    fn turn(&mut self, way: usize, cx: &Context<'_>) -> bool {
        self.ready[way] = !self.ready[way];
        if !self.ready[way] || !self.is_by_byte() {
            return true;
        }
        cx.waker().wake_by_ref();
        false
    }

    fn count(&self) {
        self.steps.moved.fetch_add(1, Ordering::Relaxed);
    }
}

impl AsyncRead for ByByte {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.turn(0, cx) {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = if self.is_by_byte() {
            let mut byte = [0];
            let mut one = ReadBuf::new(&mut byte[..buf.remaining().min(1)]);
            let polled = Pin::new(&mut self.inner).poll_read(cx, &mut one);
            buf.put_slice(one.filled());
            polled
        } else {
            Pin::new(&mut self.inner).poll_read(cx, buf)
        };
        if buf.filled().len() > before {
            self.count();
        }
        polled
    }
}

impl AsyncWrite for ByByte {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.turn(1, cx) {
            return Poll::Pending;
        }
        let max = if self.is_by_byte() { buf.len().min(1) } else { buf.len() };
        let polled = Pin::new(&mut self.inner).poll_write(cx, &buf[..max]);
        if matches!(polled, Poll::Ready(Ok(1..))) {
            self.count();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
