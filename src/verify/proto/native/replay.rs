//! Unit tests of `proto/native/replay.rs`.

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
    /// Against the plain rule: seen within the life, and among the newest `max`.
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
