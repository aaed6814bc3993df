//! The calls into the application's checks.
//!
//! Owns how [`Hooks`] are asked: outside every lock, under `hook_timeout`, panics contained, and each
//! outcome other than yes counted. It decides nothing that follows from an answer.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use crate::base::error::Refusal;
use crate::base::io::BoxFuture;
use crate::base::timer::Timer;
use crate::pool::context::Context;
use crate::pool::hooks::{Candidate, Hooks, SessionInfo};

/// See the module.
pub(crate) struct Checks {
    ctx: Arc<Context>,
    /// None: everybody is welcome, and nothing is asked.
    hooks: Option<Arc<dyn Hooks>>,
}

impl Checks {
    pub(crate) fn new(ctx: Arc<Context>, hooks: Option<Arc<dyn Hooks>>) -> Arc<Self> {
        Arc::new(Self { ctx, hooks })
    }

    /// Whether there is anything to ask about an address.
    pub(crate) fn asks_about_addresses(&self) -> bool {
        self.hooks.is_some()
    }

    /// Whether to read from an inbound connection at all.
    ///
    /// # Errors
    /// Why not; it is counted.
    pub(crate) async fn admit(&self, source: &SocketAddr) -> Result<(), Refusal> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        let answer = ask(self.ctx.settings.hook_timeout, || hooks.admit(source)).await;
        answer.inspect_err(|&refusal| self.refused(refusal))
    }

    /// Our authorisation and ready check of a peer that has authenticated.
    ///
    /// # Errors
    /// Why not; it is counted.
    pub(crate) async fn candidate(&self, candidate: &Candidate) -> Result<(), Refusal> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        let limit = self.ctx.settings.hook_timeout;
        let checked = async {
            ask(limit, || hooks.authorise(&candidate.peer, candidate.origin)).await?;
            ask(limit, || hooks.ready(candidate)).await
        };
        checked.await.inspect_err(|&refusal| self.refused(refusal))
    }

    /// The application's own check of an established session, if it has one.
    pub(crate) fn health(
        self: Arc<Self>,
        info: impl FnOnce() -> SessionInfo,
    ) -> Option<BoxFuture<'static, bool>> {
        let hooks = self.hooks.clone()?;
        // The hook may panic before it returns a future.
        match catch_unwind(AssertUnwindSafe(|| hooks.health(info()))) {
            Ok(None) => None,
            Ok(Some(check)) => Some(Box::pin(async move {
                let answer = ask(self.ctx.settings.hook_timeout, || check).await;
                answer.inspect_err(|&refusal| self.refused(refusal)).is_ok()
            })),
            Err(_panic) => {
                self.refused(Refusal::Panicked);
                Some(Box::pin(std::future::ready(false)))
            }
        }
    }

    /// Runs other code of the application: the connector's, or an opener.
    ///
    /// # Errors
    /// [`Refusal::TimedOut`], which is the caller's to count, and [`Refusal::Panicked`].
    pub(crate) async fn call<'a, T>(
        &self,
        timer: &mut Timer,
        limit: Duration,
        call: impl FnOnce() -> BoxFuture<'a, T>,
    ) -> Result<T, Refusal> {
        let answer = contained(timer, limit, call).await;
        if let Err(Refusal::Panicked) = answer {
            self.refused(Refusal::Panicked);
        }
        answer
    }

    /// Counts an answer other than yes.
    pub(crate) fn refused(&self, refusal: Refusal) {
        self.ctx.counters.hooks.count(refusal);
        if refusal != Refusal::Refused {
            warn!(%refusal, "a callback of the application failed");
        }
    }
}

/// Asks a check: yes is `Ok`.
async fn ask<'a>(
    limit: Duration,
    call: impl FnOnce() -> BoxFuture<'a, bool>,
) -> Result<(), Refusal> {
    match contained(&mut Timer::default(), limit, call).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::Refused),
        Err(refusal) => Err(refusal),
    }
}

/// Runs code of the application: bounded in time, panics contained.
///
/// `call` makes the future, so that a panic before the first poll is contained too.
async fn contained<'a, T>(
    timer: &mut Timer,
    limit: Duration,
    call: impl FnOnce() -> BoxFuture<'a, T>,
) -> Result<T, Refusal> {
    use futures_util::FutureExt as _;

    let guarded = std::pin::pin!(AssertUnwindSafe(async move { call().await }).catch_unwind());
    match timer.timeout(limit, guarded).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_panic)) => Err(Refusal::Panicked),
        Err(_elapsed) => Err(Refusal::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_hook_that_hangs_or_panics_refuses() {
        assert_eq!(ask(LIMIT, || Box::pin(std::future::pending())).await, Err(Refusal::TimedOut));
        assert_eq!(
            ask(LIMIT, || Box::pin(async { panic!("in the future") })).await,
            Err(Refusal::Panicked)
        );
        assert_eq!(ask(LIMIT, || panic!("in the call")).await, Err(Refusal::Panicked));
        assert_eq!(ask(LIMIT, || Box::pin(async { false })).await, Err(Refusal::Refused));
        assert_eq!(ask(LIMIT, || Box::pin(async { true })).await, Ok(()));
    }
}
