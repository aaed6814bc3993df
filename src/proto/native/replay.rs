//! Which messages 1 were seen already.
//!
//! Owns the bounded cache of ephemeral keys. It must be told only of messages whose tag has
//! verified: a stranger who does not know our key must not be able to fill it.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::base::key::KEY;

/// Ephemeral keys of messages 1, each for twice `max_clock_skew`.
///
/// A message dated T passes the clock check while our clock shows T - skew to T + skew, so that a
/// copy of one that was seen earlier than twice the skew ago fails there. When the cache is full the
/// oldest key goes, and a copy of that message could pass once more: it gains an attacker nothing
/// but another message 2, since he cannot write message 3.
pub(crate) struct ReplayCache {
    /// By key. An ordered set needs no hash that strangers could aim at.
    seen: BTreeSet<[u8; KEY]>,
    /// In the order of arrival, oldest first. Holds exactly the keys of `seen`.
    arrivals: VecDeque<(Instant, [u8; KEY])>,
    max: usize,
    life: Duration,
}

impl ReplayCache {
    /// A cache of at most `max` keys, which uses memory only as they come.
    pub(crate) fn new(max: usize, max_clock_skew: Duration) -> Self {
        Self {
            seen: BTreeSet::new(),
            arrivals: VecDeque::new(),
            max,
            // The clock check rounds to whole seconds, which widens its window by one.
            life: max_clock_skew * 2 + Duration::from_secs(1),
        }
    }

    /// Notes `ephemeral` at `now`; false if it was seen before.
    pub(crate) fn insert(&mut self, ephemeral: [u8; KEY], now: Instant) -> bool {
        while let Some((arrived, oldest)) = self.arrivals.front() {
            let expired = now.saturating_duration_since(*arrived) > self.life;
            if !expired {
                break;
            }
            self.seen.remove(oldest);
            self.arrivals.pop_front();
        }
        if !self.seen.insert(ephemeral) {
            return false;
        }
        self.arrivals.push_back((now, ephemeral));
        if self.arrivals.len() > self.max
            && let Some((_, oldest)) = self.arrivals.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        assert_eq!(self.seen.len(), self.arrivals.len());
        self.arrivals.len()
    }
}

#[cfg(test)]
#[path = "../../verify/proto/native/replay.rs"]
mod tests;
