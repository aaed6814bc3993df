//! Two pools whose every instruction is the same in every run.
//!
//! Owns what makes them so: keys, hasher seed, randomness and clocks are fixed, and each pool has a
//! runtime of its own, of one thread, so that one end can be counted while the other stands still.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use noise_pool::config::{Entropy, WallClock};
use noise_pool::{Config, Identity, Inbox, Lease, PeerId, Pool, Role};
use tokio::io::{DuplexStream, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, yield_now};

/// Bytes that a stream between two ends holds; what one bench sends fits in.
const BETWEEN: usize = 4 << 20;
/// More turns than anything here needs until it is at rest.
const TURNS: usize = 64;

/// One pool and the runtime that it lives in.
pub struct End {
    runtime: Runtime,
    pub pool: Pool,
    pub inbox: Inbox,
}

impl End {
    /// The end number `n`; its key follows from that.
    pub fn new(n: u8) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            // No timer may fire because counting is slow.
            .start_paused(true)
            .build()
            .expect("a runtime of one thread needs nothing");
        let config = Config::default()
            .entropy(Counted(AtomicU64::new(u64::from(n) << 32)))
            .hasher_seed(7)
            .wall_clock(Noon);
        let (pool, inbox) = {
            let _entered = runtime.enter();
            Pool::builder(identity(n)).config(config).build().expect("the defaults are in range")
        };
        Self { runtime, pool, inbox }
    }

    pub fn id(&self) -> PeerId {
        self.pool.id()
    }

    /// Runs what does not wait for the other end.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Runs the pool's own tasks until they have nothing to do.
    pub fn turn(&self) {
        self.run(async {
            for _ in 0..TURNS {
                yield_now().await;
            }
        });
    }

    /// Sends messages of `size` bytes, until they have left for the other end.
    pub fn send(&self, lease: &Lease, messages: usize, size: usize) {
        let body = Bytes::from(vec![7; size]);
        self.run(async {
            for _ in 0..messages {
                lease.send(body.clone()).await.expect("the session lives");
            }
        });
        self.turn();
    }

    /// Takes messages that have come, and says how many bytes they were.
    pub fn receive(&mut self, messages: usize) -> usize {
        let Self { runtime, inbox, .. } = self;
        runtime.block_on(async {
            let mut bytes = 0;
            for _ in 0..messages {
                bytes += inbox.recv().await.expect("the pool lives").body.len();
            }
            bytes
        })
    }
}

/// A session that is being made: the dial at one end, the accept at the other.
pub struct Handshake {
    dial: JoinHandle<Lease>,
    accept: JoinHandle<Lease>,
}

impl Handshake {
    /// Begins it; nothing has run yet.
    pub fn begin(a: &End, b: &End) -> Self {
        let (near, far): (DuplexStream, DuplexStream) = duplex(BETWEEN);
        let (dialler, responder, peer) = (a.pool.clone(), b.pool.clone(), b.id());
        let dial = a.runtime.spawn(async move {
            let open = move || async move { Ok(near) };
            dialler.get_or_dial_with(peer, open).await.expect("nothing is in the way")
        });
        let accept = b.runtime.spawn(async move {
            responder.adopt(far, Role::Responder).await.expect("nothing is in the way")
        });
        Self { dial, accept }
    }

    /// Lets the ends take turns until both have the session.
    pub fn finish(self, a: &End, b: &End) -> (Lease, Lease) {
        while !(self.dial.is_finished() && self.accept.is_finished()) {
            a.turn();
            b.turn();
        }
        let ours = a.run(self.dial).expect("the task does not panic");
        (ours, b.run(self.accept).expect("the task does not panic"))
    }
}

/// Two ends with a session, and the lease of the first.
pub fn connected() -> (End, End, Lease) {
    let (a, b) = (End::new(1), End::new(2));
    let (lease, _) = Handshake::begin(&a, &b).finish(&a, &b);
    (a, b, lease)
}

fn identity(n: u8) -> Identity {
    Identity::from_secret([n; 32])
}

/// Draws that differ and are the same in every run.
struct Counted(AtomicU64);

impl Entropy for Counted {
    fn fill(&self, dest: &mut [u8]) {
        for chunk in dest.chunks_mut(8) {
            let mixed = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            chunk.copy_from_slice(&mixed.to_le_bytes()[..chunk.len()]);
        }
    }
}

struct Noon;

impl WallClock for Noon {
    fn unix_seconds(&self) -> u64 {
        Duration::from_hours(12).as_secs()
    }
}
