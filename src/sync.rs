//! Locks and their kin, as this crate uses them.
//!
//! Owns two decisions. A lock whose holder panicked is taken all the same: what our locks guard is
//! changed in single steps, so a panic leaves it whole, and a poisoned lock must not stop the pool.
//! And this is the one place where the pool's locks, flags and wake-ups become loom's
//! (`--cfg noise_pool_loom`), which then walks their interleavings; otherwise they are plain
//! re-exports.

use std::sync::PoisonError;

#[cfg(noise_pool_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicUsize},
};
#[cfg(noise_pool_loom)]
pub(crate) use modelled::{Notify, OnceLock};
#[cfg(not(noise_pool_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard, OnceLock,
    atomic::{AtomicBool, AtomicU8, AtomicUsize},
};
#[cfg(not(noise_pool_loom))]
pub(crate) use tokio::sync::Notify;

/// Locks, whatever became of the last holder.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(noise_pool_loom)]
mod modelled {
    //! What loom lacks, made of what it has.

    use std::future::Future;
    use std::pin::Pin;
    use std::sync::atomic::Ordering;
    use std::task::{Context, Poll, Waker};

    use super::{AtomicBool, Mutex, lock};

    /// Tokio's `Notify`, as far as its documentation promises it: `notify_waiters` wakes every
    /// `Notified` that existed when it was called, polled or not, and no later one.
    #[derive(Debug, Default)]
    pub(crate) struct Notify(Mutex<Round>);

    #[derive(Debug, Default)]
    struct Round {
        number: u64,
        waiting: Vec<Waker>,
    }

    #[derive(Debug)]
    pub(crate) struct Notified<'a> {
        notify: &'a Notify,
        round: u64,
    }

    impl Notify {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn notified(&self) -> Notified<'_> {
            Notified { notify: self, round: lock(&self.0).number }
        }

        pub(crate) fn notify_waiters(&self) {
            let mut round = lock(&self.0);
            round.number += 1;
            let waiting = std::mem::take(&mut round.waiting);
            drop(round);
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    impl Future for Notified<'_> {
        type Output = ();

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            let mut round = lock(&self.notify.0);
            if round.number != self.round {
                return Poll::Ready(());
            }
            round.waiting.push(cx.waker().clone());
            Poll::Pending
        }
    }

    /// The standard `OnceLock`, whose value is seen when a flag of loom's says so.
    #[derive(Debug)]
    pub(crate) struct OnceLock<T> {
        value: std::sync::OnceLock<T>,
        seen: AtomicBool,
    }

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            Self { value: std::sync::OnceLock::new(), seen: AtomicBool::new(false) }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            if self.seen.load(Ordering::Acquire) { self.value.get() } else { None }
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            let result = self.value.set(value);
            // Also by a setter that came second: for it, too, the value is there when it returns.
            self.seen.store(true, Ordering::Release);
            result
        }
    }
}
