//! Unit tests of `proto/rate_limit.rs`.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_burst_passes_and_then_the_rate() {
    let mut throttle = RateLimiter::new(3, 2, 10, Loopback::Exempt);
    let (a, start) = (ip("192.0.2.1"), Instant::now());
    for _ in 0..3 {
        assert!(throttle.admit(a, start));
    }
    assert!(!throttle.admit(a, start));
    let half = Duration::from_millis(500);
    assert!(!throttle.admit(a, start + half - Duration::from_nanos(1)));
    assert!(throttle.admit(a, start + half));
    assert!(!throttle.admit(a, start + half));
    // Full again after a long pause, and not more than full.
    let later = start + Duration::from_secs(3600);
    assert_eq!((0..10).filter(|_| throttle.admit(a, later)).count(), 3);
}

#[test]
fn one_source_does_not_slow_another() {
    let mut throttle = RateLimiter::new(1, 1, 10, Loopback::Exempt);
    let now = Instant::now();
    assert!(throttle.admit(ip("192.0.2.1"), now));
    assert!(!throttle.admit(ip("192.0.2.1"), now));
    assert!(throttle.admit(ip("192.0.2.2"), now));
}

#[test]
fn an_ipv6_source_is_a_whole_64_and_mapped_ipv4_is_ipv4() {
    let mut throttle = RateLimiter::new(1, 1, 10, Loopback::Exempt);
    let now = Instant::now();
    assert!(throttle.admit(ip("2001:db8:1:2::1"), now));
    assert!(!throttle.admit(ip("2001:db8:1:2:ffff::9"), now));
    assert!(throttle.admit(ip("2001:db8:1:3::1"), now));
    assert!(throttle.admit(ip("192.0.2.1"), now));
    assert!(!throttle.admit(ip("::ffff:192.0.2.1"), now));
    assert!(throttle.admit(ip("::ffff:192.0.2.2"), now), "not one bucket for all of IPv4");
}

#[test]
fn loopback_is_exempt_unless_configured() {
    let now = Instant::now();
    for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"].map(ip) {
        let mut exempt = RateLimiter::new(1, 1, 10, Loopback::Exempt);
        assert!((0..100).all(|_| exempt.admit(address, now)));
        assert_eq!(exempt.len(), 0);
        let mut limited = RateLimiter::new(1, 1, 10, Loopback::Limited);
        assert!(limited.admit(address, now));
        assert!(!limited.admit(address, now), "{address}");
    }
}

#[test]
fn a_full_table_forgets_the_source_that_is_full_first() {
    let mut throttle = RateLimiter::new(4, 1, 2, Loopback::Exempt);
    let now = Instant::now();
    let (heavy, light, new) = (ip("192.0.2.1"), ip("192.0.2.2"), ip("192.0.2.3"));
    assert!((0..4).all(|_| throttle.admit(heavy, now)));
    assert!(throttle.admit(light, now));
    assert!(throttle.admit(new, now));
    assert_eq!(throttle.len(), 2);
    assert!(!throttle.admit(heavy, now), "the heavy source is still remembered");
}

#[test]
fn a_refusal_takes_no_place_in_the_table() {
    let mut throttle = RateLimiter::new(1, 1, 1, Loopback::Exempt);
    let now = Instant::now();
    assert!(throttle.admit(ip("192.0.2.1"), now));
    for _ in 0..10 {
        assert!(!throttle.admit(ip("192.0.2.1"), now));
    }
    let after = now + Duration::from_secs(1);
    assert!(throttle.admit(ip("192.0.2.1"), after), "refusals must not push the moment away");
}

proptest! {
    /// Against the definition: in no window may a source begin more than burst + rate × window.
    #[test]
    fn no_window_passes_more_than_burst_and_rate(
        burst in 1_u32..5,
        rate in 1_u32..20,
        calls in prop::collection::vec((0_u8..3, 0_u64..300), 1..200),
    ) {
        let mut throttle = RateLimiter::new(burst, rate, 8, Loopback::Limited);
        let start = Instant::now();
        let mut now = start;
        let mut passed: HashMap<u8, Vec<Instant>> = HashMap::new();
        for (source, wait) in calls {
            now += Duration::from_millis(wait);
            let address = IpAddr::from([192, 0, 2, source]);
            if throttle.admit(address, now) {
                passed.entry(source).or_default().push(now);
            }
            prop_assert!(throttle.len() <= 3);
        }
        for times in passed.values() {
            for (i, from) in times.iter().enumerate() {
                for (j, to) in times.iter().enumerate().skip(i) {
                    let window = to.duration_since(*from).as_secs_f64();
                    let max = f64::from(burst) + window * f64::from(rate) + 1e-6;
                    prop_assert!((j - i + 1) as f64 <= max);
                }
            }
        }
    }

    #[test]
    fn the_table_never_outgrows_its_size(
        capacity in 1_usize..8,
        calls in prop::collection::vec((any::<[u8; 4]>(), -50_i64..300), 1..200),
    ) {
        let mut throttle = RateLimiter::new(2, 3, capacity, Loopback::Exempt);
        let mut now = Instant::now() + Duration::from_secs(3600);
        for (address, wait) in calls {
            // Callers on several threads may tell times a little out of order.
            let step = Duration::from_millis(wait.unsigned_abs());
            now = if wait < 0 { now - step } else { now + step };
            throttle.admit(IpAddr::from(address), now);
            prop_assert!(throttle.len() <= capacity);
        }
    }
}
