//! The pool's memory of peers that could not be dialled, or that the application refuses.
//!
//! Owns the lock around the [`BackoffTable`], and the form in which it knows addresses. When a peer
//! may be dialled again is decided there. Errors hold values of the application: they must be dropped
//! where no lock is held, so that what the table forgets is handed back.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use tokio::time::Instant;

use crate::base::address::Address;
use crate::base::config::Settings;
use crate::base::error::{CloseReason, DialError};
use crate::base::id::PeerId;
use crate::base::sync::{Mutex, lock};
use crate::proto::backoff::{BackoffTable, Bounds, Outcome};

/// Errors that the table has forgotten.
pub(crate) type EvictedErrors = Vec<DialError>;

/// See the module.
pub(crate) struct Failures {
    table: Mutex<BackoffTable<DialError>>,
    /// Addresses come from strangers too; the table remembers them as hashes.
    address_hasher: RandomState,
}

impl Failures {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            table: Mutex::new(BackoffTable::new(Bounds {
                first: settings.initial_backoff,
                max: settings.max_backoff,
                max_refusal: settings.max_refusal,
                capacity: settings.backoff_table,
            })),
            address_hasher: RandomState::new(),
        }
    }

    /// Notes a failed dial; the error that waiters and later callers get, and the errors that the
    /// table has forgotten for it. Called under a slot's lock: the table's lock is the inner one.
    pub(crate) fn note(
        &self,
        peer: PeerId,
        addresses: &[Address],
        error: DialError,
        outcome: Outcome,
        random: u64,
    ) -> (DialError, EvictedErrors) {
        let tried = self.hashes(addresses);
        let mut table = lock(&self.table);
        let until =
            table.failed(peer, outcome, error.clone(), &tried, Instant::now().into_std(), random);
        let evicted = table.take_spent();
        (DialError::Backoff { until, cause: Arc::new(error) }, evicted)
    }

    /// A session to the peer exists: its failures are forgotten.
    pub(crate) fn forget(&self, peer: &PeerId) {
        let mut table = lock(&self.table);
        if !table.knows(peer) {
            return;
        }
        table.clear(peer, Instant::now().into_std());
        let evicted = table.take_spent();
        drop(table);
        drop(evicted);
    }

    /// A session to this peer has ended because nothing came from it any more.
    pub(crate) fn lost(&self, peer: PeerId, why: CloseReason) {
        let mut table = lock(&self.table);
        table.lost(peer, DialError::SessionEnded(why), Instant::now().into_std());
        let evicted = table.take_spent();
        drop(table);
        drop(evicted);
    }

    /// The application wants no session to this peer until then.
    pub(crate) fn refuse(&self, peer: PeerId, until: Instant) {
        let mut table = lock(&self.table);
        let now = Instant::now().into_std();
        table.refuse(peer, until.into_std(), DialError::Disconnected, now);
        let evicted = table.take_spent();
        drop(table);
        drop(evicted);
    }

    /// The error for a call that comes too early after a failure.
    pub(crate) fn backing_off(&self, peer: &PeerId, addresses: &[Address]) -> Option<DialError> {
        let table = lock(&self.table);
        if !table.knows(peer) {
            return None;
        }
        let now = Instant::now().into_std();
        let (until, cause) = table.check(peer, &self.hashes(addresses), now)?;
        Some(DialError::Backoff { until, cause: Arc::new(cause.clone()) })
    }

    /// The error for a call for a peer that the application refuses.
    pub(crate) fn refused_by_application(&self, peer: &PeerId) -> Option<DialError> {
        let table = lock(&self.table);
        if !table.knows(peer) {
            return None;
        }
        let until = table.refused_by_application(peer, Instant::now().into_std())?;
        Some(DialError::Backoff { until, cause: Arc::new(DialError::Disconnected) })
    }

    fn hashes(&self, addresses: &[Address]) -> Vec<u64> {
        addresses.iter().map(|address| self.address_hasher.hash_one(address)).collect()
    }
}
