//! Persistent peers: dialled at start, and again whenever their session is lost.
//!
//! Owns the task of each kept peer. A kept peer's session is neither evicted nor expired for want of
//! use; at `max_age` it is replaced.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::base::error::{DialError, Retry};
use crate::base::id::PeerId;
use crate::pool::acquire::Acquirer;
use crate::pool::context::Context;
use crate::pool::dial::StreamSource;
use crate::pool::lifecycle::Lifecycle;
use crate::pool::sessions::SessionTable;
use crate::pool::target::Target;
use crate::proto::dial_policy::{PersistentPolicy, Unreached};

/// See the module.
pub(crate) struct PersistentPeers {
    ctx: Arc<Context>,
    lifecycle: Arc<Lifecycle>,
    sessions: Arc<SessionTable>,
    acquirer: Arc<Acquirer>,
}

impl PersistentPeers {
    pub(crate) fn new(
        ctx: Arc<Context>,
        lifecycle: Arc<Lifecycle>,
        sessions: Arc<SessionTable>,
        acquirer: Arc<Acquirer>,
    ) -> Self {
        Self { ctx, lifecycle, sessions, acquirer }
    }

    /// Keeps a session to the target's peer; a second call for one peer replaces the first.
    pub(crate) fn keep(&self, mut target: Target) {
        // The task waits as long as a dial takes.
        target.timeout = None;
        let stop = self.lifecycle.accepting().child_token();
        let lost = self.sessions.kept.insert(target.peer, stop.clone());
        if let Some(session) = self.sessions.session_of(&target.peer) {
            self.sessions.idle.remove(&session);
        }
        let task =
            PersistentTask { ctx: self.ctx.clone(), acquirer: self.acquirer.clone(), target };
        self.lifecycle.spawn_service(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = task.run(&lost) => {}
            }
        });
    }

    /// Keeps a peer no longer; its session, if there is one, may expire and be evicted again.
    pub(crate) fn unkeep(&self, peer: &PeerId) -> bool {
        let kept = self.sessions.kept.remove(peer);
        if let Some(session) = self.sessions.session_of(peer).filter(|_| kept) {
            self.sessions.watch(&session);
        }
        kept
    }
}

/// The task of one kept peer.
struct PersistentTask {
    ctx: Arc<Context>,
    acquirer: Arc<Acquirer>,
    target: Target,
}

impl PersistentTask {
    async fn run(&self, lost: &Notify) {
        let settings = &self.ctx.settings;
        let policy =
            PersistentPolicy { pause: settings.initial_backoff, max_pause: settings.max_backoff };
        loop {
            let source = StreamSource::Connector(self.target.connector_data());
            let next = match self.acquirer.lease(self.target.clone(), source).await {
                Ok(lease) => {
                    drop(lease);
                    let next = policy.connected(Instant::now().into_std());
                    lost.notified().await;
                    Some(next)
                }
                Err(error) => {
                    debug!(peer = %self.target.peer.short(), %error, "a kept peer is not reached");
                    policy.failed(unreached(&error), Instant::now().into_std())
                }
            };
            let Some(next) = next else { return };
            sleep_until(next.into()).await;
        }
    }
}

/// What an error means for the policy.
fn unreached(error: &DialError) -> Unreached {
    match error.retry() {
        Retry::At(until) => Unreached::BackingOff(until),
        Retry::Now => Unreached::Passing,
        Retry::Never if matches!(error, DialError::PoolClosed | DialError::OwnIdentity) => {
            Unreached::Final
        }
        // The application can mend it while the pool runs.
        Retry::Never => Unreached::Lasting,
    }
}
