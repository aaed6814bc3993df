//! What the pool's process takes, and what the configuration lets strangers add to it.

use noise_pool::Config;
use serde_json::Value;

use super::honest::PEERS;

/// A handshake that is pending, at its largest: message 3 with the longest application payload, the
/// copy of it, and the state of Noise; then its task and timers.
const PENDING: u64 = 2 * (17 << 10) + (4 << 10);

/// A connection that is only read and discarded: its task, its timer and its buffer.
const DISCARDING: u64 = 2 << 10;

/// A message 1 that is remembered, in two maps that are at worst half full.
const REMEMBERED: u64 = 256;

/// A source that is remembered, likewise.
const SOURCE: u64 = 256;

/// How many bytes more the pool may take when strangers come, however many they are, and when what the
/// honest peers have in the inbox goes from nothing to the most. What strangers cost alone is measured
/// in `tests/many_strangers.rs`.
pub(crate) fn bound(config: &Config) -> u64 {
    let fields = serde_json::to_value(config).expect("a configuration can be written");
    let number = |name: &str| fields.get(name).and_then(Value::as_u64).expect("a number");
    number("max_pending_handshakes") * PENDING
        + number("max_discarding") * DISCARDING
        + number("replay_table") * REMEMBERED
        + number("source_table") * SOURCE
        + number("max_undelivered") * u64::from(PEERS)
}

/// Memory that this process has to itself, in bytes, as Linux tells it.
pub(crate) fn taken() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it is Linux");
    let line =
        status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a field of it");
    let kib = line.trim().strip_suffix(" kB").expect("its unit").parse::<u64>();
    kib.expect("a number") << 10
}
