//! Whole networks of routers in simulated time, over turmoil's network: partitions, crashes, storms.
//!
//! One seed is one run: the routers' randomness, clocks and hashers, the network's delays and all that
//! befalls it are drawn from it. `SIMULATION_SEEDS=200` runs that many seeds instead of the few of a
//! plain `cargo test`, `SIMULATION_SEEDS=17..18` one of them. A failure names its seed. From 200 seeds
//! on, every reason for the end of a session and every row of the tables of the simultaneous open must
//! have occurred, but for those that [`UNREACHABLE`] explains.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod book;
mod line;
mod router;
mod scenario;

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use scenario::Run;

/// Seeds of a plain `cargo test`.
const FEW: u64 = 12;
/// Seeds that together show everything.
const MANY: u64 = 200;

/// Every [`noise_pool::error::CloseReason`].
const REASONS: [&str; 19] = [
    "Idle",
    "Age",
    "Evicted",
    "Superseded",
    "Disconnected",
    "Discarded",
    "Drained",
    "PoolClosed",
    "Peer",
    "PeerDrains",
    "Truncated",
    "Io",
    "Protocol",
    "PingTimeout",
    "Stalled",
    "DrainTimeout",
    "Unhealthy",
    "DrainingFull",
    "Internal",
];

/// What no run shows, and why.
const UNREACHABLE: [(&str, &str); 2] = [
    ("PeerDrains", "says why a session that drains takes no more; at its end the goodbye is there"),
    ("Internal", "is a defect of the crate"),
];

#[test]
fn networks_heal_and_lose_nothing() {
    let seeds = seeds();
    let mut tally = BTreeMap::new();
    let (mut routers, mut messages) = (0, 0);
    for seed in seeds.clone() {
        let run = one(seed);
        routers += run.routers;
        messages += run.messages;
        count(&mut tally, &run);
    }
    println!("{} runs, {routers} routers, {messages} messages", seeds.end - seeds.start);
    for (what, times) in &tally {
        println!("{times:>8}  {what}");
    }
    assert!(messages > 0);
    if seeds.end - seeds.start >= MANY {
        let never: Vec<_> = tally.iter().filter(|(_, times)| **times == 0).collect();
        assert!(never.is_empty(), "never seen: {never:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 3] {
        assert_eq!(one(seed).hash, one(seed).hash, "seed {seed}");
    }
    assert_ne!(one(1).hash, one(2).hash);
}

fn one(seed: u64) -> Run {
    catch_unwind(AssertUnwindSafe(|| scenario::run(seed))).unwrap_or_else(|panic| {
        eprintln!("again: SIMULATION_SEEDS={seed}..{} cargo test --test simulation", seed + 1);
        resume_unwind(panic)
    })
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("SIMULATION_SEEDS") else { return 0..FEW };
    match text.split_once("..") {
        Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
        None => 0..text.parse().unwrap(),
    }
}

/// Adds up reasons and rows; what can occur and did not is there with a zero.
fn count(tally: &mut BTreeMap<String, u64>, run: &Run) {
    for reason in REASONS.iter().filter(|r| !UNREACHABLE.iter().any(|(name, _)| name == *r)) {
        tally.entry(format!("closed: {reason}")).or_default();
    }
    for (reason, times) in &run.reasons {
        assert!(
            REASONS.contains(&reason.as_str()),
            "a reason that this test does not know: {reason}"
        );
        *tally.entry(format!("closed: {reason}")).or_default() += times;
    }
    for stats in &run.stats {
        let (inbound, late) = (stats.inbound_rows, stats.late_accept_rows);
        for (row, times) in [
            ("inbound: absent", inbound.absent),
            ("inbound: uncommitted", inbound.uncommitted),
            ("inbound: committed_larger", inbound.committed_larger),
            ("inbound: committed_smaller", inbound.committed_smaller),
            ("inbound: superseding", inbound.superseding),
            ("inbound: duplicate", inbound.duplicate),
            ("late accept: absent", late.absent),
            ("late accept: marked", late.marked),
            ("late accept: uncommitted", late.uncommitted),
            ("late accept: committed", late.committed),
            ("late accept: superseding", late.superseding),
            ("late accept: duplicate", late.duplicate),
        ] {
            *tally.entry(row.to_owned()).or_default() += times;
        }
    }
}
