//! G4: ten thousand tasks that want the same absent peer.

use std::time::{Duration, Instant};

use noise_pool::{Identity, Inbox, Pool, Target};
use tokio::runtime::Runtime;

use crate::ends::crowd::runtime;
use crate::harness::{Case, Settings, Spread, measure};
use crate::process::processor_time;
use crate::report::{Figure, Report};

const OURS: &str = "noise-pool, get_or_dial";
const LIMIT: &str = "limit: spawn and join, then one dial";
const TASKS: usize = 10_000;

/// Two pools over TCP, and who dials whom.
struct Pair {
    near: Pool,
    far: Pool,
    target: Target,
    _inboxes: [Inbox; 2],
}

pub fn run(settings: &Settings, report: &mut Report) {
    let runtime = runtime();
    let pair = runtime.block_on(Pair::new());
    let (mut herds, mut errors, mut max, mut min) = (0_u64, 0, 0, u64::MAX);
    let (mut used, mut used_by_limit) = (Vec::new(), Vec::new());
    let mut herd = |_| {
        let (before, began) = (pair.handshakes(), processor_time());
        let (time, failed) = pair.herd(&runtime);
        used.push((processor_time() - began).as_secs_f64());
        let handshakes = pair.handshakes() - before;
        herds += 1;
        errors += failed;
        (max, min) = (max.max(handshakes), min.min(handshakes));
        runtime.block_on(pair.part());
        time
    };
    let results = measure(
        settings,
        vec![
            Case::of(OURS, 1, &mut herd),
            Case::of(LIMIT, 1, |_| {
                let began = processor_time();
                let time = spawned(&runtime) + pair.dialled(&runtime);
                used_by_limit.push((processor_time() - began).as_secs_f64());
                runtime.block_on(pair.part());
                time
            }),
        ],
    );
    let processor = Spread::of(used.iter().zip(&used_by_limit).map(|(a, b)| a / b).collect());
    let title = format!("{TASKS} tasks, one absent peer, TCP on loopback");
    report.results(&title, "herd", &results);
    report.target(
        "G4",
        vec![
            Figure::at_most("handshakes, at most", max as f64, 1.0, None),
            Figure::at_least("handshakes, at least", min as f64, 1.0, None),
            Figure::at_most("errors", errors as f64, 0.0, None),
            Figure::at_most("times the limit", results.ratio(OURS, LIMIT).median, 2.0, Some(1.3)),
            Figure::plain("times the limit's processor time", processor.median),
            Figure::plain("herds", herds as f64),
        ],
    );
}

impl Pair {
    async fn new() -> Self {
        let build = || Pool::builder(Identity::generate()).build().expect("the defaults hold");
        let ((near, one), (far, other)) = (build(), build());
        let address = far.listen(([127, 0, 0, 1], 0).into()).await.expect("loopback is there");
        let target = Target::new(far.id()).address(address);
        Self { near, far, target, _inboxes: [one, other] }
    }

    /// Dials begun and handshakes accepted so far: of each the larger count.
    fn handshakes(&self) -> u64 {
        self.near.stats().dials.max(self.far.stats().handshakes_accepted)
    }

    /// All tasks ask, and all must get the same session; how many did not.
    fn herd(&self, runtime: &Runtime) -> (Duration, usize) {
        let (pool, target) = (self.near.clone(), self.target.clone());
        in_task(runtime, async move {
            let began = Instant::now();
            let tasks: Vec<_> = (0..TASKS)
                .map(|_| {
                    let (pool, target) = (pool.clone(), target.clone());
                    tokio::spawn(async move {
                        pool.get_or_dial(target).await.map(|lease| lease.session_id())
                    })
                })
                .collect();
            let mut sessions = Vec::with_capacity(TASKS);
            for task in tasks {
                sessions.extend(task.await.expect("it does not panic").ok());
            }
            let time = began.elapsed();
            let same = sessions.iter().filter(|session| **session == sessions[0]).count();
            (time, TASKS - same)
        })
    }

    /// One dial and its handshake.
    fn dialled(&self, runtime: &Runtime) -> Duration {
        let (pool, target) = (self.near.clone(), self.target.clone());
        in_task(runtime, async move {
            let began = Instant::now();
            let lease = pool.get_or_dial(target).await;
            let time = began.elapsed();
            assert!(lease.is_ok(), "the peer is there");
            time
        })
    }

    /// Ends the session, so that the peer is absent again.
    async fn part(&self) {
        const SOON: Duration = Duration::from_secs(5);
        self.near.drain_peer(&self.far.id(), SOON).await;
        self.far.drain_peer(&self.near.id(), SOON).await;
        assert!(!self.near.contains(&self.far.id()) && !self.far.contains(&self.near.id()));
    }
}

/// As many tasks that do nothing.
fn spawned(runtime: &Runtime) -> Duration {
    in_task(runtime, async {
        let began = Instant::now();
        let tasks: Vec<_> = (0..TASKS as u64).map(|n| tokio::spawn(async move { n })).collect();
        let mut sum = 0;
        for task in tasks {
            sum += task.await.expect("it does not panic");
        }
        let time = began.elapsed();
        assert_eq!(sum, (TASKS as u64 - 1) * TASKS as u64 / 2);
        time
    })
}

/// On a thread of the runtime, where tasks are spawned by tasks.
fn in_task<T: Send + 'static>(
    runtime: &Runtime,
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    runtime.block_on(runtime.spawn(work)).expect("it does not panic")
}
