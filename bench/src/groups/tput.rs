//! G5: messages one way over one connection, from one task and from several, and over many sessions.

use noise_pool::config::Suite;
use rustls::CipherSuite::{TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256};
use tokio::runtime::Runtime;

use crate::harness::{Case, Results, Settings, measure};
use crate::report::{Chart, Figure, Report};
use crate::wire::frames::{Crypto, Snow};
use crate::wire::libp2p::{Noise, Yamux};
use crate::wire::limit::{AwsLc, Limit, Ring};
use crate::wire::ours::{self, Router};
use crate::wire::raw::{Coalesced, Raw};
use crate::wire::snowstorm::Snowstorm;
use crate::wire::stream::Flush;
use crate::wire::tls::{Library, Tls};
use crate::wire::{self, Peer, Receiver, Sender, run};

const SMALL: usize = 64;
const TYPICAL: usize = 1_028;
const LARGE: usize = 16 * 1024;
const LARGEST: usize = 64_000;

const OURS: &str = "noise-pool";
const OURS_AES: &str = "noise-pool, AES-GCM suite";
const RAW: &str = "raw TCP, a write each";
const SNOWSTORM: &str = "snowstorm";
const YAMUX: &str = "libp2p-noise, yamux";
const FRAMES: &str = "tokio and snow, aws-lc, a frame each";
const LIMIT: &str = "batch limit, aws-lc";
const LIMIT_RING: &str = "batch limit, ring";
const TLS_AES: &str = "TLS 1.3, aws-lc, AES-256";
const TLS_AES_UNFLUSHED: &str = "TLS 1.3, aws-lc, AES-256, no flush";

/// Tasks that share a session.
const TASKS: usize = 16;

pub fn run(settings: &Settings, report: &mut Report) {
    let runtime = run::runtime();
    let wanted = |size: usize| settings.size.is_none_or(|only| only == size);
    for size in [SMALL, TYPICAL, LARGE, LARGEST] {
        if wanted(size) {
            one_connection(&runtime, size, settings, report);
        }
    }
    for size in [SMALL, TYPICAL, LARGE] {
        if wanted(size) {
            one_session_of_many_tasks(&runtime, size, settings, report);
        }
    }
    if wanted(TYPICAL) {
        for sessions in [64, 512] {
            many_sessions(&runtime, sessions, settings, report);
        }
    }
    for size in [LARGE, LARGEST] {
        if wanted(size) {
            with_aes(&runtime, size, settings, report);
        }
    }
}

/// A case of a peer's: its name, and messages of one size one way.
fn peer<'a, P>(runtime: &'a Runtime, size: usize, name: &str, peer: P) -> Case<'a>
where
    P: Peer,
    P::End: Sender + Receiver,
{
    let link = runtime.block_on(wire::pair(&peer)).expect("loopback connects");
    Case::new(name, run::one_way(runtime, size, link))
}

fn ours<'a>(runtime: &'a Runtime, size: usize, name: &str, suite: Suite) -> Case<'a> {
    let link = runtime.block_on(ours::pair(suite)).expect("loopback connects");
    Case::new(name, run::one_way(runtime, size, link))
}

fn one_connection(runtime: &Runtime, size: usize, settings: &Settings, report: &mut Report) {
    use Flush::{Each, Last};
    let aes = |flush| Tls::new(Library::AwsLc, TLS13_AES_256_GCM_SHA384, flush);
    let chacha = Tls::new(Library::Ring, TLS13_CHACHA20_POLY1305_SHA256, Each);
    let cases = vec![
        ours(runtime, size, OURS, Suite::ChaChaPolyBlake2s),
        ours(runtime, size, OURS_AES, Suite::AesGcmSha256),
        peer(runtime, size, RAW, Raw),
        peer(runtime, size, "raw TCP, coalesced", Coalesced),
        peer(runtime, size, SNOWSTORM, Snowstorm::new()),
        peer(runtime, size, "libp2p-noise", Noise::new(Each)),
        peer(runtime, size, "libp2p-noise, no flush", Noise::new(Last)),
        peer(runtime, size, YAMUX, Yamux::new(1)),
        peer(runtime, size, "TLS 1.3, ring, ChaCha", chacha),
        peer(runtime, size, TLS_AES, aes(Each)),
        peer(runtime, size, TLS_AES_UNFLUSHED, aes(Last)),
        peer(runtime, size, "tokio and snow, default, a frame each", Snow::new(Crypto::Default)),
        peer(runtime, size, FRAMES, Snow::new(Crypto::AwsLc)),
        peer(runtime, size, LIMIT, Limit::<AwsLc>::new()),
        peer(runtime, size, LIMIT_RING, Limit::<Ring>::new()),
    ];
    let results = measure(settings, cases);
    report.results(&format!("{size} bytes, one way, one connection"), "message", &results);

    let faster = |theirs: &str| results.faster(OURS, theirs).median;
    let beats = |theirs: &str, gate: f64, goal: Option<f64>| {
        Figure::at_least(format!("{size} B, times {theirs}"), faster(theirs), gate, goal)
    };
    // The share of the faster of the two limits.
    let share = |gate: f64, goal: f64| {
        let value = faster(LIMIT).min(faster(LIMIT_RING));
        Figure::at_least(format!("{size} B, of the batch limit"), value, gate, Some(goal))
    };
    let (name, figures) = match size {
        SMALL => (
            "G5b",
            vec![
                beats(SNOWSTORM, 25.0, Some(80.0)),
                beats(YAMUX, 25.0, Some(80.0)),
                share(0.35, 0.7),
            ],
        ),
        TYPICAL => (
            "G5a",
            vec![
                beats(SNOWSTORM, 5.0, Some(8.0)),
                beats(YAMUX, 5.0, Some(8.0)),
                beats(FRAMES, 4.0, None),
                share(0.6, 0.85),
            ],
        ),
        LARGE => (
            "G5c",
            vec![beats(SNOWSTORM, 1.5, Some(1.8)), beats(YAMUX, 1.6, Some(2.0)), share(0.8, 0.95)],
        ),
        _ => (
            "G5c",
            vec![beats(SNOWSTORM, 1.3, Some(1.5)), beats(YAMUX, 1.4, Some(1.7)), share(0.8, 0.95)],
        ),
    };
    report.target(name, figures);
    let file = match size {
        SMALL => "one_way_64",
        TYPICAL => "one_way_1028",
        _ => return,
    };
    report.charts.push(chart(
        file,
        format!("{size}-byte messages, one way, one connection"),
        &results,
    ));
}

fn chart(file: &'static str, title: String, results: &Results) -> Chart {
    let bars = results.0.iter().map(|case| (case.name.clone(), case.time().median)).collect();
    Chart { file, title, unit: "nanoseconds per message, less is better", bars }
}

fn one_session_of_many_tasks(
    runtime: &Runtime,
    size: usize,
    settings: &Settings,
    report: &mut Report,
) {
    let (near, far) = runtime.block_on(ours::pair(Suite::default())).expect("loopback connects");
    let leases = || near.lease.try_clone().expect("leases are not limited");
    let leases = (0..TASKS).map(|_| leases()).collect();
    let streams = runtime.block_on(wire::pair(&Yamux::new(TASKS))).expect("loopback connects");
    let (mut sending, mut receiving) = streams;
    let (to, from) = (std::mem::take(&mut sending.all), std::mem::take(&mut receiving.all));
    let results = measure(
        settings,
        vec![
            Case::new(OURS, run::shared(runtime, size, leases, vec![far])),
            Case::new(YAMUX, run::shared(runtime, size, to, from)),
        ],
    );
    report.results(&format!("{size} bytes, {TASKS} tasks on one session"), "message", &results);
    let (gate, goal) = match size {
        SMALL => (6.0, 12.0),
        TYPICAL => (3.0, 5.5),
        _ => (1.5, 1.8),
    };
    let times = results.faster(OURS, YAMUX).median;
    let what = format!("{size} B, {TASKS} tasks, times {YAMUX}");
    report.target("G5d", vec![Figure::at_least(what, times, gate, Some(goal))]);
    drop((near, sending, receiving));
}

fn many_sessions(runtime: &Runtime, sessions: usize, settings: &Settings, report: &mut Report) {
    fn links<P>(runtime: &Runtime, peer: &P, sessions: usize) -> Vec<(P::End, P::End)>
    where
        P: Peer,
    {
        let connect = || runtime.block_on(wire::pair(peer)).expect("loopback connects");
        (0..sessions).map(|_| connect()).collect()
    }
    let size = TYPICAL;
    // One router sends to many, as routers do: its pool has all the sessions.
    let (pool, ours) = runtime.block_on(async {
        let router = Router::new(Suite::default()).await.expect("loopback listens");
        let mut ours = Vec::new();
        for _ in 0..sessions {
            let other = Router::new(Suite::default()).await.expect("loopback listens");
            let lease = router.pool.get_or_dial(other.target()).await.expect("loopback connects");
            let back = other.pool.get(&router.pool.id()).expect("it was accepted");
            ours.push((lease, ours::End::new(other, back)));
        }
        (router, ours)
    });
    // So many for each session that a round shows how it goes on, and not how it begins.
    let units = sessions as u64 * if settings.quick { 32 } else { 128 };
    fn peer<'a, P>(
        runtime: &'a Runtime,
        units: u64,
        name: &str,
        links: Vec<(P::End, P::End)>,
    ) -> Case<'a>
    where
        P: Peer,
        P::End: Sender + Receiver,
    {
        Case::of(name, units, run::round_robin(runtime, TYPICAL, links))
    }
    let results = measure(
        settings,
        vec![
            Case::of(OURS, units, run::round_robin(runtime, size, ours)),
            peer::<Raw>(runtime, units, RAW, links(runtime, &Raw, sessions)),
            peer::<Snowstorm>(
                runtime,
                units,
                SNOWSTORM,
                links(runtime, &Snowstorm::new(), sessions),
            ),
            peer::<Yamux>(runtime, units, YAMUX, links(runtime, &Yamux::new(1), sessions)),
        ],
    );
    drop(pool);
    let title = format!("{size} bytes, one task in turn over {sessions} sessions");
    report.results(&title, "message", &results);
    let beats = |theirs: &str, gate: f64, goal: f64| {
        let times = results.faster(OURS, theirs).median;
        Figure::at_least(format!("{sessions} sessions, times {theirs}"), times, gate, Some(goal))
    };
    report.target(
        "G5e",
        vec![beats(RAW, 3.0, 5.0), beats(SNOWSTORM, 5.0, 9.0), beats(YAMUX, 3.0, 5.0)],
    );
}

fn with_aes(runtime: &Runtime, size: usize, settings: &Settings, report: &mut Report) {
    let tls = |flush| Tls::new(Library::AwsLc, TLS13_AES_256_GCM_SHA384, flush);
    let results = measure(
        settings,
        vec![
            ours(runtime, size, OURS_AES, Suite::AesGcmSha256),
            peer(runtime, size, TLS_AES, tls(Flush::Each)),
            peer(runtime, size, TLS_AES_UNFLUSHED, tls(Flush::Last)),
        ],
    );
    report.results(&format!("{size} bytes, one way, AES-256-GCM"), "message", &results);
    let beats = |theirs: &str| {
        let times = results.faster(OURS_AES, theirs).median;
        Figure::at_least(format!("{size} B, times {theirs}"), times, 1.0, Some(1.3))
    };
    report.target("G5f", vec![beats(TLS_AES), beats(TLS_AES_UNFLUSHED)]);
}
