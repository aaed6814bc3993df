//! Two peers on two terminals or two machines: make a key, listen, send lines, measure round trips.
//!
//! ```text
//! peer keygen --file alice.key
//! peer listen --key alice.key --addr 0.0.0.0:4444      prints <peer>@<addr>
//! echo hello | peer send <peer>@<addr>
//! peer ping <peer>@<addr> -c 5
//! ```
//!
//! What a command prints as its result goes to standard output, everything else to standard error.
//! Exit codes: 0 done; 1 failed, or not all of it was delivered or answered; 2 wrong arguments.
//! This file owns the command line and what the commands share: building a pool, telling errors.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use noise_pool::config::Suite;
use noise_pool::{Config, Identity, Inbox, Pool};

mod listen;
mod ping;
mod send;

/// What ends a command.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Ctrl-C.
#[cfg(unix)]
pub(crate) type Interrupts = tokio::signal::unix::Signal;
#[cfg(windows)]
pub(crate) type Interrupts = tokio::signal::windows::CtrlC;

/// From here on Ctrl-C does not end the program by itself, and none is missed. To be called before
/// anything is printed by which others could know that the program runs.
pub(crate) fn interrupts() -> io::Result<Interrupts> {
    #[cfg(unix)]
    return tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt());
    #[cfg(windows)]
    return tokio::signal::windows::ctrl_c();
}

/// How long the goodbye may take: both sides flush, and tell each other what they received.
pub(crate) const DRAIN_AT_MOST: Duration = Duration::from_secs(10);

/// Sends and receives over encrypted, authenticated sessions.
#[derive(Parser)]
#[command(name = "peer", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes a new key file and prints its peer id
    Keygen {
        /// The file; an existing one is never replaced
        #[arg(long, default_value = "peer.key")]
        file: PathBuf,
    },
    /// Prints <peer>@<addr>, then each message received with its sender, until Ctrl-C
    Listen(listen::Listen),
    /// Sends each line of standard input as one message
    Send(send::SendLines),
    /// Measures round-trip times
    Ping(ping::Ping),
}

/// Who we are, and in which network.
#[derive(Args)]
pub(crate) struct Node {
    /// Key file [default: a new key for this run]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// Name of the network; peers of another one cannot connect
    #[arg(long, default_value = "")]
    network: String,

    /// Noise suite; one for a whole network
    #[arg(long, value_enum, default_value_t = SuiteName::ChachapolyBlake2s)]
    suite: SuiteName,
}

#[derive(Clone, Copy, ValueEnum)]
enum SuiteName {
    /// ChaCha20-Poly1305 with BLAKE2s
    ChachapolyBlake2s,
    /// AES-256-GCM with SHA-256
    AesgcmSha256,
}

impl Node {
    /// A pool for this node, and what it receives.
    pub(crate) fn open(&self) -> Result<(Pool, Inbox), Failure> {
        // Never made up here if the file is missing: a mistyped path must not become a new identity.
        let identity = match &self.key {
            Some(file) => Identity::load(file)?,
            None => Identity::generate(),
        };
        let suite = match self.suite {
            SuiteName::ChachapolyBlake2s => Suite::ChaChaPolyBlake2s,
            SuiteName::AesgcmSha256 => Suite::AesGcmSha256,
        };
        let config = Config::default().suite(suite).network_id(self.network.clone().into_bytes());
        Ok(Pool::builder(identity).config(config).build()?)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Keygen { file } => keygen(&file),
        Command::Listen(listen) => listen.run().await,
        Command::Send(send) => send.run().await,
        Command::Ping(ping) => ping.run().await,
    };
    result.unwrap_or_else(|error| {
        eprintln!("peer: {}", chain(error.as_ref()));
        ExitCode::FAILURE
    })
}

fn keygen(file: &PathBuf) -> Result<ExitCode, Failure> {
    let identity = Identity::generate();
    identity.save(file)?;
    println!("{}", identity.peer_id());
    Ok(ExitCode::SUCCESS)
}

/// An error with all its causes: the outermost alone seldom says what to do.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Some errors already quote their cause.
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
