//! What a session counts.
//!
//! Owns the numbers that snapshots show. Only the driver writes them, so that plain stores are enough;
//! every task may read. It must never decide anything; `flush` and the judgement of idle time do, by
//! these numbers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Stands for "never".
const NEVER: u64 = u64::MAX;
/// Milliseconds over which a rate is measured.
const RATE_WINDOW: u64 = 1_000;
/// Milliseconds after which a rate that was not measured again counts as nothing.
const RATE_STALE: u64 = 5_000;

/// Times are in milliseconds since the pool's epoch.
#[derive(Debug)]
pub(super) struct SessionMetrics {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    messages_in: AtomicU64,
    messages_out: AtomicU64,
    expired: AtomicU64,
    /// Messages written and flushed, or expired: what has left the queue for good.
    done: AtomicU64,
    rate_in: AtomicU64,
    rate_out: AtomicU64,
    rated_at: AtomicU64,
    rated_in: AtomicU64,
    rated_out: AtomicU64,
    rekeys: AtomicU64,
    rtt_nanos: AtomicU64,
    last_pong: AtomicU64,
    last_data: AtomicU64,
}

/// What [`SessionMetrics::read`] gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct MetricsSample {
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) messages_in: u64,
    pub(super) messages_out: u64,
    pub(super) expired: u64,
    pub(super) rate_in: u64,
    pub(super) rate_out: u64,
    pub(super) rekeys: u64,
    pub(super) rtt: Option<Duration>,
    pub(super) last_ping: Option<Duration>,
}

/// Adds to a number that only one task writes.
fn add(number: &AtomicU64, by: u64) {
    number.store(number.load(Relaxed) + by, Relaxed);
}

impl SessionMetrics {
    pub(super) fn new(now: u64) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            bytes_in: zero(),
            bytes_out: zero(),
            messages_in: zero(),
            messages_out: zero(),
            expired: zero(),
            done: zero(),
            rate_in: zero(),
            rate_out: zero(),
            rated_at: AtomicU64::new(now),
            rated_in: zero(),
            rated_out: zero(),
            rekeys: zero(),
            rtt_nanos: AtomicU64::new(NEVER),
            last_pong: AtomicU64::new(NEVER),
            last_data: AtomicU64::new(now),
        }
    }

    pub(super) fn read_bytes(&self, count: usize) {
        add(&self.bytes_in, count as u64);
    }

    pub(super) fn wrote_bytes(&self, count: usize) {
        add(&self.bytes_out, count as u64);
    }

    pub(super) fn received(&self, messages: u64) {
        self.messages_in.store(messages, Relaxed);
    }

    /// Messages are written and flushed, or have expired.
    pub(super) fn finished(&self, written: u64, expired: u64) {
        add(&self.messages_out, written);
        add(&self.expired, expired);
        // Release: a waiter for a flush sees all that came before.
        let done = self.done.load(Relaxed) + written + expired;
        self.done.store(done, std::sync::atomic::Ordering::Release);
    }

    pub(super) fn done(&self) -> u64 {
        self.done.load(std::sync::atomic::Ordering::Acquire)
    }

    pub(super) fn expired(&self) -> u64 {
        self.expired.load(Relaxed)
    }

    pub(super) fn data(&self, now: u64) {
        self.last_data.store(now, Relaxed);
    }

    pub(super) fn last_data(&self) -> u64 {
        self.last_data.load(Relaxed)
    }

    pub(super) fn pong(&self, srtt: Duration, now: u64) {
        let nanos = u64::try_from(srtt.as_nanos()).unwrap_or(NEVER - 1);
        self.rtt_nanos.store(nanos, Relaxed);
        self.last_pong.store(now, Relaxed);
    }

    pub(super) fn rekeys(&self, count: u64) {
        self.rekeys.store(count, Relaxed);
    }

    /// Measures the rates, at most once per window; called when there is traffic.
    pub(super) fn rate(&self, now: u64) {
        let passed = now.saturating_sub(self.rated_at.load(Relaxed));
        if passed < RATE_WINDOW {
            return;
        }
        for (bytes, rated, rate) in [
            (&self.bytes_in, &self.rated_in, &self.rate_in),
            (&self.bytes_out, &self.rated_out, &self.rate_out),
        ] {
            let bytes = bytes.load(Relaxed);
            let of_window = bytes.saturating_sub(rated.load(Relaxed));
            rate.store(of_window.saturating_mul(1_000) / passed, Relaxed);
            rated.store(bytes, Relaxed);
        }
        self.rated_at.store(now, Relaxed);
    }

    pub(super) fn read(&self, now: u64) -> MetricsSample {
        let fresh = now.saturating_sub(self.rated_at.load(Relaxed)) < RATE_STALE;
        let rate = |rate: &AtomicU64| if fresh { rate.load(Relaxed) } else { 0 };
        let known = |number: &AtomicU64| Some(number.load(Relaxed)).filter(|&n| n != NEVER);
        MetricsSample {
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            messages_in: self.messages_in.load(Relaxed),
            messages_out: self.messages_out.load(Relaxed),
            expired: self.expired(),
            rate_in: rate(&self.rate_in),
            rate_out: rate(&self.rate_out),
            rekeys: self.rekeys.load(Relaxed),
            rtt: known(&self.rtt_nanos).map(Duration::from_nanos),
            last_ping: known(&self.last_pong)
                .map(|at| Duration::from_millis(now.saturating_sub(at))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_window_and_goes_stale() {
        let metrics = SessionMetrics::new(0);
        metrics.read_bytes(5_000);
        metrics.rate(500);
        assert_eq!(metrics.read(500).rate_in, 0);
        metrics.rate(1_000);
        assert_eq!(metrics.read(1_000).rate_in, 5_000);
        assert_eq!(metrics.read(1_000 + RATE_STALE).rate_in, 0);
    }
}
