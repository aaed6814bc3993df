//! Ten thousand strangers against a pool that serves eight honest peers at full rate.
//!
//! `.ci/run --only abuse` builds it optimised and runs it; plain `cargo test` does not. It needs Linux,
//! whose `/proc` tells memory and processor time, and whose loopback has more than one address.
//!
//! Three processes: the pool, its honest peers, and the strangers. Rounds without strangers and rounds
//! with them are neighbours in pairs, first the one and then the other in turn, and each pair gives one
//! ratio of the messages that honest peers had delivered; the median counts. So what else the machine
//! does meanwhile weighs on both sides alike.
//!
//! What the strangers' process takes of the processors is not taken out: the ratio has it as if the
//! pool had spent it, and is lower by it than the pool's true one. Therefore they are cheap: one
//! thread, and all that they say is computed between the rounds. What they used is printed.
//!
//! Twice: `exempt` is the pool as it is configured by default. No limit by source applies to loopback,
//! so that this is an attack from as many addresses as it has connections. `limited` has
//! `limit_loopback`, and ten addresses that come with all strangers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod honest;
mod judge;
mod memory;
mod other;
mod stranger;
#[path = "../support/mod.rs"]
mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use noise_pool::config::Loopback;
use noise_pool::{Config, Identity, PeerId, Pool};
use tokio::time::{Instant, sleep};

use judge::{Round, Variant};
use other::Other;
use stranger::{Crowd, Stay, Tally};

/// Strangers in each variant.
const STRANGERS: usize = 10_000;

/// How long a round is measured.
const ROUND: Duration = Duration::from_millis(3_500);

/// Between two rounds: what the last left behind has passed.
const PAUSE: Duration = Duration::from_millis(300);

/// A stranger has its handshake's time, may be read for as long again, and a moment.
const STRANGERS_END: Duration = Duration::from_secs(22);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["strangers", peer, target, sources] => {
            strangers(peer.parse().unwrap(), target.parse().unwrap(), sources.parse().unwrap());
        }
        ["honest", peer, target] => {
            runtime().block_on(honest::run(peer.parse().unwrap(), target.parse().unwrap()));
        }
        _ => runtime().block_on(run()),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn run() {
    let exempt = measure("exempt", Config::default(), 0, 5).await;
    exempt.report();
    let limited = Config::default().limit_loopback(Loopback::Limited);
    let limited = measure("limited", limited, 10, 4).await;
    limited.report();
    exempt.check();
    limited.check();
}

/// One pool with its peers and its strangers, in `pairs` of rounds. The strangers come from so many
/// `sources`; none: from one that is not limited.
async fn measure(name: &'static str, config: Config, sources: u8, pairs: usize) -> Variant {
    let bound = memory::bound(&config);
    let (pool, mut inbox) = Pool::builder(Identity::generate()).config(config).build().unwrap();
    let target = pool.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let delivered = Arc::new(AtomicU64::new(0));
    let count = delivered.clone();
    let reading = tokio::spawn(async move {
        let mut messages = Vec::new();
        while inbox.recv_many(&mut messages, 256).await > 0 {
            count.fetch_add(messages.len() as u64, Ordering::Relaxed);
            messages.clear();
        }
    });
    let (peer, at) = (pool.id().to_string(), target.to_string());
    let mut run = Run {
        honest: Other::start(&["honest", &peer, &at]),
        strangers: Other::start(&["strangers", &peer, &at, &sources.to_string()]),
        delivered,
    };
    while pool.stats().messages_in < 100_000 {
        sleep(PAUSE).await;
    }

    let mut variant = Variant::new(name, bound);
    for pair in 0..pairs {
        let (strangers, last) = (STRANGERS / pairs, pair + 1 == pairs);
        let order = if pair % 2 == 0 { [0, strangers] } else { [strangers, 0] };
        for strangers in order {
            let stay = last && sources == 0;
            variant.rounds.push(run.round(strangers, stay, &mut variant.tally).await);
            sleep(PAUSE).await;
        }
    }
    drop(run);
    let nobody = || {
        let limits = pool.snapshot().limits;
        limits.pending_handshakes.held + limits.discarding.held == 0
    };
    let waiting = Instant::now();
    while !nobody() {
        assert!(waiting.elapsed() < STRANGERS_END, "the pool keeps strangers that are gone");
        sleep(PAUSE).await;
    }
    (variant.stats, variant.limits) = (pool.stats(), pool.snapshot().limits);
    pool.close().await;
    reading.await.unwrap();
    variant
}

/// What all rounds of a variant share.
struct Run {
    honest: Other,
    strangers: Other,
    delivered: Arc<AtomicU64>,
}

impl Run {
    async fn round(&mut self, strangers: usize, stay: bool, tally: &mut Tally) -> Round {
        if strangers > 0 {
            self.strangers.tell(&format!("prepare {strangers}")).await;
            assert_eq!(self.strangers.hear().await, "ready");
        }
        let used = [self.honest.used(), self.strangers.used(), other::processor_time("self")];
        let (began, before) = (Instant::now(), self.delivered.load(Ordering::Relaxed));
        let over = ROUND.as_millis();
        self.honest.tell(&over.to_string()).await;
        if strangers > 0 {
            self.strangers.tell(&format!("visit {over} {}", u8::from(stay))).await;
        }
        let mut memory = 0;
        while began.elapsed() < ROUND {
            memory = memory.max(memory::taken());
            sleep(Duration::from_millis(50)).await;
        }
        let messages = self.delivered.load(Ordering::Relaxed) - before;
        let rate = messages as f64 / began.elapsed().as_secs_f64();
        let after = [self.honest.used(), self.strangers.used(), other::processor_time("self")];
        let dials = self.honest.hear().await.parse().unwrap();
        if strangers > 0 {
            *tally += self.strangers.hear().await.parse().unwrap();
        }
        let used = std::array::from_fn(|n| after[n] - used[n]);
        Round { abused: strangers > 0, rate, dials, memory, used }
    }
}

/// The strangers' process. `prepare N` on its standard input makes it ready for so many, who come by
/// `visit MILLISECONDS STAY`; STAY is 1 if they stay until the pool has ended them. The answers are
/// `ready`, and what became of them.
fn strangers(peer: PeerId, target: SocketAddr, sources: u8) {
    let sources = (0..sources).map(|n| Ipv4Addr::new(127, 0, 0, 2 + n)).collect();
    let mut crowd = Crowd::gather(peer, target, sources);
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["prepare", count] => {
                crowd.prepare(count.parse().unwrap());
                println!("ready");
            }
            ["visit", over, stay] => {
                let over = Duration::from_millis(over.parse().unwrap());
                let until_ended = Stay::UntilEnded(STRANGERS_END);
                let stay = if stay == "1" { until_ended } else { Stay::ForTheRound };
                println!("{}", crowd.visit(over, stay));
            }
            _ => panic!("not told what to do: {line:?}"),
        }
    }
}
