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
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize},
};
#[cfg(noise_pool_loom)]
pub(crate) use modelled::{Arc, Notify, OnceLock, Weak};
#[cfg(not(noise_pool_loom))]
pub(crate) use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, Weak,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize},
};
#[cfg(not(noise_pool_loom))]
pub(crate) use tokio::sync::Notify;

/// Locks, whatever became of the last holder.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks one that loom does not model: who comes first makes no difference to what is checked there.
pub(crate) fn lock_std<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(noise_pool_loom)]
mod modelled {
    //! What loom lacks, made of what it has.

    use std::fmt;
    use std::future::Future;
    use std::ops::Deref;
    use std::pin::Pin;
    use std::sync::atomic::Ordering;
    use std::task::{Context, Poll, Waker};

    use loom::sync::atomic::fence;

    use super::{AtomicBool, AtomicUsize, Mutex, lock};

    /// The standard `Arc`, whose count is one of loom's, read and changed in the orders that the
    /// standard library uses. Loom interrupts a thread only at its own operations: between a change
    /// of its count and that of the `Arc` within, which follows at once, nobody else runs.
    pub(crate) struct Arc<T> {
        /// Taken only when this share ends.
        value: Option<std::sync::Arc<T>>,
        count: std::sync::Arc<AtomicUsize>,
    }

    pub(crate) struct Weak<T> {
        value: std::sync::Weak<T>,
        count: std::sync::Arc<AtomicUsize>,
    }

    impl<T> Arc<T> {
        pub(crate) fn new(value: T) -> Self {
            let count = std::sync::Arc::new(AtomicUsize::new(1));
            Self { value: Some(std::sync::Arc::new(value)), count }
        }

        pub(crate) fn downgrade(this: &Self) -> Weak<T> {
            Weak { value: std::sync::Arc::downgrade(this.inner()), count: this.count.clone() }
        }

        pub(crate) fn as_ptr(this: &Self) -> *const T {
            std::sync::Arc::as_ptr(this.inner())
        }

        #[cfg(test)]
        pub(crate) fn ptr_eq(this: &Self, other: &Self) -> bool {
            std::sync::Arc::ptr_eq(this.inner(), other.inner())
        }

        pub(crate) fn get_mut(this: &mut Self) -> Option<&mut T> {
            if this.count.load(Ordering::Acquire) > 1 {
                return None;
            }
            this.value.as_mut().and_then(std::sync::Arc::get_mut)
        }

        pub(crate) fn try_unwrap(mut this: Self) -> Result<T, Self> {
            if this.count.compare_exchange(1, 0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                return Err(this);
            }
            fence(Ordering::Acquire);
            let value = this.value.take().and_then(std::sync::Arc::into_inner);
            Ok(value.expect("a count of one says that there is no other"))
        }

        pub(crate) fn into_inner(mut this: Self) -> Option<T> {
            let value = this.value.take();
            if this.count.fetch_sub(1, Ordering::Release) > 1 {
                return None;
            }
            fence(Ordering::Acquire);
            value.and_then(std::sync::Arc::into_inner)
        }

        fn inner(&self) -> &std::sync::Arc<T> {
            self.value.as_ref().expect("a share that is in use has not ended")
        }
    }

    impl<T> Deref for Arc<T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.inner()
        }
    }

    impl<T> Clone for Arc<T> {
        fn clone(&self) -> Self {
            self.count.fetch_add(1, Ordering::Relaxed);
            Self { value: self.value.clone(), count: self.count.clone() }
        }
    }

    impl<T> Drop for Arc<T> {
        fn drop(&mut self) {
            if self.value.is_some() && self.count.fetch_sub(1, Ordering::Release) == 1 {
                fence(Ordering::Acquire);
            }
        }
    }

    impl<T: fmt::Debug> fmt::Debug for Arc<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            fmt::Debug::fmt(&**self, f)
        }
    }

    impl<T> Weak<T> {
        pub(crate) fn upgrade(&self) -> Option<Arc<T>> {
            let another = |count| if count == 0 { None } else { Some(count + 1) };
            self.count.fetch_update(Ordering::Acquire, Ordering::Relaxed, another).ok()?;
            Some(Arc { value: self.value.upgrade(), count: self.count.clone() })
        }

        pub(crate) fn strong_count(&self) -> usize {
            self.count.load(Ordering::Relaxed)
        }
    }

    impl<T> fmt::Debug for Weak<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("(Weak)")
        }
    }

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
