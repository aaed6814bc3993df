//! What strangers at the door cost in memory: counted by an allocator of its own binary.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic")]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use noise_pool::{Config, Identity, Pool, Role};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// A stranger who has sent the beginning of a message 1 and then nothing.
struct Silent {
    sent: bool,
}

impl AsyncRead for Silent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::replace(&mut self.sent, true) {
            return Poll::Pending;
        }
        buffer.put_slice(&[0, 52, 1, 2, 3]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Silent {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_without_a_valid_message_1_costs_two_kib_at_most() {
    const STRANGERS: usize = 100;

    let profiler = dhat::Profiler::builder().testing().build();
    let config = Config::default().max_pending_handshakes(2 * STRANGERS);
    let (pool, _inbox) = Pool::builder(Identity::generate()).config(config).build().unwrap();
    let mut tasks = Vec::with_capacity(2 * STRANGERS);
    let mut held = Vec::new();
    for _ in 0..2 {
        for _ in 0..STRANGERS {
            let pool = pool.clone();
            let stranger = Silent { sent: false };
            tasks.push(tokio::spawn(async move {
                assert!(pool.adopt(stranger, Role::Responder).await.is_err());
            }));
        }
        // Each has had its turns, up to its wait for more.
        for _ in 0..STRANGERS {
            tokio::task::yield_now().await;
        }
        held.push(dhat::HeapStats::get().curr_bytes);
    }
    assert_eq!(pool.snapshot().limits.pending_handshakes.held as usize, 2 * STRANGERS);
    let each = (held[1] - held[0]) / STRANGERS;
    assert!(each <= 2048, "{each} bytes for a task, its timers and what has arrived");
    for task in tasks {
        task.await.unwrap();
    }
    drop(profiler);
}
