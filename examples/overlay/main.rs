//! An overlay of routers in one process: every router has its own key, pool and TCP listener, and
//! they push messages along random source-routed paths while some of them restart.
//!
//! ```text
//! cargo run --release --example overlay -- --help
//! ```
//!
//! What to read first: `router.rs` is what a router author would write, `netdb.rs` shows the
//! `Connector` seam, and `run.rs` tells the course of a run. The rest measures. This file owns the
//! beginning and the end of the process.

use std::collections::HashMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cli::Options;
use crate::report::Report;
use crate::run::Run;

mod cli;
mod ledger;
mod netdb;
mod packet;
mod report;
mod rest;
mod router;
mod run;
mod source;

/// What stops the whole run.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long the end of the pools may take once the run is over.
const END_AT_MOST: Duration = Duration::from_secs(20);
/// What a shell expects of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    if let Err(error) = options.check() {
        let kind = clap::error::ErrorKind::ArgumentConflict;
        Options::command().error(kind, error).exit();
    }
    match run(options).await {
        Ok(report) if !report.ok => ExitCode::FAILURE,
        Ok(report) if report.interrupted => ExitCode::from(INTERRUPTED),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overlay: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// From the first router's start to the report's last line.
async fn run(options: Options) -> Result<Report, Failure> {
    let seed = options.seed.unwrap_or_else(|| rand::rng().random());
    let mut rng = StdRng::seed_from_u64(seed);
    let run = Arc::new(Run::new(options, &mut rng)?);
    run.start().await?;
    run.save_snapshot().await?;
    let cut = CancellationToken::new();
    let mut tasks = run.background(&mut rng, &cut);

    // Dropping the course half-way is safe: the books are always right, they just do not balance.
    let course = timeout(run.options.deadline(), run.course(&mut rng));
    let snapshots = match cut.run_until_cancelled(course).await {
        Some(Ok(result)) => result?,
        Some(Err(_)) => {
            let seconds = run.options.deadline;
            (run.overlay.ledger).fault(format_args!("not done within {seconds} s"));
            run.snapshots()
        }
        None => run.snapshots(),
    };
    let elapsed = run.overlay.ledger.elapsed();
    run.save_snapshot().await?;
    tasks.shutdown().await;
    if timeout(END_AT_MOST, run.end()).await.is_err() {
        run.overlay.ledger.fault("the pools did not end in time");
    }
    run.progress.finish_and_clear();

    let report = run.report(seed, elapsed, &snapshots)?;
    let out = &mut io::stdout().lock();
    if run.options.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        let numbers: HashMap<_, _> = run.routers.iter().map(|r| (r.peer, r.number)).collect();
        report::print_sessions(out, &snapshots, &numbers)?;
        report.print(out)?;
    }
    Ok(report)
}

/// An error with all its causes: the outermost alone seldom says what to do.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
