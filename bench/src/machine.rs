//! What the machine's memory is like at the moment.
//!
//! Under a hypervisor neighbours use the same last cache, and virtual cores move among those of the
//! processor, so that both change within minutes, and with them whatever is more than arithmetic.
//! Printed before every group, for whoever compares two runs.

use std::fmt;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::pools::shuffled;

/// Places that a chase goes through, a line of memory each: 8 MiB.
const PLACES: usize = 1 << 17;
const LINE: usize = 64 / size_of::<usize>();
const ROUND_TRIPS: u32 = 20_000;

/// Two latencies.
pub struct Machine {
    /// Of a load from 8 MiB, in which each depends on the one before.
    load: Duration,
    /// Of a word that one core writes, another answers, and the first sees.
    round_trip: Duration,
}

impl Machine {
    pub fn now() -> Self {
        Self { load: load(), round_trip: round_trip() }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { load, round_trip } = self;
        write!(f, "a load from 8 MiB takes {load:.0?}, from core to core and back {round_trip:.0?}")
    }
}

fn load() -> Duration {
    let order = shuffled((0..PLACES).collect());
    let mut next = vec![0; PLACES * LINE];
    for (from, to) in order.iter().zip(order.iter().cycle().skip(1)) {
        next[from * LINE] = to * LINE;
    }
    let chase = |steps| (0..steps).fold(0, |at, _| next[at]);
    black_box(chase(PLACES));
    let began = Instant::now();
    black_box(chase(4 * PLACES));
    began.elapsed() / (4 * PLACES as u32)
}

/// The median of some: each sits between two moves of a core.
fn round_trip() -> Duration {
    let mut samples: Vec<Duration> = (0..15).map(|_| round_trips() / ROUND_TRIPS).collect();
    samples.sort();
    samples[samples.len() / 2]
}

fn round_trips() -> Duration {
    let word = AtomicU64::new(0);
    let awaited = |value| while word.load(Ordering::Acquire) != value {};
    let turns = || (0..u64::from(ROUND_TRIPS)).map(|turn| (2 * turn + 1, 2 * turn + 2));
    thread::scope(|scope| {
        scope.spawn(|| {
            turns().for_each(|(there, back)| {
                awaited(there);
                word.store(back, Ordering::Release);
            });
        });
        let began = Instant::now();
        turns().for_each(|(there, back)| {
            word.store(there, Ordering::Release);
            awaited(back);
        });
        began.elapsed()
    })
}
