//! The pool's life, and the tasks that live in it.
//!
//! Owns the stage of the pool's life, the signals that stop its tasks, and the counts of tasks that a
//! drain or a close waits for. What stops in which order is decided in `shutdown`.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::base::io::BoxFuture;
use crate::base::sync::AtomicU8;
use crate::session::Driver;

/// How far the pool's life is. It goes on in this order, and never back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Life {
    /// Dials and accepts.
    Open = 0,
    /// Neither; sessions flush and close.
    Draining = 1,
    /// Over.
    Closed = 2,
}

/// See the module.
pub(crate) struct Lifecycle {
    life: AtomicU8,
    /// Ends listeners and the tasks of persistent peers. Pending handshakes have a
    /// [`StopSignal`](crate::pool::stop_signal::StopSignal) each.
    accepting: CancellationToken,
    /// Ends every task but those of connections: dials and handshakes have a stop signal each, and
    /// sessions end by themselves.
    running: CancellationToken,
    /// Dials, handshakes and sessions: a drain waits for them.
    work: TaskTracker,
    /// Listeners, persistent peers, expiry.
    service: TaskTracker,
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self {
            life: AtomicU8::new(Life::Open as u8),
            accepting: CancellationToken::new(),
            running: CancellationToken::new(),
            work: TaskTracker::new(),
            service: TaskTracker::new(),
        }
    }

    pub(crate) fn life(&self) -> Life {
        match self.life.load(Ordering::Acquire) {
            0 => Life::Open,
            1 => Life::Draining,
            _ => Life::Closed,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.life() == Life::Open
    }

    /// Any earlier life → `life`. Whether this call moved it.
    pub(crate) fn advance(&self, life: Life) -> bool {
        self.life.fetch_max(life as u8, Ordering::AcqRel) < life as u8
    }

    // ---- tasks ---------------------------------------------------------------------------------

    /// Runs work that a drain waits for and a close stops.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let running = self.running.clone();
        self.work.spawn(async move {
            tokio::select! {
                biased;
                () = running.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Runs what may open a session, and then that session. A drain waits for both; the opening
    /// heeds its own stop signal, and the session ends by itself.
    pub(crate) fn spawn_connection(
        &self,
        opening: impl Future<Output = Option<Driver>> + Send + 'static,
    ) {
        self.work.spawn(Connection::Opening(Box::pin(opening)));
    }

    /// Runs a session that a future of the application has opened.
    pub(crate) fn spawn_session(&self, driver: Driver) {
        self.work.spawn(driver);
    }

    /// Runs a service of the pool, which watches [`running`](Self::running) or
    /// [`accepting`](Self::accepting) itself.
    pub(crate) fn spawn_service(&self, service: impl Future<Output = ()> + Send + 'static) {
        self.service.spawn(service);
    }

    /// Runs a service of the pool until the pool closes.
    pub(crate) fn spawn_watch(&self, watch: impl Future<Output = ()> + Send + 'static) {
        let running = self.running.clone();
        self.spawn_service(async move {
            tokio::select! {
                biased;
                () = running.cancelled() => {}
                () = watch => {}
            }
        });
    }

    /// Makes a drain and a close wait while it exists.
    pub(crate) fn work_token(&self) -> TaskTrackerToken {
        self.work.token()
    }

    // ---- the end -------------------------------------------------------------------------------

    /// Cancelled when the pool accepts no more.
    pub(crate) fn accepting(&self) -> &CancellationToken {
        &self.accepting
    }

    /// Cancelled when the pool closes.
    pub(crate) fn running(&self) -> &CancellationToken {
        &self.running
    }

    /// No more work begins; [`work_done`](Self::work_done) ends when what there is has ended.
    pub(crate) fn close_work(&self) {
        self.work.close();
    }

    /// Stops all tasks but those of connections.
    pub(crate) fn stop(&self) {
        self.running.cancel();
        self.work.close();
        self.service.close();
    }

    /// Waits for the end of all dials, handshakes and sessions.
    pub(crate) async fn work_done(&self) {
        self.work.wait().await;
    }

    /// Waits for the end of all services.
    pub(crate) async fn service_done(&self) {
        self.service.wait().await;
    }
}

/// The task of one connection, from its first byte to the end of its session.
///
/// The handshake and the session's driver run in one task: a second one would have to be made, queued
/// and woken for every session. While the session lives the task is no larger than the driver: what
/// opened it is boxed, and gone by then.
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
