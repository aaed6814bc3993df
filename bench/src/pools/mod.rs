//! Pools that a router would otherwise use, set up as their own documentation advises, and the limit:
//! a concurrent map of `Arc`s.
//!
//! What they pool is a number, and a checkout is checked by it. Every pool gets what makes it fast:
//! one connection per key, no limit met, no time-out armed that it does not arm by itself.

pub mod generic;
pub mod hyper;
pub mod limit;
pub mod pingora;

use std::time::Duration;

use noise_pool::PeerId;
use tokio::runtime::Runtime;

use crate::harness::Case;
use crate::process::thread_time;

/// What the pools pool: it knows its number.
#[derive(Debug)]
pub struct Connection(pub u64);

/// Keys, and an order in which to ask for them that no cache can guess.
pub struct Keys<'a> {
    pub peers: &'a [PeerId],
    pub order: &'a [usize],
}

/// `0..count`, shuffled, the same in every run.
pub fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..count).rev() {
        // xorshift64: good enough to have no pattern.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(last, (state % (last as u64 + 1)) as usize);
    }
    order
}

/// A checkout and its return; `one` takes the key's place and gives back what its connection says
/// its place is.
pub fn case<'a>(
    name: &str,
    order: &'a [usize],
    mut one: impl FnMut(usize) -> u64 + 'a,
) -> Case<'a> {
    Case::new(name, move |units| {
        let began = thread_time();
        let mut wrong = 0;
        for &at in order.iter().cycle().take(units as usize) {
            wrong |= one(at) ^ at as u64;
        }
        checked(began, wrong)
    })
}

/// As [`case`], for a pool whose checkout is a future.
pub fn waiting_case<'a>(
    name: &str,
    runtime: &'a Runtime,
    order: &'a [usize],
    mut one: impl AsyncFnMut(usize) -> u64 + 'a,
) -> Case<'a> {
    Case::new(name, move |units| {
        runtime.block_on(async {
            let began = thread_time();
            let mut wrong = 0;
            for &at in order.iter().cycle().take(units as usize) {
                wrong |= one(at).await ^ at as u64;
            }
            checked(began, wrong)
        })
    })
}

fn checked(began: Duration, wrong: u64) -> Duration {
    let time = thread_time() - began;
    assert_eq!(wrong, 0, "a checkout gave another peer's connection");
    time
}
