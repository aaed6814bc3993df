//! Waiting for a lease.
//!
//! Owns a caller's place among the waiters, first come first served. It must never hold a lease
//! core: waiters neither count as leases nor keep a retired session from draining.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::base::error::CloseReason;
use crate::session::state::Session;

use super::core::{LeasePermits, WeakLeaseHandle};
use super::handle::{Lease, LeaseHandle};

/// A caller's wait for a lease, or for all of them.
#[derive(Debug)]
pub(crate) struct LeaseWaiter {
    core: WeakLeaseHandle<Session>,
    session: Arc<Session>,
    permits: Option<Arc<LeasePermits>>,
}

impl LeaseWaiter {
    pub(crate) fn of(core: &LeaseHandle) -> Self {
        Self {
            core: LeaseHandle::downgrade(core),
            session: Arc::clone(core.session()),
            permits: core.permits(),
        }
    }

    /// Waits for a lease, first come first served. Cancel safe: dropped, it gives up its place.
    ///
    /// # Errors
    ///
    /// Why the session was retired or has ended.
    pub(crate) async fn wait(self) -> Result<Lease, CloseReason> {
        Ok(self.wait_for(|_| 1).await?.0)
    }

    /// Waits for all leases of a core with permits: one lease, and the permits of all others. Cancel
    /// safe.
    pub(crate) async fn wait_for_all(
        self,
    ) -> Result<(Lease, Option<OwnedSemaphorePermit>), CloseReason> {
        self.wait_for(|all| all).await
    }

    async fn wait_for(
        self,
        how_many: impl FnOnce(u32) -> u32,
    ) -> Result<(Lease, Option<OwnedSemaphorePermit>), CloseReason> {
        let mut permits = match self.permits {
            None => None,
            Some(permits) => {
                let semaphore = Arc::clone(&permits.semaphore);
                match semaphore.acquire_many_owned(how_many(permits.all)).await {
                    Ok(acquired) => Some(acquired),
                    Err(_) => return Err(why_retired(&self.session)),
                }
            }
        };
        let core = self.core.upgrade().filter(|_| self.session.retired().is_none());
        let Some(core) = core else { return Err(why_retired(&self.session)) };
        core.mark_use(core.context().ticks());
        // The lease's own goes back by its drop, the others are the caller's.
        if let Some(own) = permits.as_mut().and_then(|permits| permits.split(1)) {
            own.forget();
        }
        Ok((Lease { core }, permits))
    }
}

/// The reason for the closed permits or the vanished core. A core vanishes without one only when the
/// pool itself has gone.
fn why_retired(session: &Session) -> CloseReason {
    session.retired().unwrap_or(CloseReason::PoolClosed)
}
