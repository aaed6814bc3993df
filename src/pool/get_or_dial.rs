//! A lease on the session to a peer, dialled if need be.
//!
//! Owns the way of a hit, which is all in line: a checkout costs a few nanoseconds, and a lease that is
//! written to memory and read back at once can double them. It must never hold the state of a wait
//! itself, which is large.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, io, mem};

use futures_util::TryFutureExt as _;

use crate::base::error::DialError;
use crate::base::io::{BoxFuture, BoxedStream, Stream};
use crate::pool::dial::{Opener, StreamSource};
use crate::pool::handle::Pool;
use crate::pool::state::PoolState;
use crate::pool::target::Target;
use crate::session::Lease;

impl Pool {
    /// A lease on a session to the target: the live one, or that of the one dial that all callers
    /// share.
    ///
    /// The dial belongs to the pool. It goes on for others when this caller gives up, and stops
    /// when no caller waits any more, unless the peer may have accepted it already. A session that was
    /// silent for `ping_after` is probed first, once for all who ask.
    ///
    /// # Errors
    /// See [`DialError`]; all who wait on one dial get the same error, and
    /// [`DialError::retry`] says when to ask again.
    ///
    /// # Cancel safety
    /// Safe at any await.
    #[inline]
    pub fn get_or_dial(&self, target: impl Into<Target>) -> GetOrDial<'_> {
        GetOrDial::new(self.state(), target.into())
    }

    /// As [`Pool::get_or_dial`], over a stream that `open` makes if a dial is begun: a SOCKS proxy,
    /// a relay, a Unix socket.
    ///
    /// `open` is not called when a session exists or is being dialled.
    ///
    /// # Errors
    /// As [`Pool::get_or_dial`]; [`DialError::Open`] if `open` fails.
    ///
    /// # Cancel safety
    /// Safe at any await.
    pub async fn get_or_dial_with<F, Fut, S>(
        &self,
        target: impl Into<Target>,
        open: F,
    ) -> Result<Lease, DialError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = io::Result<S>> + Send + 'static,
        S: Stream,
    {
        let target = target.into();
        if let Some(lease) = self.state().sessions.healthy_hit(&target.peer) {
            return Ok(lease);
        }
        let opener: Opener = Box::new(|| {
            let opening = open();
            Box::pin(async move { Ok(Box::new(opening.await?) as BoxedStream) })
        });
        let source = StreamSource::Opener(opener, target.connector_data());
        Box::pin(self.state().acquirer.lease(target, source)).await
    }
}

/// The future of [`Pool::get_or_dial`](crate::Pool::get_or_dial). It does nothing until it is polled.
#[must_use = "futures do nothing unless they are awaited"]
pub struct GetOrDial<'a> {
    pool: &'a PoolState,
    target: Target,
    /// The wait for a session that was not there at the first poll.
    wait: Option<BoxFuture<'a, Waited>>,
}

/// The outcome of a wait. Its error is boxed: laid out as the outcome of the call is, the two would share
/// their memory, and a hit's would be written there and read back.
type Waited = Result<Lease, Box<DialError>>;

impl<'a> GetOrDial<'a> {
    #[inline]
    pub(crate) fn new(pool: &'a PoolState, target: Target) -> Self {
        Self { pool, target, wait: None }
    }

    #[inline(never)]
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Waited> {
        let Self { pool, target, wait } = self;
        let wait = wait.get_or_insert_with(|| {
            let target = mem::replace(target, Target::new(target.peer));
            let source = StreamSource::Connector(target.connector_data());
            Box::pin(pool.acquirer.lease(target, source).map_err(Box::new))
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
        this.poll_wait(cx).map_err(|error| *error)
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
