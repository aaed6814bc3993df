//! G12: what a storm of inbound handshakes does to established traffic.
//!
//! One router has a session with a peer, which asks it something a thousand times a second. In some
//! windows a storm of strangers dials the router. The router has a runtime with two workers; the peer
//! and the strangers have a thread each. What those threads do would in truth be done on other
//! machines: the strangers' waits for the router, and not the router for it; the peer's does not wait
//! for the router's work to have a slice of time. What they cost all the same, in caches and on the
//! way through the kernel, is not taken out of the latencies. It is shown by windows of a third kind,
//! in which the same storm goes to another router with a runtime of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use noise_pool::config::Suite;
use noise_pool::{Disconnect, PeerId};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{MissedTickBehavior, interval};

use crate::harness::{Settings, Spread};
use crate::process::thread_time;
use crate::report::{Figure, Report, number};
use crate::turns::Turn;
use crate::wire::ours::{End, Router};
use crate::wire::{Check, Lane, Receiver, Sender, run};

/// Bytes of each question and answer.
const SIZE: usize = 1_028;

/// Strangers, each with its own key, who dial in turn.
const STRANGERS: usize = 64;

/// The time between two questions, and in a storm between two dials.
const PACE: Duration = Duration::from_millis(1);

/// The kinds of windows.
const WINDOWS: [&str; 3] = ["quiet", "storm", "storm elsewhere"];
const QUIET: usize = 0;
const STORM: usize = 1;
const ELSEWHERE: usize = 2;

/// Shared with the strangers' thread.
#[derive(Default)]
struct Storm {
    /// One of [`WINDOWS`].
    window: AtomicUsize,
    over: AtomicBool,
    /// Handshakes that ended in a session.
    done: AtomicU64,
    /// Nanoseconds of processor time that the thread has used.
    used: AtomicU64,
}

/// What one window showed.
struct Window {
    /// Nanoseconds, in order.
    latencies: Vec<f64>,
    handshakes_per_second: f64,
    strangers_load: f64,
}

impl Window {
    fn percentile(&self, part: f64) -> f64 {
        self.latencies[((self.latencies.len() - 1) as f64 * part) as usize]
    }
}

pub fn run(settings: &Settings, report: &mut Report) {
    let runtime = run::runtime();
    let (router, peer, peers_runtime) = established(&runtime);
    let storm = Arc::new(Storm::default());
    let others_runtime = run::runtime();
    let other = others_runtime.block_on(Router::new(Suite::default())).expect("loopback listens");
    let targets = [router.target(), other.target()];
    let (lanes, blowing) = (Lane::several(1, SIZE), storm.clone());
    runtime.spawn(answer(router, Check::new(&lanes), lanes[0].clone()));
    let strangers = thread::spawn(move || dial_again_and_again(&blowing, targets));
    let asker = Asker { peer, check: Check::new(&lanes), lane: lanes[0].clone(), at: 0 };
    let shown = thread::scope(|scope| {
        let asking = scope.spawn(|| windows(settings, &storm, asker, &peers_runtime));
        asking.join().expect("every question is answered")
    });
    storm.over.store(true, Relaxed);
    strangers.join().expect("the strangers leave");
    drop(other);
    tell(&shown, report);
}

/// The windows of each kind, in turns. In the peer's thread.
fn windows(
    settings: &Settings,
    storm: &Storm,
    mut asker: Asker,
    runtime: &Runtime,
) -> [Vec<Window>; 3] {
    Turn::Soon.take();
    let length = Duration::from_millis(if settings.quick { 600 } else { 1_500 });
    let mut window = |kind: usize| {
        storm.window.store(kind, Relaxed);
        let before = (storm.done.load(Relaxed), storm.used.load(Relaxed));
        let began = Instant::now();
        let latencies = runtime.block_on(asker.ask_for(length));
        let (time, done) = (began.elapsed(), storm.done.load(Relaxed) - before.0);
        storm.window.store(QUIET, Relaxed);
        Window {
            latencies,
            handshakes_per_second: done as f64 / time.as_secs_f64(),
            strangers_load: (storm.used.load(Relaxed) - before.1) as f64 / time.as_nanos() as f64,
        }
    };
    // Once each, unmeasured.
    let mut shown = [(); 3].map(|()| Vec::new());
    for kind in 0..WINDOWS.len() {
        window(kind);
    }
    for round in 0..settings.rounds() {
        for turn in 0..WINDOWS.len() {
            let kind = (round + turn) % WINDOWS.len();
            shown[kind].push(window(kind));
        }
    }
    shown
}

/// A router on `runtime` and a peer on a runtime of its own, with a session that the peer dialled.
fn established(runtime: &Runtime) -> (Router, End, Runtime) {
    let one = Builder::new_current_thread().enable_all().build().expect("the system gives threads");
    let router = runtime.block_on(Router::new(Suite::default())).expect("loopback listens");
    let target = router.target();
    let peer = one.block_on(async {
        let peer = Router::new(Suite::default()).await.expect("loopback listens");
        let lease = peer.pool.get_or_dial(target).await.expect("the dial succeeds");
        End::new(peer, lease)
    });
    (router, peer, one)
}

/// The router's application: answers each question.
async fn answer(mut router: Router, mut check: Check, lane: Lane) {
    let mut at = 0;
    while let Some(question) = router.inbox.recv().await {
        check.message(&question.body);
        let lease = router.pool.get(&question.peer).expect("the session lives");
        lease.send(lane.body(at).clone()).await.expect("the session lives");
        at += 1;
    }
}

struct Asker {
    peer: End,
    check: Check,
    lane: Lane,
    at: u64,
}

impl Asker {
    /// Asks at the pace, one question at a time; how long each answer took.
    async fn ask_for(&mut self, time: Duration) -> Vec<f64> {
        let mut latencies = Vec::new();
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = Instant::now() + time;
        while Instant::now() < end {
            pace.tick().await;
            let asked = Instant::now();
            self.peer.send(&self.lane, self.at).await.expect("the session lives");
            self.peer.receive(&mut self.check).await.expect("the session lives");
            self.at += 1;
            latencies.push(asked.elapsed().as_nanos() as f64);
        }
        latencies.sort_by(f64::total_cmp);
        latencies
    }
}

/// The strangers' thread.
fn dial_again_and_again(storm: &Arc<Storm>, targets: [(PeerId, SocketAddr); 2]) {
    Turn::Last.take();
    let runtime =
        Builder::new_current_thread().enable_all().build().expect("the system gives threads");
    runtime.block_on(async {
        let mut strangers = Vec::new();
        for _ in 0..STRANGERS {
            let stranger = Router::new(Suite::default()).await.expect("loopback listens");
            strangers.push(Arc::new(stranger));
        }
        let cut = Disconnect::now();
        let mut pace = interval(PACE);
        let mut turn = 0;
        while !storm.over.load(Relaxed) {
            pace.tick().await;
            storm.used.store(thread_time().as_nanos() as u64, Relaxed);
            let target = match storm.window.load(Relaxed) {
                STORM => targets[0],
                ELSEWHERE => targets[1],
                _ => continue,
            };
            turn += 1;
            let (stranger, storm) = (strangers[turn % STRANGERS].clone(), storm.clone());
            tokio::spawn(async move {
                if stranger.pool.get_or_dial(target).await.is_ok() {
                    storm.done.fetch_add(1, Relaxed);
                }
                stranger.pool.disconnect(&target.0, cut);
            });
        }
    });
}

fn tell(shown: &[Vec<Window>; 3], report: &mut Report) {
    let median = |windows: &[Window], of: &dyn Fn(&Window) -> f64| {
        Spread::of(windows.iter().map(of).collect()).median
    };
    let row = |name: &str, windows: &[Window]| {
        let micros = |part: f64| number(median(windows, &|w| w.percentile(part)) / 1e3);
        vec![
            name.to_owned(),
            micros(0.5),
            micros(0.9),
            micros(0.99),
            micros(1.0),
            number(median(windows, &|w| w.handshakes_per_second)),
            number(median(windows, &|w| w.strangers_load * 100.0)),
        ]
    };
    report.rows(
        &format!("{SIZE} bytes there and back in a storm of handshakes, microseconds"),
        &["windows", "median", "p90", "p99", "most", "handshakes/s", "strangers' load, %"],
        WINDOWS.iter().zip(shown).map(|(name, windows)| row(name, windows)).collect(),
    );
    let stormy = &shown[STORM];
    let times = |part: f64, kind: usize| {
        let pairs = shown[kind].iter().zip(stormy);
        Spread::of(pairs.map(|(q, s)| s.percentile(part) / q.percentile(part)).collect()).median
    };
    report.target(
        "G12",
        vec![
            Figure::at_most("p99 in the storm, times quiet", times(0.99, QUIET), 3.0, Some(1.5)),
            Figure::plain("p99 in the storm, times elsewhere", times(0.99, ELSEWHERE)),
            Figure::plain("median in the storm, times quiet", times(0.5, QUIET)),
            Figure::plain("handshakes per second", median(stormy, &|w| w.handshakes_per_second)),
        ],
    );
}
