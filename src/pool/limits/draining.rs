//! The sessions that are no longer handed out and have not ended.
//!
//! Owns their number: at most `max_draining`, of which a peer may have few, so that a peer that
//! reconnects again and again cannot fill the table. What does not fit is handed back to be cut,
//! the longest draining first. A pool that drains itself has lifted the bound: its sessions are no more
//! than they were before.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::base::id::{PeerId, SessionId};
use crate::base::sync::{Mutex, lock};
use crate::session::Session;

/// How many draining sessions one peer may have. One would do without faults; crossing dials with
/// a restart between them can leave two that both hold messages.
const PER_PEER: usize = 4;

/// The table of draining sessions.
pub(crate) struct Draining {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    max: usize,
    next: u64,
    /// In the order in which they began to drain.
    order: BTreeMap<u64, Arc<Session>>,
    by_id: HashMap<SessionId, u64>,
    by_peer: HashMap<PeerId, Vec<u64>>,
    high_water: usize,
}

impl Table {
    fn is_full(&self) -> bool {
        self.order.len() >= self.max
    }

    fn remove(&mut self, key: u64) -> Option<Arc<Session>> {
        let session = self.order.remove(&key)?;
        self.by_id.remove(&session.id());
        let peer = session.peer();
        if let Some(keys) = self.by_peer.get_mut(&peer) {
            keys.retain(|k| *k != key);
            if keys.is_empty() {
                self.by_peer.remove(&peer);
            }
        }
        Some(session)
    }
}

impl Draining {
    pub(crate) fn new(max: usize) -> Self {
        Self { table: Mutex::new(Table { max, ..Table::default() }) }
    }

    /// Adds a session; what must be cut for it is handed back.
    #[must_use]
    pub(crate) fn add(&self, session: Arc<Session>) -> Vec<Arc<Session>> {
        let mut table = lock(&self.table);
        if table.by_id.contains_key(&session.id()) {
            return Vec::new();
        }
        let mut cut = Vec::new();
        let of_peer = table.by_peer.get(&session.peer());
        if let Some(oldest) = of_peer.filter(|k| k.len() >= PER_PEER).and_then(|k| k.first()) {
            let oldest = *oldest;
            cut.extend(table.remove(oldest));
        }
        if table.is_full()
            && let Some(oldest) = table.order.keys().next().copied()
        {
            cut.extend(table.remove(oldest));
        }
        let key = table.next;
        table.next += 1;
        table.by_id.insert(session.id(), key);
        table.by_peer.entry(session.peer()).or_default().push(key);
        table.order.insert(key, session);
        table.high_water = table.high_water.max(table.order.len());
        cut
    }

    /// Whether the next session would cut another.
    pub(crate) fn is_full(&self) -> bool {
        lock(&self.table).is_full()
    }

    /// The pool drains: nothing is cut any more for want of room.
    pub(crate) fn lift(&self) {
        lock(&self.table).max = usize::MAX;
    }

    /// Forgets a session that has ended.
    pub(crate) fn remove(&self, id: SessionId) {
        let mut table = lock(&self.table);
        let session = table.by_id.get(&id).copied().and_then(|key| table.remove(key));
        drop(table);
        drop(session);
    }

    /// All draining sessions, the longest draining first.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        lock(&self.table).order.values().cloned().collect()
    }

    /// The draining sessions of one peer.
    pub(crate) fn of(&self, peer: &PeerId) -> Vec<Arc<Session>> {
        let table = lock(&self.table);
        let keys = table.by_peer.get(peer).map(Vec::as_slice).unwrap_or_default();
        keys.iter().filter_map(|key| table.order.get(key).cloned()).collect()
    }

    /// How many there are, and how many there ever were at once.
    pub(crate) fn held(&self) -> (usize, usize) {
        let table = lock(&self.table);
        (table.order.len(), table.high_water)
    }
}
