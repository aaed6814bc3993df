//! Instructions of a hit by `get_or_dial`. A program of its own: beside `get`, which it shares code with,
//! either would be put together in another way than alone.

mod recorded;

use std::future::Future as _;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use gungraun::prelude::*;
use noise_pool::Lease;
use noise_pool_guard::{End, connected};
use recorded::recorded;

/// Checkouts of one session.
const HITS: usize = 1_000;

/// The instructions of the bench.
const HIT: u64 = 294_080;

type Session = (End, End, Lease);

// Each future is ready when it is polled first.
#[library_benchmark]
#[bench::thousand(args = (connected()), config = recorded(HIT))]
fn hit((a, b, lease): Session) -> Session {
    let peer = b.id();
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..HITS {
        let call = pin!(a.pool.get_or_dial(black_box(peer)));
        let Poll::Ready(lease) = call.poll(&mut context) else { panic!("a hit does not wait") };
        drop(black_box(lease.expect("the session lives")));
    }
    (a, b, lease)
}

library_benchmark_group!(name = paths, benchmarks = [hit]);
main!(library_benchmark_groups = paths);
