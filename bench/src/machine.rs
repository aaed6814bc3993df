//! What the machine's memory is like at the moment.
//!
//! A virtual machine shares the last cache with neighbours, who leave it more of that or less within
//! minutes; whatever touches much memory is then faster or slower. Printed before every group, for
//! whoever compares two runs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::pools::shuffled;

/// Places that a chase goes through, a line of memory each: 8 MiB.
const PLACES: usize = 1 << 17;
const LINE: usize = 64 / size_of::<usize>();

/// How long a load from 8 MiB takes, each from where the one before has led.
pub fn load() -> Duration {
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
