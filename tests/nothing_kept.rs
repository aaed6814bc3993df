//! Peers that were dialled once and lost leave nothing behind: neither a slot nor memory.
//!
//! A third of 100,000 peers is dialled with success and ends its session, a third fails (half of them
//! refuse, half hang up instead of message 2), and of a third the caller goes away at one of the
//! awaits before commit. All dials run over in-memory streams with real handshakes, one after another
//! on one thread, so that the heap is the same in every run. Each peer has its own identity; the peers
//! that answer are pools of their own, which come and go too.
//!
//! The heap is what `dhat` counts. Tables of fixed size are made small, so that they are full by the
//! first measurement.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use noise_pool::error::DialError;
use noise_pool::snapshot::Snapshot;
use noise_pool::{Config, Identity, Pool, Role, Target};
use support::{soon, until};
use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const PEERS: u32 = 100_000;
/// How far the heap after 100,000 peers may be from that after 50,000, in bytes.
const DIFFERENCE: usize = 64 * 1024;

/// An identity that no other peer has. (X25519 ignores some bits of the first byte and of the last.)
fn identity(n: u32) -> Identity {
    let mut secret = [7; 32];
    secret[8..12].copy_from_slice(&n.to_le_bytes());
    Identity::from_secret(secret)
}

fn config() -> Config {
    Config::default().backoff_table(64).replay_table(64)
}

/// A session to a peer that then ends.
async fn success(pool: &Pool, n: u32) {
    let (peer, _inbox) = Pool::builder(identity(n)).config(config()).build().unwrap();
    let (near, far) = duplex(4_096);
    let answer = tokio::spawn({
        let peer = peer.clone();
        async move { peer.adopt(far, Role::Responder).await.map(drop) }
    });
    let lease = pool.get_or_dial_with(peer.id(), || async { io::Result::Ok(near) }).await.unwrap();
    answer.await.unwrap().unwrap();
    peer.close().await;
    lease.closed().await;
}

/// A dial that the peer refuses, or that it ends without an answer.
async fn failure(pool: &Pool, n: u32) {
    let refuses = n.is_multiple_of(2);
    let (near, mut far) = duplex(4_096);
    tokio::spawn(async move {
        let _ = far.read(&mut [0; 1_024]).await;
    });
    let open = move || async move {
        if refuses { Err(io::Error::from(io::ErrorKind::ConnectionRefused)) } else { Ok(near) }
    };
    let error = pool.get_or_dial_with(identity(n).peer_id(), open).await.unwrap_err();
    match error.cause() {
        DialError::Open { .. } => assert!(refuses),
        DialError::Handshake(_) => assert!(!refuses),
        other => panic!("{other:?}"),
    }
}

/// A dial whose only caller goes away: before it runs, while the stream opens, or while message 2 is
/// awaited.
async fn cancel(pool: &Pool, n: u32) {
    let (near, _far) = duplex(4_096);
    let never_opens = n.is_multiple_of(2);
    let open = move || async move {
        if never_opens {
            std::future::pending().await
        } else {
            io::Result::<DuplexStream>::Ok(near)
        }
    };
    let mut call = pin!(pool.get_or_dial_with(Target::new(identity(n).peer_id()), open));
    for _ in 0..1 + n % 4 {
        let polled = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
        assert!(polled.is_pending(), "{polled:?}");
        tokio::task::yield_now().await;
    }
}

fn at_rest(snapshot: &Snapshot) -> bool {
    let limits = &snapshot.limits;
    let held = [limits.sessions, limits.draining, limits.dials, limits.queued_dials];
    snapshot.sessions.is_empty()
        && snapshot.dials.is_empty()
        && held.iter().all(|limit| limit.held == 0)
}

async fn lose(pool: &Pool, peers: std::ops::Range<u32>) {
    for n in peers {
        let one = async {
            match n % 3 {
                0 => success(pool, n).await,
                1 => failure(pool, n).await,
                _ => cancel(pool, n).await,
            }
        };
        soon("a peer is lost", one).await;
    }
    until("the pool is at rest", || at_rest(&pool.snapshot())).await;
    assert!(format!("{pool:?}").contains("slots: 0,"), "the map is empty: {pool:?}");
}

#[tokio::test]
async fn a_hundred_thousand_peers_that_were_lost_leave_nothing() {
    let _profiler = dhat::Profiler::builder().testing().trim_backtraces(Some(4)).build();
    let (pool, _inbox) = Pool::builder(identity(u32::MAX)).config(config()).build().unwrap();
    lose(&pool, 0..PEERS / 2).await;
    let half = dhat::HeapStats::get();
    lose(&pool, PEERS / 2..PEERS).await;
    let all = dhat::HeapStats::get();
    assert!(all.curr_bytes.abs_diff(half.curr_bytes) <= DIFFERENCE, "{half:?}, then {all:?}");

    let stats = pool.stats();
    let failures = stats.dial_failures;
    assert_eq!(stats.dials, u64::from(PEERS));
    assert_eq!((stats.dials_succeeded, stats.opened, stats.closed), (33_334, 33_334, 33_334));
    assert_eq!(failures.connect + failures.no_answer, 33_333);
    assert_eq!(failures.cancelled, 33_333);
}
