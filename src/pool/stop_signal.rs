//! How a connection on its way is told to stop.
//!
//! Owns one word and the waker of the one task that heeds it: nothing here is shared by connections, so
//! that waiting for it takes no lock. It decides nothing; whoever stops a connection knows where to
//! find it, a dial in its slot and a stranger among the pending handshakes.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;

use atomic_waker::AtomicWaker;

/// It is to stop unless the peer may rely on it already.
const ABORTED: u8 = 1;
/// It is to stop at once: the pool closes.
const CUT: u8 = 2;

/// See the module. Awaited by one task only, in as many places as it likes.
#[derive(Debug, Default)]
pub(crate) struct StopSignal {
    word: AtomicU8,
    task: AtomicWaker,
}

impl StopSignal {
    /// Stops it unless the peer may rely on it already. Idempotent.
    pub(crate) fn abort(&self) {
        self.say(ABORTED);
    }

    /// Stops it, wherever it is. Idempotent.
    pub(crate) fn cut(&self) {
        self.say(CUT);
    }

    /// Waits until it is aborted or cut.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken.
    pub(crate) async fn aborted(&self) {
        self.said(ABORTED).await;
    }

    /// Waits until it is cut.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken.
    pub(crate) async fn was_cut(&self) {
        self.said(CUT).await;
    }

    #[cfg(test)]
    pub(crate) fn is_aborted(&self) -> bool {
        self.word.load(Ordering::Acquire) >= ABORTED
    }

    fn say(&self, word: u8) {
        if self.word.fetch_max(word, Ordering::AcqRel) < word {
            self.task.wake();
        }
    }

    async fn said(&self, word: u8) {
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
    async fn who_is_aborted_goes_on_until_it_is_cut() {
        let halt = Arc::new(StopSignal::default());
        let told = halt.clone();
        let task = tokio::spawn(async move {
            told.aborted().await;
            told.was_cut().await;
        });
        tokio::task::yield_now().await;
        halt.abort();
        halt.abort();
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        halt.cut();
        task.await.unwrap();
        halt.abort();
        halt.was_cut().await;
    }

    #[tokio::test]
    async fn who_is_cut_is_aborted_too() {
        let halt = StopSignal::default();
        assert!(!halt.is_aborted());
        halt.cut();
        assert!(halt.is_aborted());
        halt.aborted().await;
    }
}
