//! The cases: which links there are, what goes over them, and what must come of it.

use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::figures::{Bound, Figure, number};
use crate::link::{Link, Side, Up};

const A: &str = "10.99.0.1";
const B: &str = "10.99.0.2";

/// A link, and a process for each line: at which end, and what it does.
struct Setting {
    link: Link,
    processes: Vec<(Side, String)>,
}

/// Links that are judged together.
struct Case {
    name: String,
    /// In seconds.
    lasts: u64,
    settings: Vec<Setting>,
    /// Is given the reports of all processes, in their order.
    judge: fn(&[Value]) -> Vec<Figure>,
}

/// Runs the cases whose names begin with one of `names`, or all; whether one has missed a figure.
pub(crate) async fn run(names: &[String]) -> bool {
    let wanted = |case: &Case| {
        names.is_empty() || names.iter().any(|name| case.name.starts_with(name.as_str()))
    };
    let (mut running, mut links) = (JoinSet::new(), 0);
    for case in all().into_iter().filter(wanted) {
        let first = links;
        links += case.settings.len();
        running.spawn(async move { (case.name.clone(), one(case, first).await) });
    }
    assert!(!running.is_empty(), "no case has such a name");
    let mut missed = false;
    while let Some(done) = running.join_next().await {
        let (name, figures) = done.expect("it says above what is wrong");
        println!("{name}");
        for figure in &figures {
            println!("    {figure}");
        }
        missed |= figures.iter().any(|figure| !figure.holds());
    }
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
    let mut reports = Vec::new();
    for process in processes {
        reports.push(process.report(Duration::from_secs(lasts)).await);
    }
    reports
}

fn all() -> Vec<Case> {
    let mut cases = bulk();
    cases.extend([slow_application(), deadlines(), urgent(), shares(), lossy()]);
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
                    settings: vec![Setting { link, processes }],
                    judge: |reports| {
                        let received: f64 = reports.iter().map(|r| number(r, "/received")).sum();
                        let mut figures = nothing_ends(reports);
                        figures.push(Figure::new("received", received, Bound::AtLeast(500.0)));
                        figures
                    },
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
        settings: vec![Setting { link, processes }],
        judge: |reports| {
            let mut figures = nothing_ends(reports);
            let received = number(&reports[0], "/received");
            figures.push(Figure::new("received", received, Bound::AtLeast(5_000.0)));
            figures
        },
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
        settings: [ours, raw].map(|processes| Setting { link, processes }).into(),
        judge: |reports| {
            let ratio = |path| number(&reports[0], path) / number(&reports[2], path);
            vec![
                Figure::new("age, median, s", number(&reports[0], "/ages/p50"), Bound::None),
                Figure::new("age, p99, s", number(&reports[0], "/ages/p99"), Bound::None),
                Figure::new("age, median, times raw", ratio("/ages/p50"), Bound::AtMost(1.15)),
                Figure::new("age, p99, times raw", ratio("/ages/p99"), Bound::AtMost(1.15)),
                Figure::new("messages, of raw", ratio("/received"), Bound::AtLeast(0.9)),
                Figure::zero("ended", number(&reports[1], "/ended")),
            ]
        },
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
        settings: [ours, raw].map(|processes| Setting { link, processes }).into(),
        judge: |reports| {
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
        },
    }
}

// ---- shares and losses ------------------------------------------------------------------------

/// Ten sessions over one uplink.
fn shares() -> Case {
    let link = Link { rate: 1_000, delay: 50, queue: 64, ..Link::default() };
    let port = |n: u16| 7_000 + n;
    let listen =
        |n: u16| (Side::B, format!("router {} --lasts 91 --listen {B}:{}", n + 2, port(n)));
    let mut processes: Vec<_> = (0..10).map(listen).collect();
    let to: String = (0..10).map(|n| format!(" --to {}@{B}:{}", n + 2, port(n))).collect();
    processes.push((Side::A, format!("router 1 --lasts 91 --sends 90{to}")));
    Case {
        name: "shares".into(),
        lasts: 91,
        settings: vec![Setting { link, processes }],
        judge: |reports| {
            let received: Vec<_> = reports[..10].iter().map(|r| number(r, "/received")).collect();
            let sum: f64 = received.iter().sum();
            let squares: f64 = received.iter().map(|x| x * x).sum();
            let mut figures = nothing_ends(reports);
            figures.push(Figure::new("Jain's index", sum * sum / (10.0 * squares), Bound::None));
            figures
        },
    }
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
    let pair = || [ours(), raw()].map(|processes| Setting { link, processes });
    Case {
        name: "lossy".into(),
        lasts: 91,
        settings: (0..4).flat_map(|_| pair()).collect(),
        judge: |reports| {
            let of = |at| -> f64 {
                reports.iter().skip(at).step_by(4).map(|r| number(r, "/received")).sum()
            };
            let ended = reports.iter().skip(1).step_by(4).map(|r| number(r, "/ended")).sum();
            vec![
                Figure::new("goodput, of raw", of(0) / of(2), Bound::AtLeast(0.97)),
                Figure::zero("ended", ended),
            ]
        },
    }
}
