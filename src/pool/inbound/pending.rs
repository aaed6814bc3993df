//! The pending handshakes: the strangers' share of our time and memory.
//!
//! Owns their number. There are at most `max_pending_handshakes`; when all places are taken, one is shed
//! for the newcomer, which is never shed itself while there is any other. Those that have sent
//! no valid message 1, and those that have and then send no message 3, are kept apart: of the more
//! numerous, the one that came first is shed. So neither kind can hold the door, since it pays itself
//! for its number, and an honest peer of either kind has at least the time in which its like fill half
//! of the places. An authenticated peer is never shed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::sync::{Mutex, lock};
use crate::pool::stop_signal::StopSignal;

/// See the module.
pub(crate) struct PendingHandshakes {
    max: usize,
    pending: Mutex<Pending>,
}

/// By number, which is the order of arrival.
type Signals = BTreeMap<u64, Arc<StopSignal>>;

#[derive(Default)]
struct Pending {
    next: u64,
    /// Without a valid message 1.
    await_message1: Signals,
    /// With a valid message 1, without message 3.
    await_message3: Signals,
    /// With message 3: the peer is being judged or told no.
    authenticated: Signals,
    /// The pool accepts no more: only the authenticated go on.
    closed: bool,
    high_water: usize,
}

/// The place of one pending handshake; given back on drop.
pub(crate) struct HandshakePermit {
    handshakes: Arc<PendingHandshakes>,
    number: u64,
    stop: Arc<StopSignal>,
}

/// What became of a newcomer.
pub(crate) struct Entry {
    /// Its place, if there is one.
    pub(crate) permit: Option<HandshakePermit>,
    /// Whether one was shed: another, or the newcomer itself.
    pub(crate) shed: bool,
}

impl PendingHandshakes {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, pending: Mutex::default() })
    }

    /// Admits a newcomer, at the cost of another if need be.
    pub(crate) fn enter(self: &Arc<Self>) -> Entry {
        let mut pending = lock(&self.pending);
        let full = pending.held() >= self.max;
        let loser = if full { pending.shed_one() } else { None };
        if full && loser.is_none() {
            return Entry { permit: None, shed: true };
        }
        let number = pending.next;
        pending.next += 1;
        let stop = Arc::new(StopSignal::default());
        if pending.closed {
            stop.abort();
        }
        pending.await_message1.insert(number, stop.clone());
        pending.high_water = pending.high_water.max(pending.held());
        drop(pending);
        // Not under the lock: it wakes a task.
        if let Some(loser) = loser {
            loser.abort();
        }
        let permit = HandshakePermit { handshakes: self.clone(), number, stop };
        Entry { permit: Some(permit), shed: full }
    }

    /// From now on those are aborted that have not sent message 3.
    pub(crate) fn close(&self) {
        let mut pending = lock(&self.pending);
        pending.closed = true;
        let strangers = pending.await_message1.values().chain(pending.await_message3.values());
        let strangers: Vec<_> = strangers.cloned().collect();
        drop(pending);
        strangers.iter().for_each(|stop| stop.abort());
    }

    /// Kills all that are pending now. After [`close`](Self::close) none of them ends otherwise.
    pub(crate) fn kill(&self) {
        let pending = lock(&self.pending);
        let kinds = [&pending.await_message1, &pending.await_message3, &pending.authenticated];
        let all: Vec<_> = kinds.into_iter().flat_map(BTreeMap::values).cloned().collect();
        drop(pending);
        all.iter().for_each(|stop| stop.kill());
    }

    /// How many are pending, and how many ever were at once.
    pub(crate) fn held(&self) -> (usize, usize) {
        let pending = lock(&self.pending);
        (pending.held(), pending.high_water)
    }
}

impl Pending {
    fn held(&self) -> usize {
        self.await_message1.len() + self.await_message3.len() + self.authenticated.len()
    }

    /// Takes out the first of the more numerous kind of strangers.
    fn shed_one(&mut self) -> Option<Arc<StopSignal>> {
        let more = if self.await_message3.len() > self.await_message1.len() {
            &mut self.await_message3
        } else {
            &mut self.await_message1
        };
        more.pop_first().map(|(_, stop)| stop)
    }

    /// Takes out a stranger; none: it was shed.
    fn take_stranger(&mut self, number: u64) -> Option<Arc<StopSignal>> {
        self.await_message3.remove(&number).or_else(|| self.await_message1.remove(&number))
    }
}

impl HandshakePermit {
    /// Message 1 was valid. `AwaitMessage1` → `AwaitMessage3`.
    pub(crate) fn verified(&self) {
        let mut pending = lock(&self.handshakes.pending);
        if let Some(stop) = pending.await_message1.remove(&self.number) {
            pending.await_message3.insert(self.number, stop);
        }
    }

    /// Message 3 was valid. `AwaitMessage3` → `Authenticated`; none if it was shed before.
    pub(crate) fn authenticated(self) -> Option<Self> {
        let mut pending = lock(&self.handshakes.pending);
        let stop = pending.take_stranger(self.number)?;
        pending.authenticated.insert(self.number, stop);
        drop(pending);
        Some(self)
    }

    /// The handshake failed. Whether that was its end: if not, it had been shed, and was counted then.
    pub(crate) fn failed(&self) -> bool {
        lock(&self.handshakes.pending).take_stranger(self.number).is_some()
    }

    /// Aborted, when it is shed or when the pool accepts no more; killed, when the pool closes.
    pub(crate) fn stop(&self) -> &Arc<StopSignal> {
        &self.stop
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        let mut pending = lock(&self.handshakes.pending);
        // Nothing, if it was shed or has failed.
        if pending.authenticated.remove(&self.number).is_none() {
            pending.take_stranger(self.number);
        }
    }
}

#[cfg(test)]
#[path = "../../verify/pool/inbound/pending.rs"]
mod tests;
