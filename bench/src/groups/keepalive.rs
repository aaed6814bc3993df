//! G11: what it costs to keep idle sessions alive.
//!
//! Both ends are in this process, so that its processor time is that of both: of ten thousand session
//! ends, half begin the pings and half answer, as it is in a router with ten thousand sessions. Pings
//! are sent more often than once a minute and the time is scaled: what they cost does not depend on
//! how often they are sent.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::ends::crowd::{quiet, runtime};
use crate::ends::mesh::{Node, connect, nodes};
use crate::harness::{Settings, Spread};
use crate::process::processor_time;
use crate::report::{Figure, Report, number};

/// Pools on one side and on the other.
const SIDES: (usize, usize) = (50, 100);
/// Files besides sockets of sessions: listeners, and whatever a process has.
const OTHER_FILES: u64 = 500;
const MINUTE: Duration = Duration::from_secs(60);
const WANTED_ENDS: f64 = 10_000.0;

pub fn run(settings: &Settings, report: &mut Report) {
    let keepalive = Duration::from_secs(if settings.quick { 3 } else { 10 });
    let windows = if settings.quick { 3 } else { 5 };
    runtime().block_on(async {
        // Where fewer files may be open, fewer sessions are measured, and the time is scaled.
        let one_side = (files() - OTHER_FILES) / 2 / SIDES.1 as u64;
        let config = quiet(1_000).keepalive(keepalive).ping_after(keepalive / 2);
        let one = nodes(SIDES.0.min(one_side as usize), &config).await;
        let other = nodes(SIDES.1, &config).await;
        connect(&one, &other).await;
        let sessions = one.len() * other.len();
        let ends = 2.0 * sessions as f64;

        // The first pings are under way when the sessions are a period old.
        tokio::time::sleep(keepalive).await;
        let mut shares = Vec::new();
        let mut frames = Vec::new();
        for _ in 0..windows {
            let (bytes, used, began) = (written(&one), processor_time(), Instant::now());
            tokio::time::sleep(keepalive).await;
            let (used, passed) = (processor_time() - used, began.elapsed());
            frames.push((written(&one) - bytes) as f64 / sessions as f64);
            let times_a_minute = MINUTE.as_secs_f64() / keepalive.as_secs_f64();
            let share = used.as_secs_f64() / passed.as_secs_f64() / times_a_minute;
            shares.push(100.0 * share * WANTED_ENDS / ends);
        }
        for node in one.iter().chain(&other) {
            let peers =
                if node.pool.local_addrs() == [node.address] { node.pool.peers().len() } else { 0 };
            assert!(peers == one.len() || peers == other.len(), "a session has died");
        }
        let [share, bytes] = [shares, frames].map(Spread::of);
        assert!(bytes.median > 0.0, "nothing was sent");
        report.rows(
            "Idle sessions kept alive, both ends in this process, TCP on loopback",
            &[
                "session ends",
                "a ping each",
                "bytes written per session and period",
                "% of a core, 10,000 ends once a minute",
                "spread",
            ],
            vec![vec![
                number(ends),
                format!("{} s", keepalive.as_secs()),
                number(bytes.median),
                number(share.median),
                format!("{} to {}", number(share.low), number(share.high)),
            ]],
        );
        report.target("G11", vec![Figure::at_most("% of a core", share.median, 2.0, Some(1.0))]);
    });
}

/// What all sessions of one side have written.
fn written(nodes: &[Node]) -> u64 {
    nodes.iter().map(|node| node.pool.stats().bytes_out).sum()
}

/// How many files may be open, after asking for as many as are allowed.
fn files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
