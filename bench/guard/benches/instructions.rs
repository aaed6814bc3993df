//! Instructions of the hot paths, as recorded, and none of them may grow by more than a twentieth.
//!
//! Whoever makes one grow on purpose, or shrink, changes the recorded figure in the same commit.

mod recorded;

use std::hint::black_box;

use gungraun::prelude::*;
use noise_pool::Lease;
use noise_pool_guard::{End, Handshake, connected};
use recorded::recorded;

/// Checkouts of one session.
const HITS: usize = 1_000;
/// Small messages, and large ones.
const SMALL: (usize, usize) = (1_000, 16);
const LARGE: (usize, usize) = (64, 16 * 1024);

// The instructions of each bench.
const HIT: u64 = 264_078;
const SEND_SMALL: u64 = 963_464;
const SEND_LARGE: u64 = 33_954_442;
const RECEIVE_SMALL: u64 = 1_000_657;
const RECEIVE_LARGE: u64 = 33_114_795;
const HANDSHAKE: u64 = 5_917_274;

type Session = (End, End, Lease);

fn sent((messages, size): (usize, usize)) -> Session {
    let session = connected();
    session.0.send(&session.2, messages, size);
    session
}

fn two_ends() -> (End, End) {
    (End::new(1), End::new(2))
}

#[library_benchmark]
#[bench::thousand(args = (connected()), config = recorded(HIT))]
fn hit((a, b, lease): Session) -> Session {
    let peer = b.id();
    for _ in 0..HITS {
        drop(black_box(a.pool.get(black_box(&peer))));
    }
    (a, b, lease)
}

#[library_benchmark]
#[bench::thousand_of_16_bytes(args = (connected(), SMALL), config = recorded(SEND_SMALL))]
#[bench::sixty_four_of_16_kib(args = (connected(), LARGE), config = recorded(SEND_LARGE))]
fn send((a, b, lease): Session, (messages, size): (usize, usize)) -> Session {
    a.send(&lease, messages, size);
    (a, b, lease)
}

#[library_benchmark]
#[bench::thousand_of_16_bytes(args = (sent(SMALL), SMALL), config = recorded(RECEIVE_SMALL))]
#[bench::sixty_four_of_16_kib(args = (sent(LARGE), LARGE), config = recorded(RECEIVE_LARGE))]
fn receive((a, mut b, lease): Session, (messages, size): (usize, usize)) -> Session {
    assert_eq!(b.receive(messages), messages * size);
    (a, b, lease)
}

#[library_benchmark]
#[bench::one(args = (two_ends()), config = recorded(HANDSHAKE))]
fn handshake((a, b): (End, End)) -> Session {
    let (ours, theirs) = Handshake::begin(&a, &b).finish(&a, &b);
    drop(theirs);
    (a, b, ours)
}

library_benchmark_group!(name = paths, benchmarks = [hit, send, receive, handshake]);
main!(library_benchmark_groups = paths);
