//! One timer for the limits that a connection meets one after another, its session's among them.
//!
//! Owns the alarm. Timers of all tasks stand in one queue of the runtime, under one lock: setting and
//! removing one costs more than most of what it guards. So there is none for work that is ready at
//! once, and an alarm is moved only when the next limit is nearer than the last one was; one that
//! rings too early is set again. What is due is judged by the clock, never by the alarm.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// See the module.
#[derive(Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

/// The work was not done in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elapsed;

impl Timer {
    /// Waits for `work`, for `limit` at most.
    ///
    /// The work stays with the caller: taken by value, it would stand in this future more than once.
    ///
    /// # Cancel safety
    /// As that of `work`.
    pub(crate) async fn timeout<T>(
        &mut self,
        limit: Duration,
        work: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Elapsed> {
        self.wait(limit, None, work).await
    }

    /// As [`timeout`](Self::timeout), until `deadline` at most.
    ///
    /// # Cancel safety
    /// As that of `work`.
    pub(crate) async fn timeout_at<T>(
        &mut self,
        deadline: Instant,
        work: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Elapsed> {
        self.wait(Duration::ZERO, Some(deadline), work).await
    }

    /// The clock is not read for work that is ready at once.
    fn wait<T>(
        &mut self,
        limit: Duration,
        mut deadline: Option<Instant>,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> impl Future<Output = Result<T, Elapsed>> {
        poll_fn(move |cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + limit);
            self.poll_passed(deadline, cx).map(|()| Err(Elapsed))
        })
    }

    /// Ready when `deadline` has passed; wakes the task by then otherwise.
    pub(crate) fn poll_passed(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let alarm = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < alarm.deadline() {
            alarm.as_mut().reset(deadline);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Moves an alarm that was set for a limit which no longer holds to `deadline`, or removes it if
    /// there is none: for the next stage of the connection.
    pub(crate) fn rearm(&mut self, deadline: Option<Instant>) {
        match (&mut self.0, deadline) {
            (Some(alarm), Some(deadline)) => alarm.as_mut().reset(deadline),
            (alarm, _) => *alarm = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::pin::pin;
    use tokio::time::sleep;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_limit_holds_whether_it_is_nearer_than_the_last_or_farther() {
        let mut timer = Timer::default();
        for seconds in [3, 1, 10, 10, 2] {
            let (limit, began) = (seconds * SECOND, Instant::now());
            assert_eq!(timer.timeout(limit, pin!(pending::<()>())).await, Err(Elapsed));
            assert_eq!(began.elapsed(), limit);
            let deadline = Instant::now() + limit;
            let work = pin!(sleep(limit - SECOND / 2));
            assert_eq!(timer.timeout_at(deadline, work).await, Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_ready_at_once_sets_no_alarm() {
        let mut timer = Timer::default();
        assert_eq!(timer.timeout(Duration::ZERO, pin!(ready(7))).await, Ok(7));
        assert!(timer.0.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_ready_at_the_deadline_is_in_time() {
        let mut timer = Timer::default();
        assert_eq!(timer.timeout(SECOND, pin!(sleep(SECOND))).await, Ok(()));
    }
}
