//! G8: what an idle end of a session keeps in memory.
//!
//! Each case has a process of its own. It opens so many connections on loopback, with both ends in
//! the process, then sends one large message each way on each; what the process holds resident grows
//! meanwhile. What bare streams take in the same way is subtracted.

use std::mem::swap;
use std::time::Duration;

use bytes::Bytes;
use noise_pool::Config;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::ends::idle::{self, TlsPair};
use crate::ends::mesh::{Node, connect, nodes};
use crate::harness::{Settings, Spread};
use crate::process::{apart, resident};
use crate::report::{Chart, Figure, Report, number};

const OURS: &str = "noise-pool";
const STREAMS: &str = "bare streams";
const CASES: [&str; 7] = [
    STREAMS,
    OURS,
    "snowstorm",
    "libp2p-noise",
    "libp2p-noise + yamux",
    "rustls",
    "snow, two buffers of 64 KiB",
];
/// Bytes of the large message: it fits a frame of all of them.
const MESSAGE: usize = 64_000;
/// Pools on one side and on the other: as many sessions as they have pairs.
const SIDES: (usize, usize) = (25, 40);
const PAIRS: usize = SIDES.0 * SIDES.1;

pub fn run(settings: &Settings, report: &mut Report) {
    let rounds = if settings.quick { 1 } else { 5 };
    let grown: Vec<[Spread; 2]> = CASES
        .iter()
        .map(|case| {
            let runs: Vec<Value> = (0..rounds).map(|_| apart("memory", &[case])).collect();
            ["established", "after"].map(|when| {
                let kibibytes = |run: &Value| run[when].as_f64().expect("a number") / 1024.0;
                Spread::of(runs.iter().map(kibibytes).collect())
            })
        })
        .collect();
    let per_end = |case: usize, when: usize| {
        (grown[case][when].median - grown[0][when].median) / (2 * PAIRS) as f64
    };
    let rows = (1..CASES.len()).map(|case| {
        vec![CASES[case].to_owned(), number(per_end(case, 0)), number(per_end(case, 1))]
    });
    report.rows(
        "Resident memory of an idle session end, KiB",
        &["case", "after the handshake", "after a large message each way"],
        rows.collect(),
    );
    let after =
        |name: &str| per_end(CASES.iter().position(|case| *case == name).expect("a case"), 1);
    let share = |name: &str| after(name) / after(OURS);
    report.target(
        "G8",
        vec![
            Figure::at_most("KiB after traffic", after(OURS), 8.0, Some(4.0)),
            Figure::at_least("snowstorm, times ours", share("snowstorm"), 20.0, None),
            Figure::at_least("yamux, times ours", share("libp2p-noise + yamux"), 10.0, None),
            Figure::at_least("rustls, times ours", share("rustls"), 4.0, None),
        ],
    );
    let bars = [
        OURS,
        "rustls",
        "libp2p-noise + yamux",
        "snow, two buffers of 64 KiB",
        "snowstorm",
        "libp2p-noise",
    ];
    report.charts.push(Chart {
        file: "memory",
        title: "Resident memory of an idle session end that has carried traffic".to_owned(),
        unit: "KiB; less is better",
        bars: bars.map(|name| (name.to_owned(), after(name))).into(),
    });
}

/// One case, in a process of its own: by how much it grew, in bytes.
pub fn part(arguments: &[String]) -> Value {
    // One thread: the allocator then has one heap, for every case alike.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let grown = runtime.expect("it has all it needs").block_on(case(&arguments[0]));
    json!({"established": grown[0], "after": grown[1]})
}

async fn case(name: &str) -> [f64; 2] {
    let message: Vec<u8> = (0..MESSAGE).map(|n| n as u8).collect();
    let message = &message[..];
    match name {
        OURS => ours(message).await,
        STREAMS => grown(async |a, b| (a, b), async |a, b| idle::talk((a, b), message).await).await,
        "snowstorm" => grown(idle::snowstorm, async |a, b| idle::talk((a, b), message).await).await,
        "libp2p-noise" => grown(idle::libp2p, async |a, b| idle::talk((a, b), message).await).await,
        "libp2p-noise + yamux" => {
            grown(idle::yamux, async |a, b| idle::talk((a, b), message).await).await
        }
        "rustls" => {
            let tls = TlsPair::new();
            let meet = async |near, far| tls.connect(near, far).await;
            grown(meet, async |a, b| idle::talk((a, b), message).await).await
        }
        _ => grown(idle::plain, async |a, b| idle::plain_talk((a, b), message).await).await,
    }
}

/// The growth by all pairs: when they have met, and when they have talked. The first pair is not
/// counted: with it comes what the process needs once.
async fn grown<E>(
    meet: impl AsyncFn(TcpStream, TcpStream) -> (E, E),
    talk: impl AsyncFn(&mut E, &mut E),
) -> [f64; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
    let address = listener.local_addr().expect("it is bound");
    let pair = async || {
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (near, far) = (near.expect("it listens"), far.expect("it connects").0);
        near.set_nodelay(true).and(far.set_nodelay(true)).expect("TCP has it");
        meet(near, far).await
    };
    let mut first = pair().await;
    talk(&mut first.0, &mut first.1).await;
    let mut pairs = Vec::with_capacity(PAIRS);
    let before = resident();
    for _ in 0..PAIRS {
        pairs.push(pair().await);
    }
    let established = resident();
    for (near, far) in &mut pairs {
        talk(near, far).await;
    }
    [established - before, resident() - before]
}

/// As [`grown`], by sessions of pools. Each pool has talked once to a pool apart: what it keeps for
/// all of its sessions, the stock of buffers first of all, is there before the count begins.
async fn ours(message: &[u8]) -> [f64; 2] {
    let message = Bytes::copy_from_slice(message);
    let config = Config::default();
    let mut apart = nodes(1, &config).await;
    let mut one = nodes(SIDES.0, &config).await;
    let mut other = nodes(SIDES.1, &config).await;
    for side in [&mut one, &mut other] {
        connect(&apart, side).await;
        for node in side {
            talk(&mut apart[0], node, &message).await;
        }
    }
    let before = resident();
    connect(&one, &other).await;
    settle().await;
    let established = resident();
    for near in &mut one {
        for far in &mut other {
            talk(near, far, &message).await;
        }
    }
    settle().await;
    [established - before, resident() - before]
}

async fn talk(mut from: &mut Node, mut to: &mut Node, message: &Bytes) {
    for _ in 0..2 {
        let lease = from.pool.get(&to.pool.id()).expect("the session is there");
        lease.send(message.clone()).await.expect("it is accepted");
        let received = to.inbox.recv().await.expect("the pool is there");
        assert_eq!((received.peer, &received.body), (from.pool.id(), message));
        swap(&mut from, &mut to);
    }
}

/// Until what follows a handshake or a message is done too.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}
