//! The same over TCP on 127.0.0.1: what a dropped dial leaves of its sockets, and what an ended pool
//! leaves of its listener.
//!
//! The system's sockets are not moved by paused time. Nothing here waits for a time to pass: the other
//! side's limits are so wide that only the close of a socket can end what it holds.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use noise_pool::io::BoxFuture;
use noise_pool::{Config, Role, Target};
use tokio::net::{TcpListener, TcpStream};

use super::support::{Node, alive_tasks, at_rest, soon, until};
use super::turn;

/// Longer than a test may take: whatever ends sooner was ended by the other side.
const NEVER: Duration = Duration::from_secs(3600);

fn config() -> Config {
    Config::default().message1_timeout(NEVER).handshake_timeout(NEVER)
}

/// What a test drops: a dial of the first node to the second.
type Dial = for<'a> fn(&'a Node, &'a Node) -> BoxFuture<'a, ()>;

/// Drops the dial after ever more turns, until it ends before it is dropped.
async fn at_every_turn(dial: Dial) {
    let tasks = alive_tasks();
    let mut turns = 0;
    loop {
        let (mut a, mut b) = (Node::start(config()).await, Node::start(config()).await);
        let done = {
            let mut future = dial(&a, &b);
            let mut done = false;
            for _ in 0..turns {
                done = futures_util::poll!(&mut future).is_ready();
                if done {
                    break;
                }
                turn().await;
            }
            done
        };
        leaves_nothing(&mut a, &mut b).await;
        soon("A closes", a.pool.close()).await;
        soon("B closes", b.pool.close()).await;
        drop((a, b));
        until("no task is left", || alive_tasks() == tasks).await;
        if done {
            break;
        }
        // How many turns a dial takes is the system's affair: every one of the first, then fewer.
        turns += 1 + turns / 16;
    }
    assert!(turns > 10, "{turns} turns are too few");
}

/// Neither side holds a connection besides that of a session, and the next call works.
async fn leaves_nothing(a: &mut Node, b: &mut Node) {
    at_rest(&a.pool).await;
    until("B has seen the end of what was dropped", || {
        let limits = b.pool.snapshot().limits;
        limits.pending_handshakes.held + limits.discarding.held == 0
    })
    .await;
    at_rest(&b.pool).await;
    let same = |x: &Node, y: &Node| x.pool.contains(&y.id()) == y.pool.contains(&x.id());
    until("both know of a session, or neither", || same(a, b)).await;

    let message = Bytes::from_static(b"fresh");
    soon("a fresh session", a.pool.send(b.target(), message.clone())).await.unwrap();
    assert_eq!(soon("the message", b.inbox.recv()).await.unwrap().body, message);
    assert_eq!((a.pool.peers(), b.pool.peers()), (vec![b.id()], vec![a.id()]));
}

#[tokio::test]
async fn a_dial_over_tcp_leaves_no_socket() {
    let dial: Dial = |a, b| Box::pin(async { drop(a.pool.get_or_dial(b.target()).await.unwrap()) });
    tokio::spawn(at_every_turn(dial)).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_is_adopted_over_tcp_leaves_no_socket() {
    let dial: Dial = |a, b| {
        Box::pin(async {
            let stream = TcpStream::connect(b.address).await.unwrap();
            drop(a.pool.adopt(stream, Role::Initiator { peer: b.id() }).await.unwrap());
        })
    };
    tokio::spawn(at_every_turn(dial)).await.unwrap();
}

#[tokio::test]
async fn an_exclusive_dial_over_tcp_leaves_no_socket() {
    let dial: Dial =
        |a, b| Box::pin(async { drop(a.pool.get_exclusive(b.target()).await.unwrap()) });
    tokio::spawn(at_every_turn(dial)).await.unwrap();
}

/// A pool with a session, a stranger at its door, and a lease that outlives it.
async fn in_use() -> (Node, Node, TcpStream, noise_pool::Lease) {
    let (a, b) = (Node::start(config()).await, Node::start(config()).await);
    let lease = soon("a session", b.pool.get_or_dial(a.target())).await.unwrap();
    let back = soon("a lease", a.pool.get_or_dial(Target::new(b.id()))).await.unwrap();
    drop(lease);
    let stranger = soon("a stranger", TcpStream::connect(a.address)).await.unwrap();
    until("it is at the door", || a.pool.snapshot().limits.pending_handshakes.held == 1).await;
    (a, b, stranger, back)
}

/// Whether the address is free for another listener.
async fn free(address: SocketAddr) -> bool {
    TcpListener::bind(address).await.is_ok()
}

#[tokio::test]
async fn the_address_of_a_pool_that_is_dropped_may_be_bound_again() {
    let (a, _b, _stranger, _lease) = in_use().await;
    let address = a.address;
    assert!(!free(address).await);
    drop(a);
    // Its task is told, and not waited for.
    let freed = async {
        while !free(address).await {
            tokio::task::yield_now().await;
        }
    };
    soon("the address", freed).await;
}

#[tokio::test]
async fn the_address_of_a_pool_that_has_ended_is_free_at_once() {
    let (a, _b, _stranger, _lease) = in_use().await;
    soon("the close", a.pool.close()).await;
    assert!(free(a.address).await, "closed");

    let (a, _b, _stranger, lease) = in_use().await;
    drop(lease);
    soon("the drain", a.pool.drain(NEVER)).await;
    assert!(free(a.address).await, "drained");

    // A drain that is dropped goes on, and has stopped accepting.
    let (a, _b, _stranger, _lease) = in_use().await;
    assert!(futures_util::poll!(Box::pin(a.pool.drain(NEVER))).is_pending());
    let freed = async {
        while !free(a.address).await {
            tokio::task::yield_now().await;
        }
    };
    soon("the address", freed).await;
}
