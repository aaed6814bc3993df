//! Which messages 1 were seen already.
//!
//! Owns the bounded cache of ephemeral keys. It must be told only of messages whose tag has
//! verified: a stranger who does not know our key must not be able to fill it.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::crypto::KEY;

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
    most: usize,
    life: Duration,
}

impl ReplayCache {
    /// A cache of at most `most` keys, which uses memory only as they come.
    pub(crate) fn new(most: usize, max_clock_skew: Duration) -> Self {
        Self {
            seen: BTreeSet::new(),
            arrivals: VecDeque::new(),
            most,
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
        if self.arrivals.len() > self.most
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SKEW: Duration = Duration::from_secs(60);

    fn key(n: u16) -> [u8; KEY] {
        let mut key = [0; KEY];
        key[..2].copy_from_slice(&n.to_be_bytes());
        key
    }

    #[test]
    fn a_key_is_remembered_for_twice_the_skew() {
        let (mut cache, start) = (ReplayCache::new(10, SKEW), Instant::now());
        assert!(cache.insert(key(1), start));
        assert!(!cache.insert(key(1), start));
        assert!(!cache.insert(key(1), start + SKEW * 2));
        assert!(!cache.insert(key(1), start + SKEW * 2 + Duration::from_secs(1)));
        assert!(cache.insert(key(1), start + SKEW * 2 + Duration::from_millis(1001)));
        assert!(!cache.insert(key(1), start + SKEW * 4));
    }

    #[test]
    fn a_full_cache_forgets_the_oldest() {
        let (mut cache, now) = (ReplayCache::new(3, SKEW), Instant::now());
        for n in 1..=4 {
            assert!(cache.insert(key(n), now));
        }
        assert_eq!(cache.len(), 3);
        assert!(!cache.insert(key(2), now), "still there");
        assert!(cache.insert(key(1), now), "forgotten");
    }

    #[test]
    fn a_replay_does_not_prolong_or_displace() {
        let (mut cache, start) = (ReplayCache::new(2, SKEW), Instant::now());
        cache.insert(key(1), start);
        cache.insert(key(2), start);
        for _ in 0..10 {
            assert!(!cache.insert(key(2), start + SKEW));
        }
        assert!(!cache.insert(key(1), start + SKEW));
        assert!(cache.insert(key(2), start + SKEW * 3));
        assert_eq!(cache.len(), 1);
    }

    proptest! {
        /// Against the plain rule: seen within the life, and among the newest `most`.
        #[test]
        fn it_is_exact_while_not_full(steps in prop::collection::vec((0..20_u16, 0..40_u64), 0..200)) {
            let mut cache = ReplayCache::new(20, SKEW);
            let mut now = Instant::now();
            let mut first: Vec<(u16, Instant)> = Vec::new();
            for (n, seconds) in steps {
                now += Duration::from_secs(seconds);
                first.retain(|(_, at)| now - *at <= SKEW * 2 + Duration::from_secs(1));
                let fresh = !first.iter().any(|(seen, _)| *seen == n);
                prop_assert_eq!(cache.insert(key(n), now), fresh);
                if fresh {
                    first.push((n, now));
                }
                prop_assert_eq!(cache.len(), first.len());
            }
        }
    }
}
