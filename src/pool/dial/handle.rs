//! A dial under way, as its slot, its waiters and its task share it.
//!
//! Owns the dial's addresses, its phase, its permit and the ways to stop it and to settle it. It must
//! never decide how the dial goes on: its task does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::base::address::Address;
use crate::base::id::{AttemptId, PeerId};
use crate::base::metrics::DialPhase;
use crate::base::sync::{AtomicUsize, Mutex, Notify, OnceLock, lock};
use crate::pool::limits::SlotPermit;
use crate::pool::stop_signal::StopSignal;
use crate::session::Session;

use super::first::FirstMessages;
use super::outcome::Outcome;

/// A dial under way: the handle that the slot and the waiters share with the dial's task.
pub(crate) struct Dial {
    pub(crate) attempt: AttemptId,
    pub(crate) peer: PeerId,
    pub(crate) began: Instant,
    pub(crate) outcome: Outcome,
    /// Notified when the dial leaves its committed phase: parked connections are judged again.
    pub(crate) uncommitted: Notify,
    /// What callers want to send with it.
    pub(crate) first: Arc<FirstMessages>,
    /// How many connections are parked because of this dial. Raised under the shard's lock.
    parked: AtomicUsize,
    /// Stops the task: aborted, while it is not committed; killed, when the pool closes.
    pub(crate) stop: StopSignal,
    permit: Mutex<Option<SlotPermit>>,
    /// Those that it began with: callers who name the same ones need no lock.
    first_addresses: Box<[Address]>,
    addresses: Mutex<Addresses>,
    more: tokio::sync::Notify,
    phase: Mutex<DialPhase>,
    /// The session that came when it was not wanted any more, and drains.
    drained: OnceLock<Arc<Session>>,
}

#[derive(Default)]
struct Addresses {
    all: Vec<Address>,
    fresh: VecDeque<Address>,
}

impl Dial {
    pub(crate) fn new(attempt: AttemptId, peer: PeerId, addresses: &[Address]) -> Self {
        let dial = Self {
            attempt,
            peer,
            began: Instant::now(),
            outcome: Outcome::new(),
            uncommitted: Notify::new(),
            first: Arc::default(),
            parked: AtomicUsize::new(0),
            stop: StopSignal::default(),
            permit: Mutex::new(None),
            first_addresses: addresses.into(),
            addresses: Mutex::default(),
            more: tokio::sync::Notify::new(),
            phase: Mutex::new(DialPhase::Queued),
            drained: OnceLock::new(),
        };
        dial.add_new_addresses(addresses);
        dial
    }

    /// Adds addresses that the dial does not know; they join its race.
    pub(crate) fn add_addresses(&self, addresses: &[Address]) {
        if !addresses.iter().all(|address| self.first_addresses.contains(address)) {
            self.add_new_addresses(addresses);
        }
    }

    fn add_new_addresses(&self, addresses: &[Address]) {
        let mut known = lock(&self.addresses);
        let before = known.all.len();
        for address in addresses {
            if !known.all.contains(address) {
                known.all.push(address.clone());
                known.fresh.push_back(address.clone());
            }
        }
        let grew = known.all.len() > before;
        drop(known);
        if grew {
            self.more.notify_one();
        }
    }

    pub(crate) fn addresses(&self) -> Vec<Address> {
        lock(&self.addresses).all.clone()
    }

    pub(crate) fn next_address(&self) -> Option<Address> {
        lock(&self.addresses).fresh.pop_front()
    }

    pub(crate) fn has_address(&self) -> bool {
        !lock(&self.addresses).fresh.is_empty()
    }

    /// Tries all addresses again.
    pub(crate) fn renew_addresses(&self) {
        let mut known = lock(&self.addresses);
        known.fresh = known.all.iter().cloned().collect();
    }

    pub(crate) fn more_addresses(&self) -> impl Future<Output = ()> + '_ {
        self.more.notified()
    }

    /// The accept came too late, and its session drains. To be called before `uncommitted` is notified.
    pub(crate) fn note_drained(&self, session: Arc<Session>) {
        let _ = self.drained.set(session);
    }

    pub(crate) fn drained(&self) -> Option<Arc<Session>> {
        self.drained.get().cloned()
    }

    /// Whether connections are parked because of this dial.
    pub(crate) fn has_parked(&self) -> bool {
        self.parked.load(Ordering::Relaxed) > 0
    }

    /// The permit that the dial holds, for the session that takes its slot.
    pub(crate) fn take_permit(&self) -> Option<SlotPermit> {
        lock(&self.permit).take()
    }

    pub(crate) fn put_permit(&self, permit: SlotPermit) {
        *lock(&self.permit) = Some(permit);
    }

    pub(crate) fn phase(&self) -> DialPhase {
        *lock(&self.phase)
    }

    // ---- phases --------------------------------------------------------------------------------

    /// The connector looks addresses up. Queued or reopened → Resolving.
    pub(crate) fn resolves(&self) {
        self.enter(DialPhase::Resolving);
    }

    /// A connection begins. Queued or Resolving → Connecting; a later phase stays.
    pub(crate) fn connects(&self) {
        let mut phase = lock(&self.phase);
        *phase = (*phase).max(DialPhase::Connecting);
    }

    /// The peer has answered, and our checks run. Connecting → Checking.
    pub(crate) fn checks(&self) {
        self.enter(DialPhase::Checking);
    }

    /// Message 3 is about to be written. Checking → Committed.
    pub(crate) fn commits(&self) {
        self.enter(DialPhase::Committed);
    }

    /// The committed connection ended without a session. Committed → Connecting.
    pub(crate) fn reopens(&self) {
        self.enter(DialPhase::Connecting);
    }

    fn enter(&self, phase: DialPhase) {
        *lock(&self.phase) = phase;
    }
}

/// An inbound connection that waits for the dial's verdict; until it is dropped.
pub(crate) struct Parked(Arc<Dial>);

impl Parked {
    /// Called under the shard's lock, so that the end of the committed phase cannot miss it.
    pub(crate) fn at(dial: &Arc<Dial>) -> Self {
        dial.parked.fetch_add(1, Ordering::Relaxed);
        Self(dial.clone())
    }

    pub(crate) fn dial(&self) -> &Arc<Dial> {
        &self.0
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.0.parked.fetch_sub(1, Ordering::Relaxed);
    }
}
