//! The examples `peer`, `overlay` and `inspect` as processes of their own, on 127.0.0.1: what they
//! print and exit with, and that a pair is whole again after one of them was killed, stopped, or
//! restarted with the same key, without waiting for any keep-alive.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
#![cfg(unix)]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use noise_pool::snapshot::Snapshot;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

#[path = "support/hold.rs"]
mod hold;
#[path = "support/program.rs"]
mod program;
#[path = "support/silence.rs"]
mod silence;

use hold::Hold;
use program::{Ended, PATIENCE, Program};
use silence::Silence;

/// Far below what a dead session could be found by: `ping_after` (30 s) and `keepalive` (60 s).
const SOON: Duration = Duration::from_secs(8);

/// A directory with key files in it.
struct Keys(TempDir);

/// A key file, and the peer id that belongs to it.
struct Key {
    file: String,
    peer: String,
}

impl Keys {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_string()
    }

    /// A new key, by `peer keygen`.
    async fn key(&self, name: &str) -> Key {
        let file = self.path(name);
        let Ended { code, out, err } =
            Program::start("peer", ["keygen", "--file", &file]).end().await;
        assert_eq!((code, err.as_str()), (Some(0), ""));
        Key { file, peer: out.trim_end().to_string() }
    }
}

impl Key {
    /// `peer listen` with this key, and where it listens.
    async fn listen(&self, address: SocketAddr) -> (Program, SocketAddr) {
        let address = address.to_string();
        let mut listener =
            Program::start("peer", ["listen", "--key", &self.file, "--addr", &address]);
        let address = self.at(&listener.line().await);
        (listener, address)
    }

    /// The address in the line `<peer>@<addr>` that a process with this key prints first.
    fn at(&self, line: &str) -> SocketAddr {
        let (peer, address) = line.split_once('@').expect("<peer>@<addr>");
        assert_eq!(peer, self.peer);
        address.parse().unwrap()
    }

    /// `<peer>@<addr>`.
    fn target(&self, address: SocketAddr) -> String {
        format!("{}@{address}", self.peer)
    }

    /// `peer send` with this key.
    fn send(&self, target: &str) -> Program {
        Program::start("peer", ["send", "--key", &self.file, target])
    }

    /// How `peer` shows a message of this key's holder.
    fn says(&self, text: &str) -> String {
        format!("{} {text}", self.peer)
    }
}

/// Any free port.
fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

#[tokio::test]
async fn a_key_is_its_owners_alone_and_never_replaced() {
    let keys = Keys::new();
    let alice = keys.key("alice.key").await;
    let before = fs::read(&alice.file).unwrap();
    assert_eq!(fs::metadata(&alice.file).unwrap().permissions().mode() & 0o7777, 0o600);

    let again = Program::start("peer", ["keygen", "--file", &alice.file]).end().await;
    assert_eq!((again.code, again.out.as_str()), (Some(1), ""));
    assert!(again.err.contains("exists, and a key file is never replaced"), "{}", again.err);
    assert_eq!(fs::read(&alice.file).unwrap(), before);

    // The key file is who one is: `listen` checks the peer id.
    let (listener, _) = alice.listen(anywhere()).await;
    listener.kill().await;

    fs::set_permissions(&alice.file, fs::Permissions::from_mode(0o640)).unwrap();
    let open = Program::start("peer", ["listen", "--key", &alice.file]).end().await;
    assert_eq!((open.code, open.out.as_str()), (Some(1), ""));
    assert!(open.err.contains("chmod 600") && open.err.contains("0640"), "{}", open.err);

    // A mistyped path does not become a new identity.
    let missing = keys.path("alcie.key");
    let ended = Program::start("peer", ["listen", "--key", &missing]).end().await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("alcie.key"), "{}", ended.err);
    assert!(!Path::new(&missing).exists());
}

#[tokio::test]
async fn lines_typed_at_one_process_are_printed_by_the_other() {
    let keys = Keys::new();
    let (alice, bob) = (keys.key("alice.key").await, keys.key("bob.key").await);
    let (mut listener, address) = alice.listen(anywhere()).await;

    let mut sender = bob.send(&alice.target(address));
    for line in ["hello", "", "grüß dich", "\x1b[2J"] {
        sender.type_line(line).await;
    }
    let ended = sender.end().await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), ""));
    assert!(ended.err.contains("4 sent, 4 delivered, drained in "), "{}", ended.err);
    for line in ["hello", "", "grüß dich", "\\u{1b}[2J"] {
        assert_eq!(listener.line().await, bob.says(line));
    }
    listener.told(&format!("{} left after 4 messages", bob.peer)).await;

    let target = alice.target(address);
    let ping = Program::start("peer", ["ping", &target, "-c", "3", "-i", "0.2"]).end().await;
    assert_eq!((ping.code, ping.err.as_str()), (Some(0), ""));
    assert_eq!(ping.out.matches("pong from ").count(), 3, "{}", ping.out);
    assert!(ping.out.contains("3 sent, 3 answered, 0% lost"), "{}", ping.out);

    listener.signal(Signal::INT);
    let ended = listener.end().await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), ""));
    assert!(ended.err.contains("* drained 0 sessions in "), "{}", ended.err);
}

/// Whoever starts it in a script has its first line for a sign, and may end it right behind it.
#[tokio::test]
async fn a_listener_that_is_interrupted_at_its_first_line_ends_in_order() {
    let keys = Keys::new();
    let alice = keys.key("alice.key").await;
    let interrupted = async || {
        let (listener, _) = alice.listen(anywhere()).await;
        listener.signal(Signal::INT);
        listener.end().await
    };
    // The moment may be missed once.
    for ended in join_all((0..8).map(|_| interrupted())).await {
        assert_eq!((ended.code, ended.out.as_str()), (Some(0), ""), "{}", ended.err);
        assert!(ended.err.contains("* drained 0 sessions in "), "{}", ended.err);
    }
}

#[tokio::test]
async fn what_keeps_a_peer_from_being_reached_is_named() {
    let keys = Keys::new();
    let (alice, bob) = (keys.key("alice.key").await, keys.key("bob.key").await);
    let (mut listener, address) = alice.listen(anywhere()).await;
    let wrong_key = bob.target(address);
    let wrong_network = alice.target(address);
    let verdict = "connected, but no message 2: wrong key, network id, suite or clock";

    let attempts = [
        (&["send", &wrong_key][..], 1, verdict),
        (&["ping", &wrong_key], 1, verdict),
        (&["send", &wrong_network, "--network", "other"], 1, verdict),
        (&["ping", &wrong_network, "--suite", "aesgcm-sha256"], 1, verdict),
        (&["send", "nobody@127.0.0.1:1"], 2, "invalid value"),
        (&["send", &alice.peer], 2, "invalid value"),
        (&["sing"], 2, "unrecognized subcommand"),
    ];
    // All at once: a stranger is not answered, and waits for its handshake's time to pass.
    let ends = attempts.map(|(arguments, ..)| Program::start("peer", arguments).end());
    for ((arguments, code, part), ended) in attempts.into_iter().zip(join_all(ends).await) {
        assert_eq!((ended.code, ended.out.as_str()), (Some(code), ""), "{arguments:?}");
        assert!(ended.err.contains(part), "{arguments:?}: {}", ended.err);
    }

    // None of it reached the listener's user, who is still there.
    let mut sender = bob.send(&alice.target(address));
    sender.type_line("it is me").await;
    assert_eq!(sender.end().await.code, Some(0));
    assert_eq!(listener.line().await, bob.says("it is me"));
    listener.kill().await;
    let ended = Program::start("peer", ["ping", &alice.target(address)]).end().await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.to_lowercase().contains("refused"), "{}", ended.err);
}

#[tokio::test]
async fn a_killed_listener_is_reached_again_by_the_senders_first_dial() {
    let keys = Keys::new();
    let (alice, bob) = (keys.key("alice.key").await, keys.key("bob.key").await);
    let (mut listener, address) = alice.listen(anywhere()).await;
    let mut sender = bob.send(&alice.target(address));
    sender.type_line("before").await;
    assert_eq!(listener.line().await, bob.says("before"));

    listener.kill().await;
    let (mut listener, _) = alice.listen(address).await;
    let restarted = Instant::now();
    sender.type_line("after").await;
    assert_eq!(listener.line().await, bob.says("after"));
    assert!(restarted.elapsed() < SOON, "{:?}", restarted.elapsed());

    // Nobody can say any more whether the first line was received, and nobody claims it.
    let ended = sender.end().await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("2 sent, 1 delivered"), "{}", ended.err);
}

#[tokio::test]
async fn pings_go_on_when_their_peer_was_killed_and_restarted() {
    let keys = Keys::new();
    let alice = keys.key("alice.key").await;
    let (listener, address) = alice.listen(anywhere()).await;
    let mut ping = Program::start("peer", ["ping", &alice.target(address), "-i", "0.2"]);
    ping.line_with("pong from ").await;

    listener.kill().await;
    // Its own dial fails meanwhile, and the next waits for its backoff.
    ping.line_with("refused").await;
    let (_listener, _) = alice.listen(address).await;
    let restarted = Instant::now();
    ping.line_with("pong from ").await;
    assert!(restarted.elapsed() < SOON, "{:?}", restarted.elapsed());

    ping.signal(Signal::INT);
    let ended = ping.end().await;
    assert_eq!(ended.code, Some(0));
    assert!(ended.out.contains("ping statistics"), "{}", ended.out);
    assert!(!ended.out.contains(" 0% lost"), "{}", ended.out);
}

/// The one that dials is killed, and the network keeps it secret: the listener holds a dead session.
#[tokio::test]
async fn a_restarted_dialler_supersedes_the_session_that_died_with_it() {
    let keys = Keys::new();
    let (alice, bob) = (keys.key("alice.key").await, keys.key("bob.key").await);
    let (mut listener, address) = alice.listen(anywhere()).await;
    let network = Silence::before(address).await;
    let mut sender = bob.send(&alice.target(network.address));
    sender.type_line("before").await;
    assert_eq!(listener.line().await, bob.says("before"));

    sender.kill().await;
    let restarted = Instant::now();
    let mut sender = bob.send(&alice.target(address));
    sender.type_line("after").await;
    assert_eq!(listener.line().await, bob.says("after"));
    assert!(restarted.elapsed() < SOON, "{:?}", restarted.elapsed());
    let ended = sender.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);

    // The listener held the dead session all the while: it ends after its successor.
    let left = listener.told(" left after ").await;
    assert!(left.contains("the peer drained the session"), "{left}");
    drop(network);
    let left = listener.told(" left after ").await;
    assert!(left.contains("1 messages: the stream ended without a goodbye"), "{left}");
}

/// The one that listens is killed, and the network keeps it secret: the sender holds a dead session,
/// and what it writes goes nowhere. The restarted listener dials it.
#[tokio::test]
async fn a_restarted_listener_that_dials_supersedes_the_session_that_died_with_it() {
    let keys = Keys::new();
    let (alice, bob) = (keys.key("alice.key").await, keys.key("bob.key").await);
    let (mut listener, address) = alice.listen(anywhere()).await;
    let network = Silence::before(address).await;

    let target = alice.target(network.address);
    let arguments = ["send", "--key", &bob.file, "--addr", "127.0.0.1:0", &target];
    let mut sender = Program::start("peer", arguments);
    let senders_address = bob.at(&sender.line().await);
    sender.type_line("before").await;
    assert_eq!(listener.line().await, bob.says("before"));

    listener.kill().await;
    let restarted = Instant::now();
    // The same key on the same port.
    let address = address.to_string();
    let target = bob.target(senders_address);
    let arguments = ["send", "--key", &alice.file, "--addr", &address, &target];
    let mut listener = Program::start("peer", arguments);
    alice.at(&listener.line().await);
    listener.type_line("I am back").await;
    assert_eq!(sender.line().await, alice.says("I am back"));
    sender.type_line("after").await;
    assert_eq!(listener.line().await, bob.says("after"));
    assert!(restarted.elapsed() < SOON, "{:?}", restarted.elapsed());

    // Nobody can say any more whether the first line was received; all others were.
    drop(network);
    let ended = sender.end().await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("2 sent, 1 delivered"), "{}", ended.err);
    let ended = listener.end().await;
    assert_eq!(ended.code, Some(0));
    assert!(ended.err.contains("1 sent, 1 delivered"), "{}", ended.err);
}

/// Both are killed, the network keeps it secret, and both are back on their old ports and dial each
/// other at the same moment.
#[tokio::test]
async fn two_that_restart_together_are_whole_again_by_their_first_dials() {
    let keys = Keys::new();
    let (alice, bob) = (keys.key("alice.key").await, keys.key("bob.key").await);
    let start = |key: &Key, at: SocketAddr, target: &str| {
        Program::start("peer", ["send", "--key", &key.file, "--addr", &at.to_string(), target])
    };
    let (mut listener, alices_address) = alice.listen(anywhere()).await;
    let network = Silence::before(alices_address).await;
    let mut sender = start(&bob, anywhere(), &alice.target(network.address));
    let bobs_address = bob.at(&sender.line().await);
    sender.type_line("before").await;
    assert_eq!(listener.line().await, bob.says("before"));
    tokio::join!(listener.kill(), sender.kill());

    // Each has dialled before it can hear of the other's dial.
    let (to_alice, to_bob) = (Hold::before(alices_address).await, Hold::before(bobs_address).await);
    let mut alice_again = start(&alice, alices_address, &bob.target(to_bob.address));
    let mut bob_again = start(&bob, bobs_address, &alice.target(to_alice.address));
    alice.at(&alice_again.line().await);
    bob.at(&bob_again.line().await);
    alice_again.type_line("I am back").await;
    bob_again.type_line("so am I").await;
    timeout(PATIENCE, async { tokio::join!(to_alice.dialled(), to_bob.dialled()) }).await.unwrap();
    let restarted = Instant::now();
    to_alice.release();
    to_bob.release();
    assert_eq!(alice_again.line().await, bob.says("so am I"));
    assert_eq!(bob_again.line().await, alice.says("I am back"));
    assert!(restarted.elapsed() < SOON, "{:?}", restarted.elapsed());

    // Each has what the other sent, and knows it.
    for program in [bob_again, alice_again] {
        let ended = program.end().await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(0), ""), "{}", ended.err);
        assert!(ended.err.contains("1 sent, 1 delivered"), "{}", ended.err);
    }
}

#[tokio::test]
async fn nothing_is_lost_when_either_process_stands_still_for_a_while() {
    const LINES: usize = 200;
    let keys = Keys::new();
    let (alice, bob) = (keys.key("alice.key").await, keys.key("bob.key").await);
    let (mut listener, address) = alice.listen(anywhere()).await;
    let mut sender = bob.send(&alice.target(address));
    let line = |number: usize| format!("{number:04} {}", "x".repeat(1_000));

    sender.type_line(&line(0)).await;
    assert_eq!(listener.line().await, bob.says(&line(0)));
    // More than the pipe and the lines read ahead: some of it goes out while nobody takes it.
    listener.stop().await;
    for number in 1..LINES {
        sender.type_line(&line(number)).await;
    }
    sender.stop().await;
    listener.signal(Signal::CONT);
    sender.signal(Signal::CONT);
    sender.end_of_input();
    for number in 1..LINES {
        assert_eq!(listener.line().await, bob.says(&line(number)));
    }
    let ended = sender.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.err.contains("200 sent, 200 delivered"), "{}", ended.err);
}

/// A small overlay: its arguments, and these.
fn overlay(arguments: &[&str]) -> Program {
    let usual = ["--json", "--routers", "6", "--seed", "6"];
    Program::start("overlay", usual.iter().chain(arguments))
}

#[tokio::test]
async fn an_overlay_loses_nothing_by_restarts_and_inspect_shows_what_it_saved() {
    let keys = Keys::new();
    let file = keys.path("pool.snapshot");
    let arguments = ["--messages", "5000", "--restarts", "2", "--snapshot", &file];
    let ended = overlay(&arguments).end().await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{}", ended.out);
    let report = json(&ended.out);
    assert_eq!(report["ok"], true);
    for (field, number) in [
        ("messages_sent", 5000),
        ("messages_delivered", 5000),
        ("messages_lost", 0),
        ("messages_duplicated", 0),
        ("drain_unknown", 0),
        ("restarts", 2),
        ("kills", 0),
        ("max_sessions_per_pair", 1),
    ] {
        assert_eq!(report[field], number, "{field}");
    }

    let shown = Program::start("inspect", [&file]).end().await;
    assert_eq!((shown.code, shown.err.as_str()), (Some(0), ""));
    for part in ["Pool ", "Limits", "Sessions (", "Counters"] {
        assert!(shown.out.contains(part), "{part:?} is missing in\n{}", shown.out);
    }
    let shown = Program::start("inspect", [&file, "--json"]).end().await;
    let saved = Snapshot::decode(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(json(&shown.out)["peer"], serde_json::to_value(saved.peer).unwrap());
    assert!(!Path::new(&format!("{file}.part")).exists());
}

#[tokio::test]
async fn an_overlay_counts_what_a_kill_lost_apart() {
    let ended = overlay(&["--messages", "5000", "--restarts", "2", "--kill"]).end().await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{}", ended.out);
    let report = json(&ended.out);
    for (field, number) in [("restarts", 2), ("kills", 1), ("messages_lost", 0)] {
        assert_eq!(report[field], number, "{field}");
    }
    let number = |field: &str| report[field].as_u64().unwrap();
    let arrived = number("messages_delivered");
    assert_eq!(arrived + number("messages_lost_to_kills"), number("messages_sent"));
    assert_eq!(number("messages_duplicated"), 0);
}

/// An overlay that goes on until it is told otherwise, and has saved a snapshot with traffic in it.
async fn endless_overlay(file: &str) -> Program {
    let run = overlay(&["--messages", "100000000", "--restarts", "0", "--snapshot", file]);
    let under_way = async {
        // Its first snapshot is of an idle pool, the next are of one with traffic.
        while !fs::read(file)
            .is_ok_and(|bytes| Snapshot::decode(&bytes).unwrap().stats.messages_in > 0)
        {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, under_way).await.expect("the overlay saves snapshots");
    run
}

#[tokio::test]
async fn an_interrupted_overlay_ends_in_order_and_reports() {
    let keys = Keys::new();
    let mut run = endless_overlay(&keys.path("pool.snapshot")).await;
    // That it stood still for a moment makes no difference.
    run.stop().await;
    run.signal(Signal::CONT);
    run.signal(Signal::INT);
    let ended = run.end().await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(130), ""), "{}", ended.out);
    let report = json(&ended.out);
    assert_eq!((&report["ok"], &report["interrupted"]), (&true.into(), &true.into()));
    assert_eq!(report["messages_sent"], report["messages_delivered"]);
    assert!(report["messages_sent"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn a_killed_overlay_leaves_a_whole_snapshot() {
    let keys = Keys::new();
    let file = keys.path("pool.snapshot");
    endless_overlay(&file).await.kill().await;
    let shown = Program::start("inspect", [&file]).end().await;
    assert_eq!((shown.code, shown.err.as_str()), (Some(0), ""));
    let saved = Snapshot::decode(&fs::read(&file).unwrap()).unwrap();
    let sessions = format!("Sessions ({})", saved.sessions.len());
    assert!(shown.out.contains(&sessions), "{}", shown.out);
}

#[tokio::test]
async fn inspect_tells_garbage_from_what_is_not_there() {
    let keys = Keys::new();
    let garbage = keys.path("garbage");
    fs::write(&garbage, b"this is no snapshot").unwrap();
    let ended = Program::start("inspect", [&garbage]).end().await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(3), ""));
    assert!(ended.err.contains(&garbage), "{}", ended.err);

    let ended = Program::start("inspect", [&keys.path("missing")]).end().await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""));
    assert!(ended.err.contains("cannot be read"), "{}", ended.err);

    let ended = Program::start("inspect", ["--sort", "colour", &garbage]).end().await;
    assert_eq!(ended.code, Some(2));
}
