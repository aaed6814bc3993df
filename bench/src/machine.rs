//! What the machine is like at the moment, beyond the speed of its cores.
//!
//! A virtual machine shares the last cache with neighbours, who leave it more of that or less; and
//! its host moves virtual cores among real ones, which have that cache in common or do not. Both
//! change within minutes, and whatever is more than arithmetic is then faster or slower. Printed
//! before every group, for whoever compares two runs.

use std::fmt;
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::pools::shuffled;

/// Places that a chase goes through, a line of memory each: 8 MiB.
const PLACES: usize = 1 << 17;
const LINE: usize = 64 / size_of::<usize>();
const ROUND_TRIPS: u32 = 20_000;

/// Two latencies.
pub struct Machine {
    /// Of a load from 8 MiB, in which each depends on the one before.
    load: Duration,
    /// Of a word that one core writes and another answers; `None` where there is but one, or
    /// no thread may be bound to one.
    round_trip: Option<Duration>,
}

impl Machine {
    pub fn now() -> Self {
        Self { load: Chase::new().load(), round_trip: round_trip() }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a load from 8 MiB takes {:.0?}", self.load)?;
        match self.round_trip {
            Some(time) => write!(f, ", a line to the other core and back {time:.0?}"),
            None => Ok(()),
        }
    }
}

/// A way through 8 MiB.
pub struct Chase(Vec<usize>);

impl Chase {
    pub fn new() -> Self {
        let order = shuffled((0..PLACES).collect());
        let mut next = vec![0; PLACES * LINE];
        for (from, to) in order.iter().zip(order.iter().cycle().skip(1)) {
            next[from * LINE] = to * LINE;
        }
        Self(next)
    }

    /// How long a load takes, each from where the one before has led.
    pub fn load(&self) -> Duration {
        let chase = |steps| (0..steps).fold(0, |at, _| self.0[at]);
        black_box(chase(PLACES));
        let began = Instant::now();
        black_box(chase(4 * PLACES));
        began.elapsed() / (4 * PLACES as u32)
    }
}

/// How long a line of memory takes to the other core and back; `None` where there is but one, or
/// no thread may be bound to one.
///
/// The median of some. The two threads are bound to a core each: the scheduler would leave both on
/// one for its first slices of time, and that would be all that is seen.
pub fn round_trip() -> Option<Duration> {
    let allowed = sched_getaffinity(None).ok()?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    let (here, there) = (cores.next()?, cores.next()?);
    // Asked before anybody waits for an answer: two that share a core would wait for most of a minute.
    let bound = |core| thread::scope(|scope| scope.spawn(move || bind(core)).join());
    if ![here, there].into_iter().all(|core| bound(core).is_ok_and(|bound| bound)) {
        return None;
    }
    let mut samples: Vec<_> = (0..15).map(|_| round_trips(here, there) / ROUND_TRIPS).collect();
    samples.sort();
    Some(samples[samples.len() / 2])
}

/// Keeps this thread on one core. Whether the system allows it.
fn bind(core: usize) -> bool {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).is_ok()
}

fn round_trips(here: usize, there: usize) -> Duration {
    let word = AtomicU64::new(0);
    let awaited = |value| {
        while word.load(Ordering::Acquire) != value {
            spin_loop();
        }
    };
    let turns = || (0..u64::from(ROUND_TRIPS)).map(|turn| (2 * turn + 1, 2 * turn + 2));
    thread::scope(|scope| {
        scope.spawn(|| {
            bind(there);
            turns().for_each(|(there, back)| {
                awaited(there);
                word.store(back, Ordering::Release);
            });
        });
        let asking = scope.spawn(|| {
            bind(here);
            let began = Instant::now();
            turns().for_each(|(there, back)| {
                word.store(there, Ordering::Release);
                awaited(back);
            });
            began.elapsed()
        });
        asking.join().expect("it only counts")
    })
}
