//! Peers that the application wants a session to at all times.
//!
//! Owns the keepers: a task per kept peer that dials at start and again, with the pool's backoff,
//! whenever the session is lost. A kept peer's session is neither evicted nor expired for want of
//! use; at `max_age` it is replaced.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::base::error::{DialError, Retry};
use crate::base::id::PeerId;
use crate::base::sync::{Mutex, lock};
use crate::pool::dial::Source;
use crate::pool::inner::Inner;
use crate::pool::target::Target;
use crate::proto::dial_policy::{PersistentPolicy, Unreached};
use crate::session::Session;

/// The kept peers.
#[derive(Default)]
pub(crate) struct Keepers(Mutex<HashMap<PeerId, Keeper>>);

struct Keeper {
    /// Told when the peer's session has left its slot.
    lost: Arc<Notify>,
    stop: CancellationToken,
}

impl Keepers {
    /// Whether the peer is kept.
    pub(crate) fn is_kept(&self, peer: &PeerId) -> bool {
        lock(&self.0).contains_key(peer)
    }

    /// The peer's session has left its slot.
    pub(crate) fn lost(&self, peer: &PeerId) {
        if let Some(keeper) = lock(&self.0).get(peer) {
            keeper.lost.notify_one();
        }
    }

    /// Keeps the peer no longer. False: it was not kept.
    pub(crate) fn remove(&self, peer: &PeerId) -> bool {
        let keeper = lock(&self.0).remove(peer);
        keeper.map(|keeper| keeper.stop.cancel()).is_some()
    }

    /// Keeps nobody any longer.
    pub(crate) fn clear(&self) {
        let keepers = std::mem::take(&mut *lock(&self.0));
        keepers.into_values().for_each(|keeper| keeper.stop.cancel());
    }
}

impl Inner {
    /// Keeps a session to the target's peer; a second call for one peer replaces the first.
    pub(crate) fn keep(self: &Arc<Self>, mut target: Target) {
        // A keeper waits as long as a dial takes.
        target.timeout = None;
        let lost = Arc::new(Notify::new());
        let stop = self.stop_accepting.child_token();
        let keeper = Keeper { lost: lost.clone(), stop: stop.clone() };
        if let Some(before) = lock(&self.keepers.0).insert(target.peer, keeper) {
            before.stop.cancel();
        }
        let session = self.session_of(&target.peer);
        if let Some(session) = session {
            self.unwatch(&session);
        }
        let pool = self.clone();
        self.service.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = pool.keep_up(&target, &lost) => {}
            }
        });
    }

    /// Keeps a peer no longer; its session, if there is one, may expire and be evicted again.
    pub(crate) fn unkeep(self: &Arc<Self>, peer: &PeerId) -> bool {
        let kept = self.keepers.remove(peer);
        if let Some(session) = self.session_of(peer).filter(|_| kept) {
            self.watch(&session);
        }
        kept
    }

    fn session_of(&self, peer: &PeerId) -> Option<Arc<Session>> {
        self.registry.read(peer, |slot| slot.session().map(|held| held.core.session().clone()))?
    }

    async fn keep_up(self: &Arc<Self>, target: &Target, lost: &Notify) {
        let policy = PersistentPolicy {
            pause: self.settings.initial_backoff,
            max_pause: self.settings.max_backoff,
        };
        loop {
            let error = match self.obtain(target.clone(), Source::of(target)).await {
                Ok(lease) => {
                    drop(lease);
                    let not_before = policy.connected(Instant::now().into_std());
                    lost.notified().await;
                    sleep_until(not_before.into()).await;
                    continue;
                }
                Err(error) => error,
            };
            debug!(peer = %target.peer.short(), %error, "a kept peer is not reached");
            let why = match error.retry() {
                Retry::At(until) => Unreached::BackingOff(until.into_std()),
                Retry::Now => Unreached::Passing,
                Retry::Never if matches!(error, DialError::PoolClosed | DialError::OwnIdentity) => {
                    Unreached::Final
                }
                Retry::Never => Unreached::Lasting,
            };
            let Some(next) = policy.failed(why, Instant::now().into_std()) else { return };
            sleep_until(next.into()).await;
        }
    }
}
