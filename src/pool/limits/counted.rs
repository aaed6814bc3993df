//! Limits that count by permits.
//!
//! Owns [`CountedLimit`] and [`Permit`]. What is held is what permits exist: a permit gives its room back when
//! it is dropped, so that neither cancellation nor a panic can leak it, and no counter can drift.
//! Nothing here may hand out more than the limit, not for a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::metrics::LimitUse;

/// A limit, what it holds, and the most that it ever held.
///
/// Clones share one limit.
#[derive(Clone)]
pub(crate) struct CountedLimit(Arc<Shared>);

struct Shared {
    /// The room that is left; waiters queue here, first come first served.
    room: Arc<Semaphore>,
    limit: usize,
    /// Permits that exist. Raised after the room is taken and lowered before it is given back, so
    /// that it never shows more than what is really held.
    held: AtomicUsize,
    high_water: AtomicUsize,
}

impl CountedLimit {
    /// A limit that holds nothing. A limit of zero lets nobody in.
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Shared {
            room: Arc::new(Semaphore::new(limit)),
            limit,
            held: AtomicUsize::new(0),
            high_water: AtomicUsize::new(0),
        }))
    }

    /// A permit, if there is room and nobody waits for it.
    pub(crate) fn try_acquire(&self) -> Option<Permit> {
        let room = Arc::clone(&self.0.room).try_acquire_owned().ok()?;
        Some(Permit::new(&self.0, room))
    }

    /// A permit, when it is this caller's turn; `None` once the gauge is closed.
    ///
    /// # Cancel safety
    ///
    /// A caller that is dropped loses its place; those behind it move up.
    pub(crate) async fn acquire(&self) -> Option<Permit> {
        let room = Arc::clone(&self.0.room).acquire_owned().await.ok()?;
        Some(Permit::new(&self.0, room))
    }

    /// Lets nobody in any more and wakes all who wait. Permits that are out stay good.
    pub(crate) fn close(&self) {
        self.0.room.close();
    }

    /// What is held now.
    pub(crate) fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// What is held, was held at most, and may be held.
    pub(crate) fn snapshot(&self) -> LimitUse {
        let held = self.held();
        // A permit that is being made counts as held a moment before it raises the mark.
        let high_water = self.0.high_water.load(Ordering::Relaxed).max(held);
        LimitUse { held: held as u64, high_water: high_water as u64, limit: self.0.limit as u64 }
    }
}

/// SlotPermit for one; given back on drop.
#[must_use = "a permit gives its room back when it is dropped"]
pub(crate) struct Permit {
    _held: Held,
    // After `_held`: fields are dropped in order, and the count must fall before the room is free.
    _room: OwnedSemaphorePermit,
}

impl Permit {
    fn new(inner: &Arc<Shared>, room: OwnedSemaphorePermit) -> Self {
        let held = inner.held.fetch_add(1, Ordering::Relaxed) + 1;
        inner.high_water.fetch_max(held, Ordering::Relaxed);
        Self { _held: Held(Arc::clone(inner)), _room: room }
    }
}

/// One in the count of what is held.
struct Held(Arc<Shared>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::time::Duration;

    #[test]
    fn room_is_bounded_and_comes_back() {
        let gauge = CountedLimit::new(2);
        let first = gauge.try_acquire().unwrap();
        let second = gauge.try_acquire().unwrap();
        assert!(gauge.try_acquire().is_none());
        drop(first);
        let third = gauge.try_acquire().unwrap();
        assert_eq!(gauge.held(), 2);
        drop((second, third));
        let expected = LimitUse { held: 0, high_water: 2, limit: 2 };
        assert_eq!(gauge.snapshot(), expected);
    }

    #[test]
    fn a_limit_of_zero_lets_nobody_in() {
        assert!(CountedLimit::new(0).try_acquire().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_are_served_in_order_and_cannot_be_overtaken() {
        let gauge = CountedLimit::new(1);
        let held = gauge.try_acquire().unwrap();
        let (log, mut order) = tokio::sync::mpsc::channel(8);
        for n in 0..3 {
            let (gauge, log) = (gauge.clone(), log.clone());
            tokio::spawn(async move {
                let permit = gauge.acquire().await.unwrap();
                log.send(n).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
                drop(permit);
            });
            tokio::task::yield_now().await;
        }
        drop(held);
        assert!(gauge.try_acquire().is_none(), "a newcomer must not overtake");
        for n in 0..3 {
            assert_eq!(order.recv().await, Some(n));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_is_cancelled_is_skipped_and_leaks_nothing() {
        let gauge = CountedLimit::new(1);
        let held = gauge.try_acquire().unwrap();
        let mut cancelled = Box::pin(gauge.acquire());
        let mut waiting = Box::pin(gauge.acquire());
        assert!(futures_util::poll!(&mut cancelled).is_pending());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        // The room is given to the first waiter, and then it is dropped without having been polled.
        drop(held);
        drop(cancelled);
        assert!(waiting.await.is_some());
        assert_eq!(gauge.held(), 0);
        assert!(gauge.try_acquire().is_some());
    }

    #[tokio::test]
    async fn closing_wakes_all_who_wait() {
        let gauge = CountedLimit::new(1);
        let held = gauge.try_acquire().unwrap();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let gauge = gauge.clone();
                tokio::spawn(async move { gauge.acquire().await.is_none() })
            })
            .collect();
        tokio::task::yield_now().await;
        gauge.close();
        for waiter in waiters {
            assert!(waiter.await.unwrap());
        }
        assert!(gauge.try_acquire().is_none());
        assert_eq!(gauge.held(), 1);
        drop(held);
        assert_eq!(gauge.held(), 0);
    }

    #[test]
    fn a_panic_gives_the_room_back() {
        let gauge = CountedLimit::new(1);
        let inside = gauge.clone();
        let outcome = std::thread::spawn(move || {
            let _permit = inside.try_acquire().unwrap();
            panic!("the holder panics");
        })
        .join();
        assert!(outcome.is_err());
        assert!(gauge.try_acquire().is_some());
    }

    #[test]
    fn the_high_water_mark_never_passes_the_limit_under_contention() {
        const LIMIT: usize = 3;
        const THREADS: usize = 8;
        let gauge = CountedLimit::new(LIMIT);
        let start = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..5_000 {
                        drop(gauge.try_acquire());
                        assert!(gauge.snapshot().high_water <= LIMIT as u64);
                    }
                });
            }
        });
        assert_eq!(gauge.held(), 0);
    }
}
