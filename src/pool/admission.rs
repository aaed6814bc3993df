//! Who may begin a handshake: the strangers' share of our time and memory.
//!
//! Owns the pending handshakes. There are at most `max_pending_handshakes`; when they are all
//! taken, the one that has been longest without a valid message 1 is shed for the newcomer, since
//! silent sockets must not hold the door. One that has shown that it knows our key is not shed.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::sync::{Mutex, lock};

/// The pending handshakes.
pub(crate) struct Admission {
    most: usize,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    next: u64,
    /// Without a valid message 1, in the order of arrival.
    silent: BTreeMap<u64, CancellationToken>,
    verified: usize,
    high_water: usize,
}

/// The place of one pending handshake; given back on drop.
pub(crate) struct Ticket {
    admission: Arc<Admission>,
    number: u64,
    shed: CancellationToken,
}

/// What became of a newcomer.
pub(crate) struct Entry {
    /// Its place, if there is one.
    pub(crate) ticket: Option<Ticket>,
    /// Whether somebody was shed: the oldest silent one, or the newcomer itself.
    pub(crate) shed: bool,
}

impl Admission {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, pending: Mutex::default() })
    }

    /// Admits a newcomer, at the cost of the oldest silent one if need be.
    pub(crate) fn enter(self: &Arc<Self>) -> Entry {
        let mut pending = lock(&self.pending);
        let full = pending.silent.len() + pending.verified >= self.most;
        if full {
            match pending.silent.pop_first() {
                Some((_, oldest)) => oldest.cancel(),
                None => return Entry { ticket: None, shed: true },
            }
        }
        let number = pending.next;
        pending.next += 1;
        let shed = CancellationToken::new();
        pending.silent.insert(number, shed.clone());
        pending.high_water = pending.high_water.max(pending.silent.len() + pending.verified);
        drop(pending);
        Entry { ticket: Some(Ticket { admission: self.clone(), number, shed }), shed: full }
    }

    /// How many are pending, and how many ever were at once.
    pub(crate) fn held(&self) -> (usize, usize) {
        let pending = lock(&self.pending);
        (pending.silent.len() + pending.verified, pending.high_water)
    }
}

impl Ticket {
    /// Message 1 was valid: this handshake is not shed any more.
    pub(crate) fn verified(&self) {
        let mut pending = lock(&self.admission.pending);
        if pending.silent.remove(&self.number).is_some() {
            pending.verified += 1;
        }
    }

    /// Waits until this handshake is shed.
    pub(crate) async fn shed(&self) {
        self.shed.cancelled().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut pending = lock(&self.admission.pending);
        // Either still silent, or shed and counted no more, or verified.
        if pending.silent.remove(&self.number).is_none() && !self.shed.is_cancelled() {
            pending.verified -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_silent_one_is_shed_and_the_limit_holds() {
        let admission = Admission::new(2);
        let first = admission.enter().ticket.unwrap();
        let second = admission.enter().ticket.unwrap();
        first.verified();
        let third = admission.enter();
        assert!(third.shed);
        assert!(second.shed.is_cancelled() && !first.shed.is_cancelled());
        let third = third.ticket.unwrap();
        assert_eq!(admission.held(), (2, 2));
        drop(second);
        assert_eq!(admission.held(), (2, 2), "a shed handshake is not counted twice");
        third.verified();
        let fourth = admission.enter();
        assert!(fourth.ticket.is_none() && fourth.shed, "nobody silent is left to shed");
        drop((first, third));
        assert_eq!(admission.held(), (0, 2));
    }
}
