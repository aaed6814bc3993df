//! G2: checkout and return by two threads that want the same peer.

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::ends::crowd::{Crowd, quiet, runtime};
use crate::harness::{Case, Settings, Spread, measure};
use crate::pools::{Connection, limit};
use crate::report::{Figure, Report};

const OURS: &str = "noise-pool, get";
const SIP: &str = "DashMap, SipHash";
const FAST: &str = "DashMap, seeded fast hash";
const PAPAYA: &str = "papaya, seeded fast hash";
const THREADS: u64 = 2;

pub fn run(settings: &Settings, report: &mut Report) {
    let runtime = runtime();
    let crowd = runtime.block_on(Crowd::of(1, quiet(1)));
    let (pool, member) = (&crowd.pool, &crowd.members[0]);
    let peers = [member.peer];
    let peer = &peers[0];
    let sip = limit::dashmap::<std::hash::RandomState>(&peers);
    let fast = limit::dashmap::<foldhash::fast::RandomState>(&peers);
    let papaya = limit::papaya(&peers);
    let held = [(*peer, Arc::new(Connection(0)))];
    let weak = limit::papaya_weak(&held);
    let results = measure(
        settings,
        vec![
            both(OURS, || {
                let lease = pool.get(black_box(peer));
                u64::from(lease.is_none_or(|lease| lease.session_id() != member.session))
            }),
            both(SIP, || limit::hit(&sip, black_box(peer))),
            both(FAST, || limit::hit(&fast, black_box(peer))),
            both(PAPAYA, || limit::papaya_hit(&papaya, black_box(peer))),
            both("papaya of Weaks", || limit::papaya_weak_hit(&weak, black_box(peer))),
        ],
    );
    report.results("Checkout and return, two threads, one peer", "hit of a thread", &results);
    report.target(
        "G2",
        vec![
            Figure::at_most(
                "times DashMap with SipHash",
                results.ratio(OURS, SIP).median,
                1.2,
                Some(0.5),
            ),
            Figure::plain(
                "times DashMap with a seeded fast hash",
                results.ratio(OURS, FAST).median,
            ),
            Figure::plain(
                "times papaya with a seeded fast hash",
                results.ratio(OURS, PAPAYA).median,
            ),
        ],
    );
}

/// Hits of one burst: so few that the scheduler cuts few bursts.
const BURST: u64 = 1_024;
/// How much of a burst of both threads must be at the same time.
const TOGETHER: f64 = 0.9;
/// How often a round is tried, on a machine so busy that the threads never run at the same time.
const TRIES: usize = 100;

/// `one` by each thread at the same time; it returns 0.
///
/// The threads have a processor each and begin each burst together, by spinning. A burst in which
/// the system took a thread off its processor had no contention, and does not count; of the others
/// the median does.
fn both<'a>(name: &str, one: impl Fn() -> u64 + Sync + 'a) -> Case<'a> {
    Case::new(name, move |units| {
        let bursts = units.div_ceil(BURST);
        let mut times = Vec::new();
        for _ in 0..TRIES {
            times.extend(contended(&one, bursts));
            if !times.is_empty() {
                break;
            }
        }
        assert!(!times.is_empty(), "the machine is too busy to run two threads at the same time");
        Duration::from_secs_f64(Spread::of(times).median / BURST as f64 * units as f64)
    })
}

/// So many bursts; how long those took that both threads did at the same time, in seconds.
fn contended(one: &(impl Fn() -> u64 + Sync), bursts: u64) -> Vec<f64> {
    let arrived = AtomicU64::new(0);
    let work = |processor: usize| {
        let mut set = CpuSet::new();
        set.set(processor);
        // Where it is not allowed, the system places them.
        let _ = sched_setaffinity(None, &set);
        let mut wrong = 0;
        let mut times = Vec::with_capacity(bursts as usize);
        for burst in 0..bursts {
            arrived.fetch_add(1, Ordering::AcqRel);
            while arrived.load(Ordering::Acquire) < (burst + 1) * THREADS {
                spin_loop();
            }
            let began = Instant::now();
            for _ in 0..BURST {
                wrong |= one();
            }
            times.push((began, Instant::now()));
        }
        assert_eq!(wrong, 0, "a checkout gave nothing, or another session");
        times
    };
    let [mine, others] = thread::scope(|scope| {
        let work = &work;
        [0, 1]
            .map(|processor| scope.spawn(move || work(processor)))
            .map(|thread| thread.join().expect("it has not panicked"))
    });
    let pairs = mine.into_iter().zip(others);
    pairs
        .filter_map(|(a, b)| {
            let all = a.1.max(b.1) - a.0.min(b.0);
            let both = a.1.min(b.1).saturating_duration_since(a.0.max(b.0));
            let together = both.as_secs_f64() / all.as_secs_f64();
            (together >= TOGETHER).then_some(all.as_secs_f64())
        })
        .collect()
}
