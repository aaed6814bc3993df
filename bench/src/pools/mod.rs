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

use tokio::runtime::Runtime;

use crate::harness::Case;
use crate::process::thread_time;

/// What the pools pool: it knows its number.
#[derive(Debug)]
pub struct Connection(pub u64);

/// `items` in an order without pattern, the same in every run: a router's next peer is nobody's
/// neighbour in memory, though its name has just arrived and is at hand.
pub fn shuffled<T>(mut items: Vec<T>) -> Vec<T> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..items.len()).rev() {
        // xorshift64: good enough to have no pattern.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        items.swap(last, (state % (last as u64 + 1)) as usize);
    }
    items
}

/// A checkout and its return, of one key of `keys` after the other; `one` takes the key's place and
/// gives back what its connection says its place is.
pub fn case<'a>(name: &str, keys: usize, mut one: impl FnMut(usize) -> u64 + 'a) -> Case<'a> {
    Case::new(name, move |units| {
        let began = thread_time();
        let mut wrong = 0;
        for at in (0..keys).cycle().take(units as usize) {
            wrong |= one(at) ^ at as u64;
        }
        checked(began, wrong)
    })
}

/// As [`case`], for a pool whose checkout is a future.
pub fn waiting_case<'a>(
    name: &str,
    runtime: &'a Runtime,
    keys: usize,
    mut one: impl AsyncFnMut(usize) -> u64 + 'a,
) -> Case<'a> {
    Case::new(name, move |units| {
        runtime.block_on(async {
            let began = thread_time();
            let mut wrong = 0;
            for at in (0..keys).cycle().take(units as usize) {
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
