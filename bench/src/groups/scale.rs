//! G10: what a hundred times as many sessions cost.
//!
//! In a process of its own: a pool with a thousand sessions and one with many, over streams in memory,
//! to peers that are silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use hdrhistogram::Histogram;
use noise_pool::{Config, PeerId, Pool, SessionId};
use serde_json::{Value, json};
use tokio::runtime::{Handle, Runtime};
use tokio::time::sleep;

use crate::ends::crowd::{Crowd, Member, quiet, runtime};
use crate::harness::{Settings, Spread, Undisturbed, measure_undisturbed};
use crate::machine::Chase;
use crate::pools::{Connection, case, limit, shuffled};
use crate::process::{apart, processor_time, resident, thread_time};
use crate::report::{Figure, Report, number};

const FEW: usize = 1_000;
/// Sessions that expire together.
const COHORT: usize = 1_000;
/// How long a drain waits for a peer that says nothing.
const DRAIN: Duration = Duration::from_millis(100);

pub fn run(settings: &Settings, report: &mut Report) {
    let many = if settings.quick { 10_000 } else { 100_000 };
    let quick = if settings.quick { "quick" } else { "whole" };
    let found = apart("scale", &[&many.to_string(), quick]);
    let figure = |name: &str| found[name].as_f64().expect("a number");
    let row = |what: &str, few: &str, many: &str, ratio: &str| {
        let cell = |name: &str| if name.is_empty() { String::new() } else { number(figure(name)) };
        vec![what.to_owned(), cell(few), cell(many), cell(ratio)]
    };
    report.rows(
        &format!("{FEW} and {many} sessions in one pool"),
        &["", &FEW.to_string(), &many.to_string(), "ratio"],
        vec![
            row("checkout, ns", "hit_few", "hit_many", "hit"),
            row("limit: DashMap, seeded fast hash, ns", "map_few", "map_many", "map"),
            row(
                "the same, an Arc made with each session, ns",
                "beside_few",
                "beside_many",
                "beside",
            ),
            row("resident memory per session, KiB", "memory_few", "memory_many", "memory"),
            row("to expire a session, µs of processor", "expiry_few", "expiry_many", "expiry"),
            row("quiet: % of a core", "", "quiet", ""),
            row("quiet: wake-ups a second", "", "wakes", ""),
            row("snapshot, ms", "", "snapshot", ""),
            row("get, p99.9, ns, without and with snapshots", "alone", "meanwhile", "slower"),
            row("handshake, µs, both sides", "", "handshake", ""),
        ],
    );
    report.target(
        "G10",
        vec![
            Figure::at_most("checkout, times", figure("hit"), 3.0, Some(2.0)),
            Figure::plain("checkout in all rounds, calm or not, times", figure("hit_all")),
            Figure::plain("rounds", figure("rounds")),
            Figure::plain("of them calm", figure("calm_rounds")),
            Figure::plain("checkout of a bare map, times", figure("map")),
            Figure::plain("of a map of Arcs made with the sessions, times", figure("beside")),
            Figure::at_most("memory per session, times", figure("memory"), 1.0, None),
            Figure::at_most("expiry per expired session, times", figure("expiry"), 1.0, None),
            Figure::at_most("snapshot, ms", figure("snapshot"), 100.0, None),
            Figure::at_most("p99.9 of get meanwhile, times", figure("slower"), 3.0, None),
            Figure::at_most("quiet, % of a core", figure("quiet"), 0.1, None),
        ],
    );
}

/// How the sessions are measured that expire.
struct Plan {
    /// How often it is measured.
    cohorts: usize,
    /// Between two cohorts: all of one has gone before the next is due.
    apart: Duration,
    /// Those that are not to expire are not left alone for so long.
    measuring: Duration,
}

/// The measurement: the number of sessions, and whether it is quick.
pub fn part(arguments: &[String]) -> Value {
    let many: usize = arguments[0].parse().expect("a number");
    let settings = Settings { quick: arguments[1] == "quick", size: None };
    let seconds = Duration::from_secs;
    let plan = match settings.quick {
        true => Plan { cohorts: 2, apart: seconds(1), measuring: seconds(15) },
        false => Plan { cohorts: 5, apart: seconds(2), measuring: seconds(60) },
    };
    let runtime = runtime();
    // Held to the end, as all that is built before memory is measured: what was freed would be used
    // again, and not show.
    let _warm = runtime.block_on(Crowd::of(64, quiet(64)));
    let began = Instant::now();
    let _warm = (_warm, runtime.block_on(Crowd::of(256, quiet(256))));
    let handshake = began.elapsed() / 256;
    let (few, memory_few) = runtime.block_on(filled(FEW, quiet(FEW)));

    let max_idle = handshake * many as u32 * 2 + plan.apart * plan.cohorts as u32 + plan.measuring;
    let mut crowd = runtime.block_on(Crowd::new(idle(many, max_idle)));
    let before = resident();
    let due = runtime.block_on(by_cohorts(&mut crowd, &plan, many, max_idle));
    let memory_many = (resident() - before) / many as f64;
    assert_eq!(crowd.pool.peers().len(), many);

    // The cohorts are not touched any more; all others are used from time to time, and stay.
    let rest = names(&crowd.members[plan.cohorts * COHORT..]);
    use_all(&crowd.pool, &rest);
    let (quiet, wakes) = runtime.block_on(quietly());
    assert!(Instant::now() < due[0] - plan.apart, "the machine is too slow for this measurement");
    let expiry_many = due.iter().map(|due| {
        let until_due =
            due.saturating_duration_since(Instant::now()).saturating_sub(plan.apart / 4);
        runtime.block_on(async {
            sleep(until_due).await;
            expired(COHORT).await
        })
    });
    let expiry_many = Spread::of(expiry_many.collect()).median;
    assert_eq!(crowd.pool.peers().len(), rest.len(), "each cohort has expired, and nobody else");
    use_all(&crowd.pool, &rest);
    let expiry_few = few_expire(&runtime, &plan);
    let hits = checkout(&settings, &few, &crowd, &rest);
    let time = |name| hits.calm.case(name).time().median;
    let growth = |many, few| hits.calm.ratio(many, few).median;
    let (snapshot, alone, meanwhile, slower) = snapshots(&settings, &crowd.pool, &rest);

    json!({
        "hit": growth("many", "few"), "hit_few": time("few"), "hit_many": time("many"),
        "hit_all": hits.all.ratio("many", "few").median,
        "rounds": hits.rounds, "calm_rounds": hits.calm_rounds,
        "map": growth("map, many", "map, few"),
        "map_few": time("map, few"), "map_many": time("map, many"),
        "beside": growth("beside, many", "beside, few"),
        "beside_few": time("beside, few"), "beside_many": time("beside, many"),
        "memory": memory_many / memory_few,
        "memory_few": memory_few / 1024.0,
        "memory_many": memory_many / 1024.0,
        "expiry": expiry_many / expiry_few, "expiry_few": expiry_few, "expiry_many": expiry_many,
        "quiet": quiet, "wakes": wakes,
        "snapshot": snapshot, "alone": alone, "meanwhile": meanwhile, "slower": slower,
        "handshake": handshake.as_secs_f64() * 1e6,
    })
}

/// Fills the pool: the cohorts apart from each other, then the rest. When each cohort is due.
async fn by_cohorts(
    crowd: &mut Crowd,
    plan: &Plan,
    many: usize,
    max_idle: Duration,
) -> Vec<Instant> {
    let mut due = Vec::new();
    for _ in 0..plan.cohorts {
        sleep(plan.apart).await;
        // The first of them is due first.
        due.push(Instant::now() + max_idle);
        crowd.grow(COHORT).await;
    }
    sleep(plan.apart).await;
    crowd.grow(many - plan.cohorts * COHORT).await;
    due
}

fn use_all(pool: &Pool, names: &[(PeerId, SessionId)]) {
    assert!(names.iter().all(|(peer, _)| pool.get(peer).is_some()), "a session has expired");
}

fn idle(sessions: usize, max_idle: Duration) -> Config {
    quiet(sessions).max_idle(Some(max_idle)).max_draining(sessions).drain_timeout(DRAIN)
}

/// A pool with so many sessions, and by how many bytes the process grew with each.
async fn filled(sessions: usize, config: Config) -> (Crowd, f64) {
    let mut crowd = Crowd::new(config).await;
    let before = resident();
    crowd.grow(sessions).await;
    (crowd, (resident() - before) / sessions as f64)
}

/// The cost of expiry in pools that hold no more than expires.
fn few_expire(runtime: &Runtime, plan: &Plan) -> f64 {
    let costs = (0..plan.cohorts).map(|_| {
        runtime.block_on(async {
            let crowd = Crowd::of(COHORT, idle(COHORT, plan.apart)).await;
            let cost = expired(COHORT).await;
            assert_eq!(crowd.pool.peers().len(), 0);
            cost
        })
    });
    Spread::of(costs.collect()).median
}

/// Waits until so many sessions have ended; microseconds of processor time for each.
async fn expired(sessions: usize) -> f64 {
    const SOON: Duration = Duration::from_secs(30);
    let metrics = Handle::current().metrics();
    let (began, used) = (Instant::now(), processor_time());
    let tasks = metrics.num_alive_tasks();
    while metrics.num_alive_tasks() + sessions > tasks {
        assert!(began.elapsed() < SOON, "they should have expired");
        sleep(Duration::from_millis(5)).await;
    }
    (processor_time() - used).as_secs_f64() * 1e6 / sessions as f64
}

/// What the process does while nothing is asked of it: per cent of a core, and wake-ups a second.
async fn quietly() -> (f64, f64) {
    const LONG: Duration = Duration::from_secs(2);
    let metrics = Handle::current().metrics();
    let parks = || (0..metrics.num_workers()).map(|at| metrics.worker_park_count(at)).sum::<u64>();
    sleep(DRAIN).await;
    let (used, parked) = (processor_time(), parks());
    sleep(LONG).await;
    let (used, parked) = (processor_time() - used, parks() - parked);
    (100.0 * used.as_secs_f64() / LONG.as_secs_f64(), parked as f64 / LONG.as_secs_f64())
}

/// The peers in an order without pattern, with their sessions.
fn names(members: &[Member]) -> Vec<(PeerId, SessionId)> {
    shuffled(members.iter().map(|member| (member.peer, member.session)).collect())
}

type Map = DashMap<PeerId, Arc<Connection>, foldhash::fast::RandomState>;

/// A bare map of `Arc`s that lie in memory as the sessions do.
fn beside(members: &[Member]) -> Map {
    limit::dashmap_of(members.iter().map(|member| (member.peer, member.beside.clone())))
}

/// A hit of ours and of a bare map, with few entries and with many. What many touch is more than a
/// core's own caches hold: where neighbours use up the one that cores share, each hit waits for memory,
/// and all that is measured is how many neighbours there are.
fn checkout(
    settings: &Settings,
    few: &Crowd,
    many: &Crowd,
    rest: &[(PeerId, SessionId)],
) -> Undisturbed {
    let (small, pool) = (names(&few.members), &many.pool);
    let hit = |pool: &Pool, names: &[(PeerId, SessionId)], at: usize| match pool.get(&names[at].0) {
        Some(lease) if lease.session_id() == names[at].1 => at as u64,
        _ => u64::MAX,
    };
    let map = |names: &[(PeerId, SessionId)]| {
        let peers: Vec<PeerId> = names.iter().map(|(peer, _)| *peer).collect();
        limit::dashmap::<foldhash::fast::RandomState>(&peers)
    };
    let (small_map, large_map) = (map(&small), map(rest));
    let (small_beside, large_beside) = (beside(&few.members), beside(&many.members));
    // All have the same number here, so that a hit is checked by the place that it asked for.
    let apart = |map: &Map, names: &[(PeerId, SessionId)], at: usize| {
        limit::hit(map, &names[at].0).wrapping_add(at as u64)
    };
    let chase = Chase::new();
    measure_undisturbed(
        settings,
        vec![
            case("few", small.len(), |at| hit(&few.pool, &small, at)),
            case("many", rest.len(), |at| hit(pool, rest, at)),
            case("map, few", small.len(), |at| limit::hit(&small_map, &small[at].0)),
            case("map, many", rest.len(), |at| limit::hit(&large_map, &rest[at].0)),
            case("beside, few", small.len(), |at| apart(&small_beside, &small, at)),
            case("beside, many", rest.len(), |at| apart(&large_beside, rest, at)),
        ],
        || chase.load(),
    )
}

/// How long a snapshot takes its thread, in milliseconds; the 99.9th percentile of a get without
/// snapshots and with one after the other on another thread, in nanoseconds; and the ratio of the
/// two.
fn snapshots(
    settings: &Settings,
    pool: &Pool,
    rest: &[(PeerId, SessionId)],
) -> (f64, f64, f64, f64) {
    let long = if settings.quick { Duration::from_millis(300) } else { Duration::from_secs(1) };
    let (mut times, mut alone, mut meanwhile, mut slower) = (vec![], vec![], vec![], vec![]);
    for _ in 0..settings.rounds().min(9) {
        let without = slowest(pool, rest, long);
        let over = Arc::new(AtomicBool::new(false));
        let snapping = {
            let (pool, over, sessions) = (pool.clone(), over.clone(), rest.len());
            thread::spawn(move || {
                let mut times = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let began = thread_time();
                    let snapshot = pool.snapshot();
                    times.push((thread_time() - began).as_secs_f64() * 1e3);
                    assert_eq!(snapshot.sessions.len(), sessions);
                }
                times
            })
        };
        let with = slowest(pool, rest, long);
        over.store(true, Ordering::Relaxed);
        times.extend(snapping.join().expect("a snapshot does not panic"));
        alone.push(without);
        meanwhile.push(with);
        slower.push(with / without);
    }
    let median = |samples| Spread::of(samples).median;
    (median(times), median(alone), median(meanwhile), median(slower))
}

/// The 99.9th percentile of a get and its return, over so long, in nanoseconds.
fn slowest(pool: &Pool, rest: &[(PeerId, SessionId)], long: Duration) -> f64 {
    let mut histogram = Histogram::<u64>::new(3).expect("three digits");
    let began = Instant::now();
    let mut before = began;
    for (peer, session) in rest.iter().cycle() {
        let lease = pool.get(peer);
        assert!(lease.as_ref().is_some_and(|lease| lease.session_id() == *session));
        drop(lease);
        let now = Instant::now();
        histogram.saturating_record((now - before).as_nanos() as u64);
        before = now;
        if now - began >= long {
            break;
        }
    }
    histogram.value_at_quantile(0.999) as f64
}
