//! Shows a saved snapshot of a pool as tables that an operator can read, or as JSON.
//!
//! ```text
//! cargo run --example overlay -- --snapshot pool.snapshot
//! cargo run --example inspect -- pool.snapshot --sort bytes-out --reverse --limit 20
//! cargo run --example inspect -- - --json < pool.snapshot
//! ```
//!
//! Exit codes: 0 shown, 1 the file cannot be read, 2 wrong arguments, 3 the file is not a snapshot.

use std::cmp::Ordering;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use clap::{Parser, ValueEnum};
use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use noise_pool::snapshot::{
    DialSnapshot, LimitUse, SessionSnapshot, Snapshot, SnapshotDecodeError,
};
use serde_json::Value;

/// Shows a saved snapshot of a pool.
#[derive(Parser)]
#[command(name = "inspect")]
pub(crate) struct Arguments {
    /// The file, as `Snapshot::encode` wrote it; `-` reads standard input.
    file: PathBuf,
    /// The column that sessions are sorted by, shown or not.
    #[arg(long, value_enum, default_value_t = Column::Idle)]
    sort: Column,
    /// Sort from the greatest to the least.
    #[arg(long)]
    reverse: bool,
    /// Show so many sessions only.
    #[arg(long, value_name = "SESSIONS")]
    limit: Option<usize>,
    /// The columns to show, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Column::USUAL)]
    columns: Vec<Column>,
    /// Print JSON instead of tables; sorting and limit apply to it too.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments, io::stdin().lock(), io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has seen enough, as `head` does.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let (text, code) = match failure {
                Failure::Read(error) => (format!("cannot be read: {error}"), 1),
                Failure::Decode(error) => (error.to_string(), 3),
                Failure::Output(error) => (format!("cannot be shown: {error}"), 1),
            };
            eprintln!("inspect: {}: {text}", arguments.file.display());
            ExitCode::from(code)
        }
    }
}

/// What can go wrong.
pub(crate) enum Failure {
    Read(io::Error),
    Decode(SnapshotDecodeError),
    Output(io::Error),
}

pub(crate) fn run(
    arguments: &Arguments,
    input: impl Read,
    mut output: impl Write,
) -> Result<(), Failure> {
    let bytes = read(&arguments.file, input).map_err(Failure::Read)?;
    let mut snapshot = Snapshot::decode(&bytes).map_err(Failure::Decode)?;
    let total = snapshot.sessions.len();
    snapshot.sessions.sort_by(|a, b| {
        let order = arguments.sort.compare(a, b);
        if arguments.reverse { order.reverse() } else { order }
    });
    snapshot.sessions.truncate(arguments.limit.unwrap_or(total));
    let text = if arguments.json {
        serde_json::to_string_pretty(&snapshot).map_err(|error| Failure::Output(error.into()))?
    } else {
        tables(&snapshot, total, &arguments.columns)
    };
    writeln!(output, "{text}").map_err(Failure::Output)
}

/// Reads a whole file, but no more than it takes to know that it is too long.
fn read(file: &Path, input: impl Read) -> io::Result<Vec<u8>> {
    let max = Snapshot::MAX_ENCODED_LEN as u64 + 1;
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        input.take(max).read_to_end(&mut bytes)?;
    } else {
        File::open(file)?.take(max).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn tables(snapshot: &Snapshot, total: usize, columns: &[Column]) -> String {
    let taken = humantime::format_rfc3339_seconds(
        UNIX_EPOCH + Duration::from_secs(snapshot.taken_at_unix.min(LAST_DATE)),
    );
    let shown = match snapshot.sessions.len() {
        shown if shown == total => String::new(),
        shown => format!(", {shown} shown"),
    };
    [
        format!("Pool {}\ntaken at {taken}", snapshot.peer),
        section("Limits", &limits(snapshot)),
        section(&format!("Sessions ({total}{shown})"), &sessions(&snapshot.sessions, columns)),
        section(&format!("Dials ({})", snapshot.dials.len()), &dials(&snapshot.dials)),
        section("Failures by cause", &failures(snapshot)),
        section("Counters", &counters(snapshot)),
    ]
    .join("\n\n")
}

/// The last second of the year 9999, after which dates have no usual form.
const LAST_DATE: u64 = 253_402_300_799;

fn section(title: &str, table: &Table) -> String {
    if table.is_empty() {
        return format!("{title}\n  none");
    }
    format!("{title}\n{}", table.trim_fmt())
}

/// An empty table; columns from `numbers_from` on are numbers.
fn table<T: Display>(header: impl IntoIterator<Item = T>, numbers_from: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.into_iter().map(Cell::new));
    for column in table.column_iter_mut().skip(numbers_from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn limits(snapshot: &Snapshot) -> Table {
    let limits = &snapshot.limits;
    let mut table = table(["limit", "held", "at most", "of", "used"], 1);
    let mut row = |name: &str, of: LimitUse, show: fn(u64) -> String| {
        let used = of.held.saturating_mul(100).checked_div(of.limit);
        let mut cell = Cell::new(used.map_or("-".into(), |used| format!("{used} %")));
        if used.is_some_and(|used| used >= 90) {
            cell = cell.fg(Color::Red);
        }
        let [held, high_water, limit] =
            [of.held, of.high_water, of.limit].map(|n| Cell::new(show(n)));
        table.add_row([Cell::new(name), held, high_water, limit, cell]);
    };
    let count = |n: u64| n.to_string();
    row("sessions and dials", limits.sessions, count);
    row("inbound sessions", limits.inbound, count);
    row("draining sessions", limits.draining, count);
    row("dials under way", limits.dials, count);
    row("dials queued", limits.queued_dials, count);
    row("pending handshakes", limits.pending_handshakes, count);
    row("discarded connections", limits.discarding, count);
    row("bytes queued", limits.buffered_bytes, bytes);
    row("bytes in the inbox", limits.inbox_bytes, bytes);
    table
}

fn sessions(sessions: &[SessionSnapshot], columns: &[Column]) -> Table {
    let mut table = table(columns.iter().map(|column| column.title()), columns.len());
    for (column, cells) in columns.iter().zip(table.column_iter_mut()) {
        if column.is_number() {
            cells.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
        .add_rows(sessions.iter().map(|session| columns.iter().map(|column| column.show(session))));
    table
}

fn dials(dials: &[DialSnapshot]) -> Table {
    let mut table = table(["peer", "attempt", "phase", "addresses", "age", "waiters"], 4);
    for dial in dials {
        let addresses: Vec<String> = dial.addresses.iter().map(ToString::to_string).collect();
        table.add_row([
            dial.peer.short().to_string(),
            dial.attempt.to_string(),
            name(&dial.phase),
            addresses.join("\n"),
            time(dial.age),
            dial.waiters.to_string(),
        ]);
    }
    table
}

/// Every count of a failure that is not zero, the greatest of each kind first.
fn failures(snapshot: &Snapshot) -> Table {
    let stats = &snapshot.stats;
    let mut table = table(["what", "cause", "count"], 2);
    for (what, causes) in [
        ("dial", serde_json::to_value(stats.dial_failures)),
        ("inbound handshake", serde_json::to_value(stats.handshake_failures)),
        ("rejected by us", serde_json::to_value(stats.rejected_by_us)),
        ("rejected by the peer", serde_json::to_value(stats.rejected_by_peer)),
        ("application's check", serde_json::to_value(stats.hooks)),
    ] {
        let mut counts = numbers(causes.unwrap_or_default());
        counts.retain(|(_, count)| *count > 0);
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (cause, count) in counts {
            table.add_row([what.to_string(), cause, count.to_string()]);
        }
    }
    table
}

/// Every single counter, zero or not.
fn counters(snapshot: &Snapshot) -> Table {
    let stats = &snapshot.stats;
    let mut table = table(["counter", "count"], 1);
    for (counter, count) in numbers(serde_json::to_value(stats).unwrap_or_default()) {
        let (counter, count) = match counter.as_str() {
            "wait time ns" => ("wait time", time(stats.wait_time)),
            "bytes in" | "bytes out" => (counter.as_str(), bytes(count)),
            other => (other, count.to_string()),
        };
        table.add_row([counter.to_string(), count]);
    }
    if let Some(offset) = stats.clock_offset_seconds {
        table.add_row(["peers' clocks are ahead by".to_string(), format!("{offset} s")]);
    }
    table
}

/// The numbers of an object that are not negative, with the names of their fields as words.
fn numbers(object: Value) -> Vec<(String, u64)> {
    let Value::Object(fields) = object else {
        return Vec::new();
    };
    let words = |name: &str| name.replace('_', " ");
    fields
        .iter()
        .filter_map(|(name, value)| Some((words(name), value.as_u64()?)))
        .filter(|(name, _)| name != "clock offset seconds")
        .collect()
}

/// A column of the table of sessions.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Column {
    Peer,
    Session,
    Origin,
    State,
    Remote,
    Age,
    Idle,
    Leases,
    BytesIn,
    BytesOut,
    MessagesIn,
    MessagesOut,
    RateIn,
    RateOut,
    QueueMessages,
    QueueBytes,
    Undelivered,
    Expired,
    Rtt,
    LastPing,
    Rekeys,
    HandshakeTime,
}

impl Column {
    /// What fits a terminal and answers the usual questions.
    const USUAL: [Self; 13] = [
        Self::Peer,
        Self::Session,
        Self::Origin,
        Self::State,
        Self::Remote,
        Self::Age,
        Self::Idle,
        Self::Leases,
        Self::BytesIn,
        Self::BytesOut,
        Self::MessagesIn,
        Self::MessagesOut,
        Self::Rtt,
    ];

    /// Its name as it is written in arguments, with spaces.
    fn title(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().replace('-', " "))
    }

    fn is_number(self) -> bool {
        !matches!(self, Self::Peer | Self::Origin | Self::State | Self::Remote)
    }

    fn show(self, session: &SessionSnapshot) -> String {
        let maybe = |duration: Option<Duration>| duration.map_or_else(|| "-".into(), time);
        let rate = |per_second| format!("{}/s", bytes(per_second));
        match self {
            Self::Peer => session.peer.short().to_string(),
            Self::Session => session.session.to_string(),
            Self::Origin => name(&session.origin),
            Self::State => name(&session.state),
            Self::Remote => session.remote.as_ref().map_or_else(|| "-".into(), ToString::to_string),
            Self::Age => time(session.age),
            Self::Idle => time(session.idle),
            Self::Leases => session.leases.to_string(),
            Self::BytesIn => bytes(session.bytes_in),
            Self::BytesOut => bytes(session.bytes_out),
            Self::MessagesIn => session.messages_in.to_string(),
            Self::MessagesOut => session.messages_out.to_string(),
            Self::RateIn => rate(session.rate_in),
            Self::RateOut => rate(session.rate_out),
            Self::QueueMessages => session.queue_messages.to_string(),
            Self::QueueBytes => bytes(session.queue_bytes),
            Self::Undelivered => bytes(session.undelivered_bytes),
            Self::Expired => session.expired.to_string(),
            Self::Rtt => maybe(session.rtt),
            Self::LastPing => maybe(session.last_ping),
            Self::Rekeys => session.rekeys.to_string(),
            Self::HandshakeTime => time(session.handshake_time),
        }
    }

    fn compare(self, a: &SessionSnapshot, b: &SessionSnapshot) -> Ordering {
        match self {
            Self::Peer => a.peer.cmp(&b.peer),
            Self::Session => a.session.cmp(&b.session),
            Self::Origin => a.origin.cmp(&b.origin),
            Self::State => a.state.cmp(&b.state),
            Self::Remote => a.remote.cmp(&b.remote),
            Self::Age => a.age.cmp(&b.age),
            Self::Idle => a.idle.cmp(&b.idle),
            Self::Leases => a.leases.cmp(&b.leases),
            Self::BytesIn => a.bytes_in.cmp(&b.bytes_in),
            Self::BytesOut => a.bytes_out.cmp(&b.bytes_out),
            Self::MessagesIn => a.messages_in.cmp(&b.messages_in),
            Self::MessagesOut => a.messages_out.cmp(&b.messages_out),
            Self::RateIn => a.rate_in.cmp(&b.rate_in),
            Self::RateOut => a.rate_out.cmp(&b.rate_out),
            Self::QueueMessages => a.queue_messages.cmp(&b.queue_messages),
            Self::QueueBytes => a.queue_bytes.cmp(&b.queue_bytes),
            Self::Undelivered => a.undelivered_bytes.cmp(&b.undelivered_bytes),
            Self::Expired => a.expired.cmp(&b.expired),
            Self::Rtt => a.rtt.cmp(&b.rtt),
            Self::LastPing => a.last_ping.cmp(&b.last_ping),
            Self::Rekeys => a.rekeys.cmp(&b.rekeys),
            Self::HandshakeTime => a.handshake_time.cmp(&b.handshake_time),
        }
    }
}

/// The name of a value that serialises as its name.
fn name(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(name)) => name,
        _ => "-".into(),
    }
}

/// A number of bytes with at most four digits.
fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            let decimals = usize::from(unit != "B" && value < 100.0);
            return format!("{value:.decimals$} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.0} PiB")
}

/// A length of time by its two greatest units.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if time < Duration::from_millis(1) => format!("{} µs", time.as_micros()),
        0 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}
