//! A value that is set once and that many wait for.
//!
//! Owns nothing of the pool. Setting never blocks, waiting is cancel safe, and a waiter that comes
//! late gets the value at once.

use crate::base::sync::{Notify, OnceLock};

/// Set once, read by all.
#[derive(Debug)]
pub(crate) struct SetOnce<T> {
    value: OnceLock<T>,
    set: Notify,
}

impl<T: Clone> SetOnce<T> {
    pub(crate) fn new() -> Self {
        Self { value: OnceLock::new(), set: Notify::new() }
    }

    /// Sets the value and wakes all waiters. The first setting counts: false if there was one.
    pub(crate) fn set(&self, value: T) -> bool {
        let first = self.value.set(value).is_ok();
        if first {
            self.set.notify_waiters();
        }
        first
    }

    /// Waits for the value.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken.
    pub(crate) async fn wait(&self) -> T {
        // `notify_waiters` wakes every `Notified` that existed when it was called, so a value that
        // is set between the look and the await is not missed.
        let set = self.set.notified();
        if let Some(value) = self.value.get() {
            return value.clone();
        }
        set.await;
        match self.value.get() {
            Some(value) => value.clone(),
            // Only `set` notifies, and it has set the value by then.
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn all_waiters_get_the_first_value() {
        let latch = Arc::new(SetOnce::new());
        let waiters: Vec<_> = (0..10)
            .map(|_| {
                let latch = latch.clone();
                tokio::spawn(async move { latch.wait().await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(latch.set(1));
        assert!(!latch.set(2));
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), 1);
        }
        assert_eq!(latch.wait().await, 1);
    }
}
