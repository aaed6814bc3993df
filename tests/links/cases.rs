//! The cases: which links there are, what goes over them, and what must come of it.

use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::figures::{Bound, Figure, number};
use crate::link::{Link, Side, Up};

const A: &str = "10.99.0.1";
const B: &str = "10.99.0.2";
/// Where end B is once it has moved.
const ELSEWHERE: &str = "10.99.0.3";

/// A link, and a process for each line: at which end, and what it does.
struct Setting {
    link: Link,
    processes: Vec<(Side, String)>,
    happens: Option<Happens>,
}

/// What happens at an end.
#[derive(Clone, Copy, Debug)]
enum Happens {
    /// A process does nothing for some time.
    Stops {
        /// Which, in their order.
        process: usize,
        /// From when to when, in seconds.
        from: f64,
        to: f64,
    },
    /// End B has another address from then on.
    Moves { at: f64 },
}

impl Setting {
    fn new(link: Link, processes: Vec<(Side, String)>) -> Self {
        Self { link, processes, happens: None }
    }
}

type Judge = Box<dyn Fn(&[Value]) -> Vec<Figure> + Send + Sync>;

/// Links that are judged together.
struct Case {
    name: String,
    /// In seconds.
    lasts: u64,
    settings: Vec<Setting>,
    /// Is given the reports of all processes, in their order.
    judge: Judge,
}

/// Runs the cases whose names begin with one of `names`, or all; whether one has missed a figure.
pub(crate) async fn run(names: &[String]) -> bool {
    let wanted = |case: &Case| {
        names.is_empty() || names.iter().any(|name| case.name.starts_with(name.as_str()))
    };
    let (mut links, mut missed) = (0, false);
    for cases in [full(), broken()] {
        let mut running = JoinSet::new();
        for case in cases.into_iter().filter(wanted) {
            let first = links;
            links += case.settings.len();
            running.spawn(async move { (case.name.clone(), one(case, first).await) });
        }
        while let Some(done) = running.join_next().await {
            let (name, figures) = done.expect("it says above what is wrong");
            println!("{name}");
            for figure in &figures {
                println!("    {figure}");
            }
            missed |= figures.iter().any(|figure| !figure.holds());
        }
    }
    assert!(links > 0, "no case has such a name");
    missed
}

/// Runs a case; `first` is the number of its first link.
async fn one(case: Case, first: usize) -> Vec<Figure> {
    let mut running = JoinSet::new();
    for (place, setting) in case.settings.into_iter().enumerate() {
        running.spawn(async move { (place, reports(setting, first + place, case.lasts).await) });
    }
    let mut all = running.join_all().await;
    all.sort_by_key(|(place, _)| *place);
    let reports: Vec<_> = all.into_iter().flat_map(|(_, reports)| reports).collect();
    if std::env::var_os("LINKS_REPORTS").is_some() {
        for report in &reports {
            println!("{}: {report}", case.name);
        }
    }
    (case.judge)(&reports)
}

async fn reports(setting: Setting, number: usize, lasts: u64) -> Vec<Value> {
    let link = Up::make(setting.link, number).await;
    let start = |(side, line): &(Side, String)| {
        let words: Vec<_> = line.split_whitespace().map(String::from).collect();
        link.start(*side, &words)
    };
    let processes: Vec<_> = setting.processes.iter().map(start).collect();
    match setting.happens {
        None => {}
        Some(Happens::Stops { process, from, to }) => {
            let id = processes[process].id();
            sleep(Duration::from_secs_f64(from)).await;
            id.stop();
            sleep(Duration::from_secs_f64(to - from)).await;
            id.go_on();
        }
        Some(Happens::Moves { at }) => {
            sleep(Duration::from_secs_f64(at)).await;
            link.move_end(Side::B, B, ELSEWHERE).await;
        }
    }
    let mut reports = Vec::new();
    for process in processes {
        let mut report = process.report(Duration::from_secs(lasts)).await;
        report["since"] = link.since.into();
        reports.push(report);
    }
    reports
}

/// Links with as much on them as they take. They keep the machine busy, and have it to themselves.
fn full() -> Vec<Case> {
    let mut cases = bulk();
    cases.extend([slow_application(), deadlines(), urgent(), shares(), lossy()]);
    cases
}

/// Links that go away, and ends that do.
fn broken() -> Vec<Case> {
    let mut cases = cuts();
    cases.extend([stopped(), ahead(), moving(), first_messages(), crossing()]);
    cases
}

// ---- slow links -------------------------------------------------------------------------------

/// As much as the link takes, one way and both ways, and a checkout for each message.
fn bulk() -> Vec<Case> {
    let mut cases = Vec::new();
    for rate in [64, 100, 400] {
        for (delay, queue) in [(10, 16), (50, 64), (100, 32), (300, 256)] {
            for (ways, back) in [("one way", ""), ("both ways", "--sends 90 --to 1@10.99.0.1:7000")]
            {
                let link = Link { rate, delay, queue, ..Link::default() };
                let processes = vec![
                    (Side::B, format!("router 2 --lasts 91 --listen {B}:7000 {back}")),
                    (
                        Side::A,
                        format!("router 1 --lasts 91 --sends 90 --listen {A}:7000 --to 2@{B}:7000"),
                    ),
                ];
                cases.push(Case {
                    name: format!("bulk {rate} kbit/s, {delay} ms, {queue} KB, {ways}"),
                    lasts: 91,
                    settings: vec![Setting::new(link, processes)],
                    judge: Box::new(|reports| {
                        let received: f64 = reports.iter().map(|r| number(r, "/received")).sum();
                        let mut figures = nothing_ends(reports);
                        figures.push(Figure::new("received", received, Bound::AtLeast(500.0)));
                        figures
                    }),
                });
            }
        }
    }
    cases
}

/// Nothing has ended, and what has arrived is all up to some message.
fn nothing_ends(reports: &[Value]) -> Vec<Figure> {
    let sum = |what| reports.iter().map(|report| number(report, &format!("/{what}"))).sum();
    ["ended", "ping_failed", "gaps", "disordered", "refused"]
        .map(|what| Figure::zero(what, sum(what)))
        .to_vec()
}

/// The receiver reads nothing for ten times every timer, and then all.
fn slow_application() -> Case {
    let config = "--config ping_after='1s';ping_timeout='1s';keepalive='3s';stall_timeout='3s'";
    let link = Link { rate: 10_000, delay: 20, queue: 256, ..Link::default() };
    let processes = vec![
        (Side::B, format!("router 2 --lasts 190 --reads-from 160 --listen {B}:7000 {config}")),
        (Side::A, format!("router 1 --lasts 190 --sends 185 --to 2@{B}:7000 {config}")),
    ];
    Case {
        name: "slow application".into(),
        lasts: 190,
        settings: vec![Setting::new(link, processes)],
        judge: Box::new(|reports| {
            let mut figures = nothing_ends(reports);
            let received = number(&reports[0], "/received");
            figures.push(Figure::new("received", received, Bound::AtLeast(5_000.0)));
            figures
        }),
    }
}

// ---- deadlines and what is urgent -------------------------------------------------------------

/// Twice what the link takes, worthless after a second: a pool, and a socket by hand.
fn deadlines() -> Case {
    let link = Link { rate: 400, delay: 50, queue: 64, ..Link::default() };
    let sends = "--lasts 61 --sends 60 --rate 96 --deadline 1000";
    let ours = vec![
        (Side::B, format!("router 2 --lasts 62 --listen {B}:7000")),
        (Side::A, format!("router 1 {sends} --to 2@{B}:7000")),
    ];
    let raw = vec![
        (Side::B, format!("raw --lasts 62 --listen {B}:7000")),
        (Side::A, format!("raw {sends} --to {B}:7000")),
    ];
    Case {
        name: "deadlines".into(),
        lasts: 62,
        settings: [ours, raw].map(|processes| Setting::new(link, processes)).into(),
        judge: Box::new(|reports| {
            let ratio = |path| number(&reports[0], path) / number(&reports[2], path);
            vec![
                Figure::new("age, median, s", number(&reports[0], "/ages/p50"), Bound::None),
                Figure::new("age, p99, s", number(&reports[0], "/ages/p99"), Bound::None),
                Figure::new("age, median, times raw", ratio("/ages/p50"), Bound::AtMost(1.15)),
                Figure::new("age, p99, times raw", ratio("/ages/p99"), Bound::AtMost(1.15)),
                Figure::new("messages, of raw", ratio("/received"), Bound::AtLeast(0.9)),
                Figure::zero("ended", number(&reports[1], "/ended")),
            ]
        }),
    }
}

/// Pings, and a message a second on another session, while bulk fills the link.
fn urgent() -> Case {
    let link = Link { rate: 400, delay: 50, queue: 64, ..Link::default() };
    let ours = vec![
        (Side::B, format!("router 2 --lasts 61 --listen {B}:7000")),
        (Side::B, format!("router 3 --lasts 61 --listen {B}:7001")),
        (Side::A, format!("router 1 --lasts 61 --sends 60 --pings 1000 --to 2@{B}:7000")),
        (Side::A, format!("router 4 --lasts 61 --sends 60 --rate 1 --to 3@{B}:7001")),
    ];
    let raw = vec![
        (Side::B, format!("raw --lasts 61 --listen {B}:7000")),
        (Side::B, format!("raw --lasts 61 --listen {B}:7001")),
        (Side::A, format!("raw --lasts 61 --sends 60 --pings 1000 --to {B}:7000")),
        (Side::A, format!("raw --lasts 61 --sends 60 --rate 1 --to {B}:7001")),
    ];
    Case {
        name: "urgent".into(),
        lasts: 61,
        settings: [ours, raw].map(|processes| Setting::new(link, processes)).into(),
        judge: Box::new(|reports| {
            let ratio =
                |at: usize, path| number(&reports[at], path) / number(&reports[at + 4], path);
            vec![
                Figure::new("ping, median, s", number(&reports[2], "/pings/p50"), Bound::None),
                Figure::new("ping, median, times raw", ratio(2, "/pings/p50"), Bound::AtMost(1.15)),
                Figure::new("ping, p99, times raw", ratio(2, "/pings/p99"), Bound::AtMost(1.15)),
                Figure::new("idle session, median, times raw", ratio(1, "/ages/p50"), Bound::None),
                Figure::new("bulk, of raw", ratio(0, "/received"), Bound::AtLeast(0.9)),
                Figure::zero("ended", number(&reports[2], "/ended")),
            ]
        }),
    }
}

// ---- shares and losses ------------------------------------------------------------------------

/// Ten sessions over one uplink: of a pool, and sockets by hand.
fn shares() -> Case {
    let link = Link { rate: 1_000, delay: 50, queue: 64, ..Link::default() };
    let port = |n: u16| 7_000 + n;
    let to = |peer: fn(u16) -> String| -> String {
        (0..10).map(|n| format!(" --to {}{B}:{}", peer(n), port(n))).collect()
    };
    let listen =
        |n: u16| (Side::B, format!("router {} --lasts 91 --listen {B}:{}", n + 2, port(n)));
    let mut ours: Vec<_> = (0..10).map(listen).collect();
    ours.push((
        Side::A,
        format!("router 1 --lasts 91 --sends 90{}", to(|n| format!("{}@", n + 2))),
    ));
    let listen = |n: u16| (Side::B, format!("raw --lasts 91 --listen {B}:{}", port(n)));
    let mut raw: Vec<_> = (0..10).map(listen).collect();
    raw.push((Side::A, format!("raw --lasts 91 --sends 90{}", to(|_| String::new()))));
    Case {
        name: "shares".into(),
        lasts: 91,
        settings: [ours, raw].map(|processes| Setting::new(link, processes)).into(),
        judge: Box::new(|reports| {
            let (ours, raw) = reports.split_at(11);
            let mut figures = nothing_ends(ours);
            figures.push(Figure::new("Jain's index", fairness(&ours[..10]), Bound::None));
            figures.push(Figure::new("that of raw", fairness(&raw[..10]), Bound::None));
            figures
        }),
    }
}

/// Jain's index of what these have received.
fn fairness(reports: &[Value]) -> f64 {
    let received: Vec<_> = reports.iter().map(|report| number(report, "/received")).collect();
    let sum: f64 = received.iter().sum();
    let squares: f64 = received.iter().map(|x| x * x).sum();
    sum * sum / (received.len() as f64 * squares)
}

/// A long way on which packets are lost: a pool, and a socket by hand, four times each.
fn lossy() -> Case {
    let link = Link { rate: 10_000, delay: 150, loss: 2.0, queue: 256, ..Link::default() };
    let ours = || {
        vec![
            (Side::B, format!("router 2 --lasts 91 --listen {B}:7000")),
            (Side::A, format!("router 1 --lasts 91 --sends 90 --to 2@{B}:7000")),
        ]
    };
    let raw = || {
        vec![
            (Side::B, format!("raw --lasts 91 --listen {B}:7000")),
            (Side::A, format!("raw --lasts 91 --sends 90 --to {B}:7000")),
        ]
    };
    let pair = || [ours(), raw()].map(|processes| Setting::new(link, processes));
    Case {
        name: "lossy".into(),
        lasts: 91,
        settings: (0..4).flat_map(|_| pair()).collect(),
        judge: Box::new(|reports| {
            let of = |at| -> f64 {
                reports.iter().skip(at).step_by(4).map(|r| number(r, "/received")).sum()
            };
            let ended = reports.iter().skip(1).step_by(4).map(|r| number(r, "/ended")).sum();
            vec![
                Figure::new("goodput, of raw", of(0) / of(2), Bound::AtLeast(0.97)),
                Figure::zero("ended", ended),
            ]
        }),
    }
}

// ---- what breaks off -----------------------------------------------------------------------------

/// How many links a cut is tried on.
const SEEDS: u32 = 10;

/// Messages that a connection without an answer may have in flight: what its congestion window lets out.
const IN_FLIGHT: f64 = 64.0;

/// Messages that wait for their peer wait this long: longer than any cut.
const CARRIES: &str = "--config carry_over='5m'";

/// A cut in traffic, and one while nothing is sent to a peer that is kept, in ten variations each.
fn cuts() -> Vec<Case> {
    let mut cases = Vec::new();
    for seconds in [5_u32, 15, 40, 120] {
        let (cut, lasts) = (f64::from(seconds), u64::from(seconds) + 40);
        let start = |seed: u32| 15.0 + f64::from(seed) * 0.137;
        let link = move |seed: u32| {
            let from = start(seed);
            let (delay, queue) = (10 + 10 * (seed % 8), 256);
            let cut = Some((from, from + cut));
            Link { rate: 10_000, delay, queue, cut, ..Link::default() }
        };
        let traffic = move |seed: u32| {
            let sends = format!("--lasts {lasts} --sends {} --rate 25 {CARRIES}", lasts - 10);
            let back = if seed.is_multiple_of(2) { "" } else { "--to 1@10.99.0.1:7000" };
            let processes = vec![
                (Side::B, format!("router 2 {sends} --listen {B}:7000 {back}")),
                (Side::A, format!("router 1 {sends} --listen {A}:7000 --to 2@{B}:7000")),
            ];
            Setting::new(link(seed), processes)
        };
        cases.push(Case {
            name: format!("cut of {seconds} s, traffic"),
            lasts,
            settings: (0..SEEDS).map(traffic).collect(),
            judge: Box::new(move |reports| nothing_lost(reports, |seed| start(seed) + cut)),
        });
        let idle = move |seed: u32| {
            let link = link(seed);
            let back = (start(seed) + cut + 2.0) * 1_000.0;
            let at = format!("--at 2000 --at {back:.0}");
            let processes = vec![
                (Side::B, format!("router 2 --lasts {lasts} --listen {B}:7000")),
                (Side::A, format!("router 1 --lasts {lasts} --keeps {at} --to 2@{B}:7000")),
            ];
            Setting::new(link, processes)
        };
        cases.push(Case {
            name: format!("cut of {seconds} s, idle"),
            lasts,
            settings: (0..SEEDS).map(idle).collect(),
            judge: Box::new(|reports| {
                let of_b = || reports.iter().step_by(2);
                let received: f64 = of_b().map(|report| number(report, "/received")).sum();
                let oldest = of_b().map(|r| number(r, "/ages/max")).fold(0.0, f64::max);
                let all = f64::from(2 * SEEDS);
                vec![
                    Figure::new("received", received, Bound::AtLeast(all)),
                    Figure::new("age 2 s after the cut, s", oldest, Bound::AtMost(1.0)),
                ]
            }),
        });
    }
    cases
}

/// All that was accepted has arrived, once, but what was in flight; and messages arrive again within two
/// seconds of the moment, in seconds since the link is up, at which they can.
fn nothing_lost(reports: &[Value], can_again: impl Fn(u32) -> f64) -> Vec<Figure> {
    let sum = |what: &str| -> f64 {
        reports.iter().map(|report| number(report, &format!("/{what}"))).sum()
    };
    let mut latest = 0.0_f64;
    for (seed, pair) in (0..).zip(reports.chunks(2)) {
        let at = number(&pair[0], "/since") + can_again(seed) * 1e6;
        latest = latest.max(back_after(&pair[0], at));
    }
    let lost = sum("accepted") - (sum("received") - sum("twice"));
    vec![
        Figure::new("back after, s", latest, Bound::AtMost(2.0)),
        Figure::new("accepted", sum("accepted"), Bound::AtLeast(100.0)),
        Figure::new("lost, a link", lost / (reports.len() as f64 / 2.0), Bound::AtMost(IN_FLIGHT)),
        Figure::new("carried over", sum("carried"), Bound::None),
        Figure::zero("given up", sum("given_up")),
        Figure::zero("twice", sum("twice")),
        Figure::zero("disordered", sum("disordered")),
    ]
}

/// How long after this moment messages arrive again, in seconds; 0 if they did all the time.
fn back_after(report: &Value, at: f64) -> f64 {
    let silences = report["silences"].as_array().map(Vec::as_slice).unwrap_or_default();
    let around = silences.iter().filter_map(|silence| {
        let (from, to) = (silence[0].as_f64()?, silence[1].as_f64()?);
        (from <= at && at < to).then_some((to - at) / 1e6)
    });
    around.fold(0.0, f64::max)
}

/// A process that does nothing for a minute, and then goes on.
fn stopped() -> Case {
    let setting = |seed: u32| {
        let sends = format!("--lasts 120 --sends 110 --rate 25 {CARRIES}");
        let link = Link { rate: 10_000, delay: 10 + 10 * seed, queue: 256, ..Link::default() };
        let processes = vec![
            (Side::B, format!("router 2 {sends} --listen {B}:7000")),
            (Side::A, format!("router 1 {sends} --to 2@{B}:7000")),
        ];
        let process = (seed % 2) as usize;
        let happens = Some(Happens::Stops { process, from: 15.0, to: 75.0 });
        Setting { happens, ..Setting::new(link, processes) }
    };
    Case {
        name: "stopped".into(),
        lasts: 120,
        settings: (0..4).map(setting).collect(),
        judge: Box::new(|reports| nothing_lost(reports, |_| 75.0)),
    }
}

/// A clock that is put two hours ahead, at one end and at the other.
fn ahead() -> Case {
    let setting = |seed: u32| {
        let sends = "--lasts 90 --sends 80 --rate 25";
        let link = Link { rate: 10_000, delay: 40, queue: 256, ..Link::default() };
        let jumps = |it| if it { "--ahead-from 15000" } else { "" };
        let processes = vec![
            (Side::B, format!("router 2 {sends} {} --listen {B}:7000", jumps(seed == 0))),
            (Side::A, format!("router 1 {sends} {} --to 2@{B}:7000", jumps(seed == 1))),
        ];
        Setting::new(link, processes)
    };
    Case {
        name: "clock ahead".into(),
        lasts: 90,
        settings: (0..2).map(setting).collect(),
        judge: Box::new(|reports| {
            let mut figures = nothing_lost(reports, |_| 15.0);
            figures.extend(nothing_ends(reports));
            figures
        }),
    }
}

/// A peer that has another address from some moment on, which the connector knows.
fn moving() -> Case {
    let setting = |seed: u32| {
        let sends = format!("--lasts 60 --sends 50 --rate 25 {CARRIES}");
        let link = Link { rate: 10_000, delay: 10 + 30 * seed, queue: 256, ..Link::default() };
        let moves = format!("--moves 15000:{ELSEWHERE}:7000");
        let processes = vec![
            (Side::B, format!("router 2 {sends} --listen 0.0.0.0:7000")),
            (Side::A, format!("router 1 {sends} {moves} --to 2@{B}:7000")),
        ];
        Setting { happens: Some(Happens::Moves { at: 15.0 }), ..Setting::new(link, processes) }
    };
    Case {
        name: "moving peer".into(),
        lasts: 60,
        settings: (0..4).map(setting).collect(),
        judge: Box::new(|reports| {
            let mut figures = nothing_lost(reports, |_| 15.0);
            figures[0] = figures[0].clone().at_most(15.0);
            figures
        }),
    }
}

// ---- the first message ---------------------------------------------------------------------------

/// From the call that dials to the arrival of its message, at a round trip of 200 ms.
fn first_messages() -> Case {
    let setting = |_| {
        let link = Link { rate: 10_000, delay: 100, queue: 256, ..Link::default() };
        let processes = vec![
            (Side::B, format!("router 2 --lasts 10 --listen {B}:7000")),
            (Side::A, format!("router 1 --lasts 10 --by-pool --at 2000 --to 2@{B}:7000")),
        ];
        Setting::new(link, processes)
    };
    Case {
        name: "first message".into(),
        lasts: 10,
        settings: (0..10).map(setting).collect(),
        judge: Box::new(|reports| {
            let slowest =
                reports.iter().step_by(2).map(|r| number(r, "/ages/max")).fold(0.0, f64::max);
            let received = reports.iter().step_by(2).map(|r| number(r, "/received")).sum();
            vec![
                Figure::new("received", received, Bound::AtLeast(10.0)),
                Figure::new("round trips, the slowest", slowest / 0.2, Bound::AtMost(2.6)),
            ]
        }),
    }
}

/// Both ends dial at the same moment, each with a message: one dial is refused, and loses nothing.
fn crossing() -> Case {
    let setting = |seed: u32| {
        let link = Link { rate: 10_000, delay: 100, queue: 256, ..Link::default() };
        let (ours, theirs) = (3_000, 3_000 + 10 * (seed % 5));
        let processes = vec![
            (
                Side::B,
                format!(
                    "router 2 --lasts 10 --listen {B}:7000 --by-pool --at {ours} --to 1@{A}:7000"
                ),
            ),
            (
                Side::A,
                format!(
                    "router 1 --lasts 10 --listen {A}:7000 --by-pool --at {theirs} --to 2@{B}:7000"
                ),
            ),
        ];
        Setting::new(link, processes)
    };
    Case {
        name: "crossing dials".into(),
        lasts: 10,
        settings: (0..20).map(setting).collect(),
        judge: Box::new(|reports| {
            let sum = |what| reports.iter().map(|r| number(r, what)).sum::<f64>();
            vec![
                Figure::new("accepted", sum("/accepted"), Bound::AtLeast(40.0)),
                Figure::zero("lost", sum("/accepted") - sum("/received")),
                Figure::zero("twice", sum("/twice")),
                Figure::new("crossed", sum("/crossed"), Bound::AtLeast(10.0)),
            ]
        }),
    }
}
