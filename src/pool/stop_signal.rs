//! The signal that stops a connection on its way to a session.
//!
//! Owns one word and the waker of the one task that watches it. Connections share nothing here, so
//! that waiting takes no lock. It decides nothing: a dial's signal is reached through its slot, that of
//! a stranger through the pending handshakes.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;

use atomic_waker::AtomicWaker;

/// Stop, unless the peer may rely on the connection already.
const ABORTED: u8 = 1;
/// Stop at once: the pool closes.
const KILLED: u8 = 2;

/// See the module. Awaited by one task only, in as many places as it likes.
#[derive(Debug, Default)]
pub(crate) struct StopSignal {
    word: AtomicU8,
    task: AtomicWaker,
}

impl StopSignal {
    /// Stops it unless the peer may rely on it already. Idempotent.
    pub(crate) fn abort(&self) {
        self.raise(ABORTED);
    }

    /// Stops it, wherever it is. Idempotent.
    pub(crate) fn kill(&self) {
        self.raise(KILLED);
    }

    /// Waits until it is aborted or killed.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken.
    pub(crate) async fn aborted(&self) {
        self.raised(ABORTED).await;
    }

    /// Waits until it is killed.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken.
    pub(crate) async fn killed(&self) {
        self.raised(KILLED).await;
    }

    #[cfg(test)]
    pub(crate) fn is_aborted(&self) -> bool {
        self.word.load(Ordering::Acquire) >= ABORTED
    }

    fn raise(&self, word: u8) {
        if self.word.fetch_max(word, Ordering::AcqRel) < word {
            self.task.wake();
        }
    }

    async fn raised(&self, word: u8) {
        poll_fn(|cx| {
            // Registered before the look: what is said in between is seen or wakes.
            self.task.register(cx.waker());
            if self.word.load(Ordering::Acquire) >= word { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn an_abort_leaves_a_connection_running_until_it_is_killed() {
        let signal = Arc::new(StopSignal::default());
        let watched = signal.clone();
        let task = tokio::spawn(async move {
            watched.aborted().await;
            watched.killed().await;
        });
        tokio::task::yield_now().await;
        signal.abort();
        signal.abort();
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        signal.kill();
        task.await.unwrap();
        signal.abort();
        signal.killed().await;
    }

    #[tokio::test]
    async fn a_kill_is_an_abort_too() {
        let signal = StopSignal::default();
        assert!(!signal.is_aborted());
        signal.kill();
        assert!(signal.is_aborted());
        signal.aborted().await;
    }
}
