//! Unit tests of `pool/limits/counted.rs`.

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
