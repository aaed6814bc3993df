//! Several hundred strangers of all kinds at the door of one pool: nobody is answered, each is counted
//! once, each is ended in time, and all together cost no more memory than the configuration says.
//!
//! The same against a pool that serves others at full rate: `tests/abuse/`, `.ci/run --only abuse`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "abuse/stranger.rs"]
mod stranger;
mod support;

use std::time::Duration;

use noise_pool::Config;
use stranger::{Crowd, Kind, Stay, Tally, counted};
use support::{Node, until};

#[global_allocator]
static HEAP: dhat::Alloc = dhat::Alloc;

const STRANGERS: usize = 700;
const PENDING: usize = 24;
const DISCARDING: usize = 12;
/// More than come with a message 1 of their own: a full table would let a repeated one through.
const REMEMBERED: usize = 128;
const TIMEOUT: Duration = Duration::from_secs(1);

/// Connections that a listener may take in one turn of its task, which is tokio's budget: whom they
/// shed ends when its own task has its turn.
const TURN: usize = 128;

/// What the pool may keep when all of them are gone, in bytes: the table of message 1s.
const KEPT: usize = REMEMBERED * 256;

/// What it may take while they are there: a pending handshake is its task, its timers, a small buffer,
/// and Noise's state once message 1 has verified.
const MAX: usize = PENDING * (8 << 10) + (DISCARDING + TURN) * (2 << 10) + KEPT;

fn config() -> Config {
    Config::default()
        .max_pending_handshakes(PENDING)
        .max_discarding(DISCARDING)
        .replay_table(REMEMBERED)
        .message1_timeout(TIMEOUT / 2)
        .handshake_timeout(TIMEOUT)
}

/// The strangers' own thread takes no memory while they are there: what grows is the pool's.
async fn visit(mut crowd: Crowd) -> (Crowd, Tally) {
    let visiting = move || {
        // Each has its handshake's time, and the same again while it is only read.
        let tally = crowd.visit(TIMEOUT, Stay::UntilEnded(4 * TIMEOUT));
        (crowd, tally)
    };
    tokio::task::spawn_blocking(visiting).await.unwrap()
}

#[tokio::test]
async fn strangers_cost_what_is_configured_and_each_is_counted_once() {
    let node = Node::start(config()).await;
    let (peer, address) = (node.id(), node.address);
    let gathering = move || Crowd::gather(peer, address, Vec::new());
    let mut crowd = tokio::task::spawn_blocking(gathering).await.unwrap();

    // The first show what the runtime keeps for ever, and are not measured.
    crowd.prepare(STRANGERS / 10);
    let (mut crowd, mut tally) = visit(crowd).await;
    crowd.prepare(STRANGERS);
    let profiler = dhat::Profiler::builder().testing().build();
    let (_crowd, many) = visit(crowd).await;
    until("nobody is left", || {
        let limits = node.pool.snapshot().limits;
        limits.pending_handshakes.held + limits.discarding.held == 0
    })
    .await;
    let heap = dhat::HeapStats::get();
    drop(profiler);
    tally += many;

    tally.check_silence();
    assert!(heap.max_bytes <= MAX, "{heap:?}, {MAX} at once");
    assert!(heap.curr_bytes <= KEPT, "{heap:?}, {KEPT} for ever");
    assert_eq!(tally.connected(), (STRANGERS + STRANGERS / 10) as u64);
    let answered = tally.0[Kind::HalfHandshake as usize].answered;
    assert!(answered > 0, "who knows the pool's key is answered: {tally:?}");

    let limits = node.pool.snapshot().limits;
    for (what, limit, max) in [
        ("pending", limits.pending_handshakes, PENDING),
        ("discarding", limits.discarding, DISCARDING),
    ] {
        assert_eq!((limit.high_water, limit.limit), (max as u64, max as u64), "{what}");
    }
    let stats = node.pool.stats();
    assert_eq!(counted(&stats), tally.connected() + Crowd::GATHERING, "{stats:?}");
}
