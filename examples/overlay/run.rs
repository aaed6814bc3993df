//! The course of a run: waves of restarts under traffic, and a quiet point after each.
//!
//! Owns the order of events and what they show. It never touches a message, and never counts one.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use indicatif::{ProgressBar, ProgressStyle};
use noise_pool::Identity;
use noise_pool::config::Suite;
use noise_pool::snapshot::Snapshot;
use rand::rngs::StdRng;
use rand::seq::index;
use rand::{Rng, SeedableRng};
use tokio::sync::RwLock;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::Failure;
use crate::cli::Options;
use crate::ledger::Ledger;
use crate::netdb::NetDb;
use crate::report::{PoolTotals, Report};
use crate::rest::{self, Assessment, View};
use crate::router::{Overlay, Router};
use crate::source::{self, Traffic};

/// Sources of each router: several tasks that want the same session at the same time.
const SOURCES: usize = 4;
/// Routers that restart at the same moment, so that draining pools meet each other.
const WAVE: usize = 2;
/// The pace at which the course of the run looks at the books.
const LOOK: Duration = Duration::from_millis(5);
/// After a kill: without an arrival for so long, what is missing is lost.
const LOST_AFTER: Duration = Duration::from_secs(2);
/// The same without a kill. No dial and no pause before a repeated send takes so long, so the run
/// need not wait for its deadline to fail.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// How long the network may take to settle once no message is under way.
const SETTLE_AT_MOST: Duration = Duration::from_secs(10);
/// The pace of the progress bar, and every tenth time of the snapshot file.
const PROGRESS: Duration = Duration::from_millis(100);

/// The run: the network, and what has been found out about it.
pub(crate) struct Run {
    pub(crate) options: Options,
    pub(crate) overlay: Arc<Overlay>,
    pub(crate) routers: Vec<Arc<Router>>,
    pub(crate) progress: ProgressBar,
    found: Mutex<Found>,
}

/// What the course of the run finds out.
#[derive(Clone, Copy, Default)]
struct Found {
    restarts: u32,
    kills: u32,
    /// Kills whose losses are known.
    kills_settled: u32,
    lost_to_kills: u64,
    max_drain: Duration,
    drain_unknown: u64,
    quiet_points: u32,
    max_per_pair: usize,
    sessions: usize,
    interrupted: bool,
    /// Counters of the pools that have ended.
    ended: PoolTotals,
}

impl Run {
    /// A network of routers that are down.
    pub(crate) fn new(options: Options, rng: &mut StdRng) -> Result<Self, Failure> {
        let mut identities = Vec::new();
        for _ in 0..options.routers {
            let mut secret = [0; 32];
            rng.fill_bytes(&mut secret);
            identities.push(Identity::from_secret(secret));
        }
        let routers = usize::from(options.routers);
        let overlay = Arc::new(Overlay {
            netdb: NetDb::new(identities.iter().map(Identity::peer_id)),
            ledger: Ledger::new(routers, options.messages, options.window())?,
            gate: RwLock::new(()),
            config: options.config(),
        });
        let routers = (0..)
            .zip(identities)
            .map(|(number, identity)| Router::new(number, identity, overlay.clone()));
        // Hidden where standard error is no terminal.
        let progress = ProgressBar::new(options.messages).with_style(ProgressStyle::with_template(
            "{elapsed_precise} {bar:40} {human_pos}/{human_len} delivered, {per_sec} {msg}",
        )?);
        Ok(Self { routers: routers.collect(), overlay, progress, found: Mutex::default(), options })
    }

    /// Starts all routers.
    pub(crate) async fn start(&self) -> Result<(), Failure> {
        try_join_all(self.routers.iter().map(Router::start)).await?;
        Ok(())
    }

    /// Starts what goes on beside the course: the sources, the progress bar, the ear for Ctrl-C,
    /// which fires `cut` the second time. Dropping the set ends them.
    pub(crate) fn background(
        self: &Arc<Self>,
        rng: &mut StdRng,
        cut: &CancellationToken,
    ) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for router in &self.routers {
            for _ in 0..SOURCES {
                let rng = StdRng::from_rng(rng);
                let overlay = self.overlay.clone();
                tasks.spawn(source::run(router.clone(), overlay, self.traffic(), rng));
            }
        }
        tasks.spawn(self.clone().show_progress());
        tasks.spawn(self.clone().interrupts(cut.clone()));
        tasks
    }

    fn traffic(&self) -> Traffic {
        Traffic { hops: usize::from(self.options.hops), size: self.options.message_size }
    }

    /// Waves of restarts, spread evenly over the messages; a quiet point after each and at the end.
    pub(crate) async fn course(&self, rng: &mut StdRng) -> Result<Vec<Snapshot>, Failure> {
        let restarts = u64::from(self.options.restarts);
        let mut begun = 0;
        while begun < restarts {
            let due = u128::from(self.options.messages) * u128::from(begun + 1);
            if !self.sent(due / u128::from(restarts + 1)).await {
                break;
            }
            let wave = index::sample(rng, self.routers.len(), WAVE.min(self.routers.len()));
            let wave = (begun..restarts).zip(wave).map(|(nth, router)| {
                let kill = self.options.kill && nth % 2 == 0;
                self.restart(&self.routers[router], kill)
            });
            begun += try_join_all(wave).await?.len() as u64;
            self.quiet_point().await;
        }
        self.sent(u128::from(self.options.messages)).await;
        Ok(self.quiet_point().await)
    }

    /// Waits until so many messages have been sent; false: none is sent any more.
    async fn sent(&self, due: u128) -> bool {
        while u128::from(self.overlay.ledger.counts().sent) < due {
            if self.overlay.ledger.is_stopped() {
                return false;
            }
            sleep(LOOK).await;
        }
        true
    }

    /// One restart, from the last message of the old pool to the first of its successor.
    async fn restart(&self, router: &Arc<Router>, kill: bool) -> Result<(), Failure> {
        let verb = if kill { "kills" } else { "drains" };
        (self.progress).set_message(format!("{verb} router {}", router.number));
        let ended = if kill {
            router.kill().await.map(|last| (last, None))
        } else {
            router.leave().await.map(|(last, report)| (last, Some(report)))
        };
        if let Some((last, report)) = ended {
            self.note(|found| {
                found.restarts += 1;
                found.kills += u32::from(kill);
                found.ended.add(&last.stats);
                if let Some(report) = report {
                    found.max_drain = found.max_drain.max(report.elapsed);
                    found.drain_unknown += report.messages.unknown;
                }
            });
        }
        router.start().await
    }

    /// Halts all sources, waits until nothing is under way, and looks at every session.
    async fn quiet_point(&self) -> Vec<Snapshot> {
        self.progress.set_message("looks at all sessions");
        let _closed = self.overlay.gate.write().await;
        self.arrivals().await;

        let patience = Instant::now() + SETTLE_AT_MOST;
        let (snapshots, seen) = loop {
            let (snapshots, seen) = self.look();
            if seen.unsettled == 0 {
                break (snapshots, seen);
            }
            if Instant::now() > patience {
                let Assessment { unsettled, .. } = seen;
                (self.overlay.ledger)
                    .fault(format_args!("{unsettled} dials or ends of sessions did not settle"));
                break (snapshots, seen);
            }
            sleep(LOOK).await;
        };
        self.note(|found| {
            found.quiet_points += 1;
            found.sessions = seen.sessions;
            found.max_per_pair = found.max_per_pair.max(seen.max_per_pair);
        });
        self.progress.set_message("");
        snapshots
    }

    /// Waits until every message has arrived or is known to be lost.
    async fn arrivals(&self) {
        let ledger = &self.overlay.ledger;
        let found = self.found();
        let killed = found.kills > found.kills_settled;
        let patience = if killed { LOST_AFTER } else { STUCK_AFTER };
        let mut before = ledger.in_flight();
        let mut since = Instant::now();
        while before > 0 && since.elapsed() < patience {
            sleep(LOOK).await;
            let now = ledger.in_flight();
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
        let lost = ledger.write_off();
        self.note(|found| {
            found.kills_settled = found.kills;
            found.lost_to_kills += if killed { lost } else { 0 };
        });
    }

    fn look(&self) -> (Vec<Snapshot>, Assessment) {
        let pools = self.routers.iter().filter_map(|router| router.pool());
        let (snapshots, views): (Vec<_>, Vec<_>) = pools
            .map(|pool| {
                let snapshot = pool.snapshot();
                let view = View::of(&pool, &snapshot);
                (snapshot, view)
            })
            .unzip();
        let seen = rest::assess(&views);
        (snapshots, seen)
    }

    /// Snapshots of all routers that run.
    pub(crate) fn snapshots(&self) -> Vec<Snapshot> {
        self.look().0
    }

    /// Drains all pools at once.
    pub(crate) async fn end(&self) {
        let ends = self.routers.iter().map(|router| router.leave());
        for (_, report) in join_all(ends).await.into_iter().flatten() {
            self.note(|found| {
                found.max_drain = found.max_drain.max(report.elapsed);
                found.drain_unknown += report.messages.unknown;
            });
        }
    }

    async fn show_progress(self: Arc<Self>) {
        let mut tick = interval(PROGRESS);
        for nth in 1_u64.. {
            tick.tick().await;
            self.progress.set_position(self.overlay.ledger.counts().delivered);
            if nth % 10 == 0
                && let Err(error) = self.save_snapshot().await
            {
                self.overlay.ledger.fault(error);
                return;
            }
        }
    }

    /// The first Ctrl-C stops the sources, and the run ends in order; the second cuts it short.
    async fn interrupts(self: Arc<Self>, cut: CancellationToken) {
        if tokio::signal::ctrl_c().await.is_err() {
            return;
        }
        self.note(|found| found.interrupted = true);
        self.overlay.ledger.stop();
        if tokio::signal::ctrl_c().await.is_ok() {
            cut.cancel();
        }
    }

    /// Replaces the snapshot file, if one is asked for and its router runs; never leaves half a file.
    pub(crate) async fn save_snapshot(&self) -> Result<(), Failure> {
        let (Some(file), Some(pool)) = (&self.options.snapshot, self.routers[0].pool()) else {
            return Ok(());
        };
        let bytes = pool.snapshot().encode()?;
        let mut partial = file.as_os_str().to_owned();
        partial.push(".part");
        let save = async {
            tokio::fs::write(&partial, bytes).await?;
            tokio::fs::rename(Path::new(&partial), file).await
        };
        save.await.map_err(|error| format!("writing {}: {error}", file.display()).into())
    }

    /// Everything that is known, judged.
    pub(crate) fn report(
        &self,
        seed: u64,
        elapsed: Duration,
        snapshots: &[Snapshot],
    ) -> Result<Report, Failure> {
        let ledger = &self.overlay.ledger;
        let counts = ledger.counts();
        let latency = ledger.latency()?;
        let found = self.found();
        let mut pools = found.ended;
        snapshots.iter().for_each(|last| pools.add(&last.stats));
        let lost_to_kills = found.lost_to_kills.min(counts.missing());
        let report = Report {
            failures: ledger.faults(),
            interrupted: found.interrupted,
            routers: self.options.routers,
            hops: self.options.hops,
            message_size: self.options.message_size,
            suite: Suite::from(self.options.suite).to_string(),
            seed,
            messages_sent: counts.sent,
            messages_delivered: counts.delivered,
            messages_lost: counts.missing() - lost_to_kills,
            messages_lost_to_kills: lost_to_kills,
            messages_duplicated: counts.duplicated,
            sends_retried: counts.retried,
            sessions_open: found.sessions,
            max_sessions_per_pair: found.max_per_pair,
            quiet_points: found.quiet_points,
            pools,
            restarts: found.restarts,
            kills: found.kills,
            drain_ms_max: found.max_drain.as_secs_f64() * 1e3,
            drain_unknown: found.drain_unknown,
            elapsed_s: elapsed.as_secs_f64(),
            messages_per_s: counts.delivered as f64 / elapsed.as_secs_f64(),
            latency_us_p50: latency.value_at_quantile(0.5),
            latency_us_p99: latency.value_at_quantile(0.99),
            latency_us_max: latency.max(),
            ..Report::default()
        };
        Ok(report.judge())
    }

    fn found(&self) -> Found {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, note: impl FnOnce(&mut Found)) {
        note(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
