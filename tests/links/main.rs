//! Pools on links as routers have them: the kernel's TCP between network namespaces, over an emulated
//! link that is slow, long, lossy or cut.
//!
//! `.ci/run --only links` builds it optimised and runs it; plain `cargo test` does not. It needs Linux,
//! root, `ip` of iproute2, Python 3 and `/dev/net/tun`, and says which of them is missing. Nothing leaves
//! the namespaces that it makes.
//!
//! Each case has a link of its own (`link.py`) and a process at either end, which is this program once
//! more. Cases run at the same time, since they wait most of it: first the links that are full, then those
//! that break. Each prints its figures, and what they must be.
//!
//! `links NAME...` runs the cases whose names begin so.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod cases;
mod figures;
mod link;
mod load;
mod raw;
mod router;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    end: Option<End>,
    /// The cases to run; without any, all.
    names: Vec<String>,
}

/// What a process at one end of a link does.
#[derive(Subcommand)]
enum End {
    /// It has a pool.
    Router(router::Options),
    /// It has a plain socket, used as well as one can by hand.
    Raw(raw::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match arguments.end {
        Some(End::Router(options)) => runtime.block_on(router::run(options)),
        Some(End::Raw(options)) => runtime.block_on(raw::run(options)),
        None => {
            let missing = link::missing();
            if !missing.is_empty() {
                eprintln!("The links cannot be made. What is missing: {}", missing.join("; "));
                return ExitCode::from(2);
            }
            if runtime.block_on(cases::run(&arguments.names)) {
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
