//! The outcome: one flat list of numbers, the verdict on them, and a table of sessions.
//!
//! Owns the names in the JSON form and the rules for failure. It measures nothing.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use noise_pool::snapshot::{Snapshot, Stats};
use noise_pool::{Origin, PeerId};
use serde::Serialize;

/// Rows of the table of sessions; `inspect` shows all of one router.
const ROWS: usize = 20;

/// What the run came to. Field names are the JSON form.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Whether the run held what it has to.
    pub(crate) ok: bool,
    /// What it did not hold.
    pub(crate) failures: Vec<String>,
    /// Whether Ctrl-C ended it early.
    pub(crate) interrupted: bool,
    /// Options of the run.
    pub(crate) routers: u16,
    pub(crate) hops: u8,
    pub(crate) message_size: usize,
    pub(crate) suite: String,
    pub(crate) seed: u64,
    /// Messages by their end-to-end ids, at the destination: sent = delivered + lost +
    /// `messages_lost_to_kills`.
    pub(crate) messages_sent: u64,
    pub(crate) messages_delivered: u64,
    pub(crate) messages_lost: u64,
    pub(crate) messages_lost_to_kills: u64,
    pub(crate) messages_duplicated: u64,
    /// Sends that were repeated because the pool had not accepted the message.
    pub(crate) sends_retried: u64,
    /// Sessions at the end, each counted once although two routers hold it.
    pub(crate) sessions_open: usize,
    /// The most that a pair of routers held at any quiet point.
    pub(crate) max_sessions_per_pair: usize,
    /// How often the network was halted and looked at, the end included.
    pub(crate) quiet_points: u32,
    /// Sums over all pools that lived in the run.
    #[serde(flatten)]
    pub(crate) pools: PoolTotals,
    /// Routers drained or killed, and started again.
    pub(crate) restarts: u32,
    /// Of these: killed.
    pub(crate) kills: u32,
    /// The longest drain, those at the end of the run included.
    pub(crate) drain_ms_max: f64,
    /// Messages of which a drain could not say that the peer has them.
    pub(crate) drain_unknown: u64,
    pub(crate) elapsed_s: f64,
    pub(crate) messages_per_s: f64,
    /// From source to destination, waits for routers that were down included.
    pub(crate) latency_us_p50: u64,
    pub(crate) latency_us_p99: u64,
    pub(crate) latency_us_max: u64,
}

/// Counters of pools, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PoolTotals {
    pub(crate) dials: u64,
    pub(crate) dials_shared: u64,
    pub(crate) simultaneous_opens: u64,
    pub(crate) superseded: u64,
    pub(crate) parked: u64,
}

impl PoolTotals {
    /// Adds one pool's counters.
    pub(crate) fn add(&mut self, stats: &Stats) {
        self.dials += stats.dials;
        self.dials_shared += stats.dials_shared;
        self.simultaneous_opens += stats.simultaneous_opens;
        self.superseded += stats.superseded;
        self.parked += stats.parked;
    }
}

impl Report {
    /// Adds to the failures what the numbers show, and decides.
    pub(crate) fn judge(mut self) -> Self {
        let mut must_be_none = |what: &str, number: u64| {
            if number > 0 {
                self.failures.push(format!("{number} {what}"));
            }
        };
        must_be_none("messages lost", self.messages_lost);
        must_be_none("messages duplicated", self.messages_duplicated);
        if self.kills == 0 {
            must_be_none("messages that a drain cannot vouch for", self.drain_unknown);
        }
        if self.max_sessions_per_pair > 1 {
            let max = self.max_sessions_per_pair;
            (self.failures).push(format!("a pair of routers held {max} sessions at rest"));
        }
        self.ok = self.failures.is_empty();
        self
    }

    /// The report for people.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{} routers, {} hops, {} bytes, {}, seed {}",
            self.routers, self.hops, self.message_size, self.suite, self.seed
        )?;
        writeln!(
            out,
            "messages   {} sent, {} delivered, {} lost, {} lost to kills, {} duplicated",
            self.messages_sent,
            self.messages_delivered,
            self.messages_lost,
            self.messages_lost_to_kills,
            self.messages_duplicated
        )?;
        writeln!(
            out,
            "speed      {:.0} messages/s over {:.1} s; latency p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            self.messages_per_s,
            self.elapsed_s,
            millis(self.latency_us_p50),
            millis(self.latency_us_p99),
            millis(self.latency_us_max),
        )?;
        writeln!(
            out,
            "sessions   {} open, at most {} per pair at {} quiet points",
            self.sessions_open, self.max_sessions_per_pair, self.quiet_points
        )?;
        writeln!(
            out,
            "dials      {}, shared by {} more calls; {} simultaneous opens, {} parked, {} superseded",
            self.pools.dials,
            self.pools.dials_shared,
            self.pools.simultaneous_opens,
            self.pools.parked,
            self.pools.superseded
        )?;
        writeln!(
            out,
            "restarts   {}, of them {} kills; longest drain {:.1} ms, {} sends repeated",
            self.restarts, self.kills, self.drain_ms_max, self.sends_retried
        )?;
        match (self.ok, self.interrupted) {
            (true, false) => writeln!(out, "held"),
            (true, true) => writeln!(out, "held, until it was interrupted"),
            (false, _) => writeln!(out, "FAILED: {}", self.failures.join("; ")),
        }
    }
}

/// The busiest sessions of all routers, each shown from the end that opened it.
pub(crate) fn print_sessions(
    out: &mut impl Write,
    snapshots: &[Snapshot],
    numbers: &HashMap<PeerId, u16>,
) -> io::Result<()> {
    let name = |peer: &PeerId| {
        let number = numbers.get(peer).map_or("?".into(), u16::to_string);
        format!("{number} {}", peer.short())
    };
    let mut sessions: Vec<_> = (snapshots.iter())
        .flat_map(|snapshot| snapshot.sessions.iter().map(|s| (snapshot.peer, s)))
        .filter(|(_, session)| session.origin == Origin::Outbound)
        .collect();
    sessions.sort_by_key(|(_, s)| std::cmp::Reverse(s.messages_in + s.messages_out));

    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "opened by",
        "to",
        "session",
        "age",
        "idle",
        "handshake",
        "messages out",
        "in",
        "MB out",
        "in",
    ]);
    for (owner, session) in sessions.iter().take(ROWS) {
        table.add_row([
            name(owner),
            name(&session.peer),
            session.session.to_string(),
            seconds(session.age),
            seconds(session.idle),
            format!("{:.2} ms", session.handshake_time.as_secs_f64() * 1e3),
            session.messages_out.to_string(),
            session.messages_in.to_string(),
            megabytes(session.bytes_out),
            megabytes(session.bytes_in),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    writeln!(out, "{table}")?;
    if sessions.len() > ROWS {
        writeln!(out, "the {ROWS} busiest of {} sessions", sessions.len())?;
    }
    Ok(())
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(report: Report) -> String {
        let report = report.judge();
        assert_eq!(report.ok, report.failures.is_empty());
        report.failures.join("; ")
    }

    #[test]
    fn a_run_fails_for_each_thing_it_must_hold() {
        let clean = Report { max_sessions_per_pair: 1, ..Report::default() };
        assert_eq!(failures(clean.clone()), "");
        let mut lost = clean.clone();
        lost.messages_lost = 2;
        assert!(failures(lost).contains("2 messages lost"));
        let mut duplicated = clean.clone();
        duplicated.messages_duplicated = 1;
        assert!(failures(duplicated).contains("duplicated"));
        let mut doubled = clean.clone();
        doubled.max_sessions_per_pair = 2;
        assert!(failures(doubled).contains("held 2 sessions at rest"));
        let mut unknown = clean.clone();
        unknown.drain_unknown = 3;
        assert!(failures(unknown).contains("vouch"));
    }

    #[test]
    fn what_a_kill_costs_is_no_failure() {
        let killed =
            Report { kills: 1, messages_lost_to_kills: 9, drain_unknown: 4, ..Report::default() };
        assert_eq!(failures(killed), "");
    }

    #[test]
    fn the_json_form_is_flat_and_has_every_promised_name() {
        let json = serde_json::to_value(Report::default()).expect("serialises");
        for name in [
            "routers",
            "messages_sent",
            "messages_delivered",
            "messages_lost",
            "messages_duplicated",
            "sessions_open",
            "max_sessions_per_pair",
            "dials",
            "dials_shared",
            "simultaneous_opens",
            "superseded",
            "parked",
            "restarts",
            "drain_ms_max",
            "elapsed_s",
            "messages_per_s",
            "latency_us_p50",
            "latency_us_p99",
        ] {
            assert!(json[name].is_number(), "{name}");
        }
    }
}
