//! The future of [`Pool::get_or_dial`](crate::Pool::get_or_dial).
//!
//! Owns the way of a hit, which is all in line: a checkout costs a few nanoseconds, and a lease that is
//! written to memory and read back at once can double them. It must never hold the state of a wait
//! itself, which is large.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::base::error::DialError;
use crate::base::io::BoxFuture;
use crate::pool::dial::StreamSource;
use crate::pool::state::PoolState;
use crate::pool::target::Target;
use crate::session::Lease;

/// The future of [`Pool::get_or_dial`](crate::Pool::get_or_dial). It does nothing until it is polled.
#[must_use = "futures do nothing unless they are awaited"]
pub struct GetOrDial<'a> {
    pool: &'a PoolState,
    target: Target,
    /// The wait for a session that was not there at the first poll.
    wait: Option<BoxFuture<'a, Result<Lease, DialError>>>,
}

impl<'a> GetOrDial<'a> {
    #[inline]
    pub(crate) fn new(pool: &'a PoolState, target: Target) -> Self {
        Self { pool, target, wait: None }
    }

    #[inline(never)]
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Result<Lease, DialError>> {
        let Self { pool, target, wait } = self;
        let wait = wait.get_or_insert_with(|| {
            let target = mem::replace(target, Target::new(target.peer));
            let source = StreamSource::Connector(target.data.clone());
            Box::pin(pool.acquirer.lease(target, source))
        });
        wait.as_mut().poll(cx)
    }
}

impl Future for GetOrDial<'_> {
    type Output = Result<Lease, DialError>;

    // Without it, the result goes through memory on every hit.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.wait.is_none()
            && let Some(lease) = this.pool.sessions.healthy_hit(&this.target.peer)
        {
            return Poll::Ready(Ok(lease));
        }
        // Taken apart and put together again, so that only this branch has the result in memory.
        match this.poll_wait(cx) {
            Poll::Ready(Ok(lease)) => Poll::Ready(Ok(lease)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl fmt::Debug for GetOrDial<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetOrDial")
            .field("target", &self.target)
            .field("waits", &self.wait.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_sent_and_moved<T: Send + Unpin>() {}

    #[test]
    fn it_is_small_and_goes_anywhere() {
        is_sent_and_moved::<GetOrDial<'static>>();
        assert!(size_of::<GetOrDial<'static>>() <= 160);
    }
}
