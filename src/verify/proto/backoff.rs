//! Unit tests of `proto/backoff.rs`.

use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn bounds(capacity: usize) -> Bounds {
    Bounds { first: SECOND, max: 300 * SECOND, max_refusal: 600 * SECOND, capacity }
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn hash(n: u32) -> u64 {
    u64::from(n) << 32
}

#[test]
fn errors_that_are_forgotten_are_handed_back() {
    let mut table = BackoffTable::new(bounds(2));
    let now = Instant::now();
    let mut fail = |n, error| {
        table.failed(peer(n), Outcome::Unreachable, error, &[], now, 0);
        table.take_spent()
    };
    assert!(fail(1, "first").is_empty());
    assert_eq!(fail(1, "second"), ["first"]);
    assert!(fail(2, "other").is_empty());
    assert_eq!(fail(3, "one too many").len(), 1);
    table.clear(&peer(3), now);
    assert_eq!(table.take_spent(), ["one too many"]);
}

#[test]
fn a_call_within_the_wait_fails_with_the_same_error_and_says_until_when() {
    let mut table = BackoffTable::new(bounds(9));
    let now = Instant::now();
    assert_eq!(table.check(&peer(1), &[hash(1)], now), None);
    let until = table.failed(peer(1), Outcome::Unreachable, "gone", &[hash(1)], now, 7);
    assert!(until > now);
    assert_eq!(table.check(&peer(1), &[hash(1)], now), Some((until, &"gone")));
    assert_eq!(table.check(&peer(1), &[], now), Some((until, &"gone")));
    assert_eq!(table.check(&peer(2), &[hash(1)], now), None, "another peer");
    assert_eq!(table.check(&peer(1), &[hash(1)], until), None, "the wait is over");
}

#[test]
fn an_address_that_was_not_tried_is_let_through_once() {
    let mut table = BackoffTable::new(bounds(9));
    let now = Instant::now();
    let first = table.failed(peer(1), Outcome::Refused, (), &[hash(1)], now, 0);
    assert_eq!(first, now + 600 * SECOND);
    assert!(table.check(&peer(1), &[hash(1), hash(2)], now).is_none());
    let second = table.failed(peer(1), Outcome::Unreachable, (), &[hash(2)], now, 0);
    assert_eq!(second, first, "the longer wait stays");
    assert!(table.check(&peer(1), &[hash(2), hash(1)], now).is_some());
}

#[test]
fn too_many_addresses_count_as_tried_all() {
    let mut table = BackoffTable::new(bounds(9));
    let now = Instant::now();
    let many: Vec<u64> = (0..=u32::try_from(MAX_TRIED).unwrap()).map(hash).collect();
    table.failed(peer(1), Outcome::Unreachable, (), &many, now, 0);
    assert!(table.check(&peer(1), &[hash(999)], now).is_some());
}

#[test]
fn waits_double_up_to_the_bound_and_a_success_ends_them() {
    let mut table = BackoffTable::new(bounds(9));
    let mut now = Instant::now();
    let mut ceilings = Vec::new();
    for _ in 0..12 {
        let until = table.failed(peer(1), Outcome::Unreachable, (), &[], now, u64::MAX);
        ceilings.push((until - now).as_secs_f64().round() as u64);
        now = until;
    }
    assert_eq!(ceilings, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    table.clear(&peer(1), now);
    assert_eq!(table.len(), 0);
    let until = table.failed(peer(1), Outcome::Unreachable, (), &[], now, u64::MAX);
    assert!(until <= now + SECOND);
}

#[test]
fn a_long_pause_ends_the_row_of_failures() {
    let mut table = BackoffTable::new(bounds(9));
    let now = Instant::now();
    for _ in 0..5 {
        table.failed(peer(1), Outcome::Unreachable, (), &[], now, u64::MAX);
    }
    let later = now + 3600 * SECOND;
    let until = table.failed(peer(1), Outcome::Unreachable, (), &[], later, u64::MAX);
    assert!(until <= later + SECOND);
}

#[test]
fn a_busy_peer_is_believed_within_bounds() {
    let mut table = BackoffTable::new(bounds(9));
    let now = Instant::now();
    let mut busy = |n, retry_after| {
        table.failed(peer(n), Outcome::Busy { retry_after }, (), &[], now, u64::MAX) - now
    };
    assert_eq!(busy(1, Some(30 * SECOND)), 30 * SECOND);
    assert_eq!(busy(2, Some(Duration::MAX)), 600 * SECOND);
    assert_eq!(busy(4, Some(Duration::from_millis(1))), SECOND / 2);
    assert!(busy(3, None) <= SECOND);
}

#[test]
fn a_refusal_by_the_application_holds_against_new_addresses_and_success() {
    let mut table = BackoffTable::new(bounds(9));
    let now = Instant::now();
    let until = now + 60 * SECOND;
    table.refuse(peer(1), until, "unwanted", now);
    assert_eq!(table.check(&peer(1), &[hash(5)], now), Some((until, &"unwanted")));
    table.clear(&peer(1), now);
    assert_eq!(table.refused_by_application(&peer(1), now), Some(until));
    assert_eq!(table.refused_by_application(&peer(1), until), None);
    assert_eq!(table.check(&peer(1), &[], until), None);
}

#[test]
fn a_refusal_by_the_application_ends_whatever_fails_after_it() {
    let mut table = BackoffTable::new(bounds(9));
    let now = Instant::now();
    let until = now + 60 * SECOND;
    table.refuse(peer(1), until, "unwanted", now);
    let within = until - SECOND / 8;
    let held = table.failed(peer(1), Outcome::Refused, "down", &[hash(5)], within, 0);
    assert_eq!(table.refused_by_application(&peer(1), within), Some(until));
    assert_eq!(table.check(&peer(1), &[hash(6)], within), Some((held, &"down")));
    assert_eq!(table.refused_by_application(&peer(1), until), None);
    assert_eq!(table.check(&peer(1), &[hash(5)], until), Some((held, &"down")));
    assert_eq!(table.check(&peer(1), &[hash(6)], until), None, "a new address is a new chance");
    table.failed(peer(1), Outcome::Unreachable, "down", &[hash(6)], until, u64::MAX);
    assert_eq!(table.refused_by_application(&peer(1), until), None);
    table.clear(&peer(1), until);
    assert_eq!(table.len(), 0);
}

#[test]
fn a_session_ends_a_backoff_and_not_the_refusal_beside_it() {
    let mut table = BackoffTable::new(bounds(9));
    let now = Instant::now();
    let until = now + 60 * SECOND;
    table.refuse(peer(1), until, "unwanted", now);
    let held = table.failed(peer(1), Outcome::Refused, "down", &[], until - SECOND, 0);
    assert!(held > until);
    table.clear(&peer(1), until - SECOND);
    assert_eq!(table.refused_by_application(&peer(1), until - SECOND), Some(until));
    assert_eq!(table.check(&peer(1), &[], until), None);
}

#[test]
fn a_full_table_drops_the_entry_that_ends_first() {
    let mut table = BackoffTable::new(bounds(2));
    let now = Instant::now();
    table.failed(peer(1), Outcome::Refused, (), &[], now, 0);
    table.failed(peer(2), Outcome::Unreachable, (), &[], now, 0);
    table.failed(peer(3), Outcome::Unreachable, (), &[], now, 0);
    assert_eq!(table.len(), 2);
    assert!(table.check(&peer(1), &[], now).is_some());
    assert!(table.check(&peer(2), &[], now).is_none());
    assert!(table.check(&peer(3), &[], now).is_some(), "the newcomer always has its place");
}

proptest! {
    #[test]
    fn every_wait_is_within_its_bounds(failures in 1_u32..100, random: u64) {
        let table: BackoffTable<()> = BackoffTable::new(bounds(1));
        let wait = table.exponential(failures, random);
        prop_assert!(wait >= SECOND / 2);
        let ceiling = 300.min(1_u64 << failures.saturating_sub(1).min(31));
        prop_assert!(wait <= Duration::from_secs(ceiling));
    }

    #[test]
    fn the_table_keeps_its_size_and_no_entry_outlives_its_bound(
        capacity in 1_usize..6,
        steps in prop::collection::vec((0_u8..12, 0_u8..5, 0_u64..400, any::<u64>()), 0..150),
    ) {
        let mut table = BackoffTable::new(bounds(capacity));
        let mut now = Instant::now();
        for (n, step, wait, random) in steps {
            now += Duration::from_secs(wait);
            let peer = peer(n);
            let retry_after = Some(Duration::from_millis(random >> 20));
            match step {
                0 => { table.failed(peer, Outcome::Unreachable, (), &[random], now, random); }
                1 => { table.failed(peer, Outcome::Busy { retry_after }, (), &[], now, random); }
                2 => { table.failed(peer, Outcome::Refused, (), &[], now, random); }
                3 => table.refuse(peer, now + 600 * SECOND, (), now),
                _ => table.clear(&peer, now),
            }
            prop_assert!(table.len() <= capacity);
            for n in 0..12 {
                let peer = PeerId::from_bytes([n; 32]);
                if let Some((until, ())) = table.check(&peer, &[], now) {
                    prop_assert!(until > now && until <= now + 600 * SECOND);
                }
            }
        }
    }
}

#[test]
fn a_lost_peer_that_is_silent_is_looked_for_without_growing_pauses_for_an_hour() {
    let mut table = BackoffTable::new(bounds(9));
    let lost = Instant::now();
    table.lost(peer(1), "lost", lost);
    assert_eq!(table.check(&peer(1), &[], lost), None, "at once");
    let mut now = lost;
    while now < lost + LOOKED_FOR {
        let until = table.failed(peer(1), Outcome::Silent, "silent", &[], now, u64::MAX);
        assert!(until <= now + SECOND && until >= now + SECOND / 2);
        now = until + 10 * SECOND;
    }
    for ceiling in [1, 2, 4, 8] {
        let until = table.failed(peer(1), Outcome::Silent, "silent", &[], now, u64::MAX);
        assert!(until <= now + ceiling * SECOND);
        assert!(until > now + ceiling * SECOND - SECOND / 2, "as after any failure");
        now = until;
    }
    // One that refuses is there, and is not looked for.
    table.lost(peer(2), "lost", now);
    for ceiling in [1, 2, 4] {
        let until = table.failed(peer(2), Outcome::Unreachable, "refuses", &[], now, u64::MAX);
        assert!(until > now + ceiling * SECOND - SECOND / 2);
        now = until;
    }
    // A session ends the search.
    table.lost(peer(3), "lost", now);
    table.clear(&peer(3), now);
    table.failed(peer(3), Outcome::Silent, "silent", &[], now, u64::MAX);
    let until = table.failed(peer(3), Outcome::Silent, "silent", &[], now, u64::MAX);
    assert!(until > now + SECOND);
}
