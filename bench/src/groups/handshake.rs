//! G7: handshakes, in memory and over TCP.

use std::sync::Arc;

use noise_pool::config::Suite;
use noise_pool::{Disconnect, Identity, Pool, Role};
use rustls::CipherSuite::TLS13_AES_256_GCM_SHA384;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::harness::{Case, Settings, measure, measure_undisturbed, timed};
use crate::machine::round_trip;
use crate::report::{Chart, Figure, Report};
use crate::wire::frames::{Crypto, Snow};
use crate::wire::libp2p::Noise;
use crate::wire::ours::Router;
use crate::wire::raw::Raw;
use crate::wire::snowstorm::Snowstorm;
use crate::wire::stream::Flush;
use crate::wire::tls::{Library, Tls};
use crate::wire::{self, Peer, run};

/// Dials under way at any moment.
const IN_FLIGHT: usize = 16;

const OURS: &str = "noise-pool, verdict included";
const SNOW: &str = "snow, default";
const SNOWSTORM: &str = "snowstorm";
const NOISE: &str = "libp2p-noise";
const TLS: &str = "mutual TLS 1.3, aws-lc";

pub fn run(settings: &Settings, report: &mut Report) {
    in_memory(settings, report);
    over_tcp(settings, report);
}

/// Both sides of XK in one thread. Ours is all of a dial but the socket: pool, tasks and verdict too.
fn in_memory(settings: &Settings, report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the system gives a runtime");
    let pool = || {
        let _entered = runtime.enter();
        Pool::builder(Identity::generate()).build().expect("the defaults are good")
    };
    let ((near, _inbox), (far, _other_inbox)) = (pool(), pool());
    let ours = |units| timed(|| runtime.block_on(dials_in_memory(&near, &far, units)));
    let snow = |crypto| {
        let snow = Snow::new(crypto);
        move |units| {
            timed(|| (0..units).for_each(|_| handshake(&snow).expect("both sides are honest")))
        }
    };
    let results = measure(
        settings,
        vec![
            Case::new(OURS, ours),
            Case::new(SNOW, snow(Crypto::Default)),
            Case::new("snow, aws-lc", snow(Crypto::AwsLc)),
        ],
    );
    report.results("XK in memory, both sides on one core", "handshake", &results);
    let times = results.ratio(OURS, SNOW).median;
    report.target("G7a", vec![Figure::at_most(format!("times {SNOW}"), times, 0.52, Some(0.45))]);
}

async fn dials_in_memory(near: &Pool, far: &Pool, units: u64) {
    for _ in 0..units {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let dial = near.get_or_dial_with(noise_pool::Target::new(far.id()), || async { Ok(ours) });
        let (dialled, accepted) = tokio::join!(dial, far.adopt(theirs, Role::Responder));
        dialled.expect("the dial succeeds").discard();
        let accepted = accepted.expect("the session is accepted");
        accepted.closed().await;
    }
}

/// As plain as it gets: no payloads, nothing checked.
fn handshake(snow: &Snow) -> Result<(), snow::Error> {
    let (mut a, mut b) = snow.states()?;
    let (mut message, mut payload) = ([0; 256], [0; 256]);
    while !(a.is_handshake_finished() && b.is_handshake_finished()) {
        let (from, to) = if a.is_my_turn() { (&mut a, &mut b) } else { (&mut b, &mut a) };
        let length = from.write_message(&[], &mut message)?;
        to.read_message(&message[..length], &mut payload)?;
    }
    a.into_transport_mode()?;
    b.into_transport_mode()?;
    Ok(())
}

/// What one core has written the other reads, many times in each dial: how near the host has put them
/// to each other shows in every case, and in some more than in others.
fn over_tcp(settings: &Settings, report: &mut Report) {
    let runtime = run::runtime();
    let tls = |library| Tls::new(library, TLS13_AES_256_GCM_SHA384, Flush::Each);
    let told = measure_undisturbed(
        settings,
        vec![
            ours(&runtime),
            peer(&runtime, SNOW, Snow::new(Crypto::Default)),
            peer(&runtime, "snow, aws-lc", Snow::new(Crypto::AwsLc)),
            peer(&runtime, SNOWSTORM, Snowstorm::new()),
            peer(&runtime, NOISE, Noise::new(Flush::Each)),
            peer(&runtime, TLS, tls(Library::AwsLc)),
            peer(&runtime, "mutual TLS 1.3, ring", tls(Library::Ring)),
            peer(&runtime, "TCP alone", Raw),
        ],
        || round_trip().unwrap_or_default(),
    );
    let results = &told.calm;
    let title = format!("dial to usable session over TCP, {IN_FLIGHT} in flight, two cores");
    report.results(&title, "session", results);
    let within = |theirs: &str, gate: f64, goal: f64| {
        let times = results.ratio(OURS, theirs).median;
        Figure::at_most(format!("times {theirs}"), times, gate, Some(goal))
    };
    report.target(
        "G7b",
        vec![
            within(SNOW, 0.65, 0.55),
            within(SNOWSTORM, 0.6, 0.48),
            within(NOISE, 0.5, 0.39),
            within(TLS, 0.85, 0.74),
            Figure::plain(
                format!("in all rounds, calm or not, times {SNOW}"),
                told.all.ratio(OURS, SNOW).median,
            ),
            Figure::plain("rounds", told.rounds as f64),
            Figure::plain("of them calm", told.calm_rounds as f64),
        ],
    );
    let bars = results.0.iter().map(|case| (case.name.clone(), case.time().median / 1e3)).collect();
    report.charts.push(Chart {
        file: "handshake",
        title: "From dial to usable session, two cores".into(),
        unit: "microseconds per session, less is better",
        bars,
    });
}

/// One router dials sixteen others, each of them again and again; the end of each session is part of
/// what is measured.
fn ours<'a>(runtime: &'a Runtime) -> Case<'a> {
    let (near, far) = runtime.block_on(async {
        let router = || async { Router::new(Suite::default()).await.expect("loopback listens") };
        let mut far = Vec::new();
        for _ in 0..IN_FLIGHT {
            far.push(router().await);
        }
        (Arc::new(router().await), Arc::new(far))
    });
    let cut = Disconnect::now();
    let work = run::in_flight(runtime, IN_FLIGHT, move |place| {
        let (near, far) = (near.clone(), far.clone());
        async move {
            let target = far[place].target();
            let lease = near.pool.get_or_dial(target).await.expect("the dial succeeds");
            drop(lease);
            near.pool.disconnect(&target.0, cut);
        }
    });
    Case::new(OURS, work)
}

/// A listener whose handshakes run in tasks, and dials to it. A handshake counts when both sides
/// have ended it.
fn peer<'a, P: Peer>(runtime: &'a Runtime, name: &str, peer: P) -> Case<'a> {
    let listener = runtime.block_on(wire::listener()).expect("loopback listens");
    let address = listener.local_addr().expect("it is bound");
    let answered = Arc::new(Semaphore::new(0));
    let (responder, signal) = (peer.clone(), answered.clone());
    runtime.spawn(async move {
        loop {
            let stream = wire::accept(&listener).await.expect("loopback connects");
            let (responder, signal) = (responder.clone(), signal.clone());
            tokio::spawn(async move {
                responder.respond(stream).await.expect("the initiator is honest");
                signal.add_permits(1);
            });
        }
    });
    let work = run::in_flight(runtime, IN_FLIGHT, move |_| {
        let (peer, answered) = (peer.clone(), answered.clone());
        async move {
            let stream = wire::dial(address).await.expect("loopback connects");
            let _end = peer.initiate(stream).await.expect("the responder is honest");
            answered.acquire().await.expect("it stays open").forget();
        }
    });
    Case::new(name, work)
}
