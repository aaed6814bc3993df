//! The options, and what follows from them before anything runs.
//!
//! Owns every bound on an option: what passes here cannot fail later for its value.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use noise_pool::Config;
use noise_pool::config::Suite;

use crate::packet;

/// What all messages under way may take together. The window of each source follows from it.
const IN_FLIGHT_BYTES: usize = 4 << 20;
/// The largest window, in messages: enough to keep every session busy, and a short queue, so that
/// the latency shown is not all waiting.
const WINDOW_MOST: usize = 64;
/// What a pool adds to a message's length when it counts its queues, and some.
const BOOKKEEPING: usize = 128;

/// Runs an overlay of routers in one process: random source-routed paths over real TCP sessions,
/// while routers restart.
///
/// Exits with 1 if a message arrived twice or damaged, if a pair of routers held two sessions at
/// rest, or, without --kill, if a message was lost; with 130 after Ctrl-C.
#[derive(Clone, Debug, Parser)]
#[command(name = "overlay", version)]
pub(crate) struct Options {
    /// How many routers
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(2..=256))]
    pub(crate) routers: u16,

    /// How many messages, all sources together
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) messages: u64,

    /// Hops from source to destination; fewer than routers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) hops: u8,

    /// Bytes of a message, at most 1 MiB; the header takes 20 and 32 per hop of them
    #[arg(long, default_value_t = 1_028, value_parser = message_size)]
    pub(crate) message_size: usize,

    /// How many restarts, spread over the run
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(..=10_000))]
    pub(crate) restarts: u16,

    /// Every second restart is a crash; what is lost by it is counted apart
    #[arg(long)]
    pub(crate) kill: bool,

    /// Age in seconds at which sessions are replaced; 0: only when a router restarts
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub(crate) max_age: u64,

    /// Fixes keys, paths and the choice of restarts [default: drawn]
    ///
    /// The order in which tasks run stays the scheduler's.
    #[arg(long)]
    pub(crate) seed: Option<u64>,

    /// Noise suite
    #[arg(long, value_enum, default_value_t = SuiteName::ChachapolyBlake2s)]
    pub(crate) suite: SuiteName,

    /// Writes the first router's snapshot here every second and at the end, for `inspect`
    #[arg(long, value_name = "FILE")]
    pub(crate) snapshot: Option<PathBuf>,

    /// Prints the report as one JSON object, and nothing else, on standard output
    #[arg(long)]
    pub(crate) json: bool,

    /// Gives up, and fails, after so many seconds
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) deadline: u64,
}

/// A suite's name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SuiteName {
    /// ChaCha20-Poly1305 with BLAKE2s: fast on every processor
    ChachapolyBlake2s,
    /// AES-256-GCM with SHA-256: faster where the processor has AES
    AesgcmSha256,
}

impl From<SuiteName> for Suite {
    fn from(name: SuiteName) -> Self {
        match name {
            SuiteName::ChachapolyBlake2s => Self::ChaChaPolyBlake2s,
            SuiteName::AesgcmSha256 => Self::AesGcmSha256,
        }
    }
}

fn message_size(text: &str) -> Result<usize, String> {
    let size: usize = text.parse().map_err(|error| format!("{error}"))?;
    if size > 1 << 20 {
        return Err(format!("{size} is over 1 MiB (1048576)"));
    }
    Ok(size)
}

impl Options {
    /// Checks the options against each other.
    ///
    /// # Errors
    ///
    /// A sentence that names the options that do not go together.
    pub(crate) fn check(&self) -> Result<(), String> {
        if u16::from(self.hops) >= self.routers {
            return Err(format!(
                "--hops {} needs at least {} routers, since a path visits none twice; --routers is {}",
                self.hops,
                u16::from(self.hops) + 1,
                self.routers,
            ));
        }
        let min = packet::header_len(usize::from(self.hops));
        if self.message_size < min {
            return Err(format!(
                "--message-size {} is too small: the header of {} hops takes {min} bytes",
                self.message_size, self.hops,
            ));
        }
        Ok(())
    }

    /// How many messages each source may have under way.
    pub(crate) fn window(&self) -> usize {
        let share = IN_FLIGHT_BYTES / usize::from(self.routers);
        (share / (self.message_size + BOOKKEEPING)).clamp(1, WINDOW_MOST)
    }

    /// How every router's pool is configured.
    ///
    /// A network that stores and forwards can lock up when its buffers fill in a circle: every
    /// router waits for room at the next. This one cannot, because all that is ever under way fits
    /// into any single buffer on the way.
    pub(crate) fn config(&self) -> Config {
        let in_flight =
            usize::from(self.routers) * self.window() * (self.message_size + BOOKKEEPING);
        let room = in_flight.max(IN_FLIGHT_BYTES);
        let age = (self.max_age > 0).then(|| Duration::from_secs(self.max_age));
        Config::default()
            .suite(self.suite.into())
            .network_id(b"overlay example".to_vec())
            .max_queue(room)
            .max_undelivered(room)
            .inbox_bytes(room * 4)
            // Old sessions are replaced while traffic goes on, so both ends of many pairs dial again
            // at the same moment, all the time: what a real overlay meets in a day.
            .max_idle(age)
            .max_age(age)
            // One machine: a failure here passes in milliseconds, not in minutes.
            .initial_backoff(Duration::from_millis(100))
            .max_backoff(Duration::from_secs(1))
    }

    /// The bound on the whole run.
    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, String> {
        let args = std::iter::once(&"overlay").chain(args);
        let options = Options::try_parse_from(args).map_err(|error| error.to_string())?;
        options.check()?;
        Ok(options)
    }

    #[test]
    fn the_defaults_are_those_of_the_help() {
        let options = parse(&[]).expect("defaults go together");
        assert_eq!((options.routers, options.hops), (16, 3));
        assert_eq!(options.message_size, 1_028);
        assert_eq!(options.window(), WINDOW_MOST);
    }

    #[test]
    fn each_bad_value_is_named() {
        for (args, word) in [
            (&["--routers", "1"][..], "--routers"),
            (&["--routers", "257"], "--routers"),
            (&["--routers", "3"], "--hops 3 needs at least 4 routers"),
            (&["--hops", "0"], "--hops"),
            (&["--message-size", "115"], "takes 116 bytes"),
            (&["--message-size", "1048577"], "over 1 MiB"),
            (&["--messages", "0"], "--messages"),
            (&["--restarts", "many"], "--restarts"),
            (&["--suite", "none"], "--suite"),
            (&["--deadline", "0"], "--deadline"),
        ] {
            let error = parse(args).expect_err("must be refused");
            assert!(error.contains(word), "{args:?}: {error}");
        }
    }

    #[test]
    fn all_that_is_under_way_fits_into_its_bound_until_messages_are_huge() {
        for (routers, size) in [("16", "1028"), ("256", "1028"), ("16", "65536"), ("4", "1048576")]
        {
            let args = ["--routers", routers, "--message-size", size];
            let options = parse(&args).expect("go together");
            let bytes = usize::from(options.routers)
                * options.window()
                * (options.message_size + BOOKKEEPING);
            assert!(bytes <= IN_FLIGHT_BYTES || options.window() == 1, "{args:?}");
        }
    }
}
