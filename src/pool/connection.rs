//! The task of one connection, from its first byte to the end of its session.
//!
//! Owns the passage from the handshake to the session's driver. Both run in one task: a second one
//! would have to be made, queued and woken for every session. While the session lives the task is no
//! larger than the driver: what opened it is boxed, and gone by then.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::base::io::BoxFuture;
use crate::pool::state::PoolState;
use crate::session::Driver;

/// See the module.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly always it is the larger, and a box of its own would be for each session"
)]
enum Connection {
    /// On its way to a session, or to none.
    Opening(BoxFuture<'static, Option<Driver>>),
    Open(Driver),
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            match this {
                Self::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Some(driver) => *this = Self::Open(driver),
                    None => return Poll::Ready(()),
                },
                Self::Open(driver) => return Pin::new(driver).poll(cx),
            }
        }
    }
}

impl PoolState {
    /// Runs what may open a session, and then that session. A drain waits for both; the opening
    /// heeds its own [`StopSignal`](crate::pool::stop_signal::StopSignal), and the session ends by itself.
    pub(crate) fn spawn_opening(
        &self,
        opening: impl Future<Output = Option<Driver>> + Send + 'static,
    ) {
        self.work.spawn(Connection::Opening(Box::pin(opening)));
    }
}
