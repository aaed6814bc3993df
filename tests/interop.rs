//! Other implementations: peers in Python, whose Noise is `noiseprotocol` or `dissononce`, against a
//! pool over TCP.
//!
//! The peers are in `tests/interop/`, made from `docs/wire.md` alone. They need a Python that has both
//! libraries, which `NOISE_POOL_INTEROP_PYTHON` names: `.ci/run --only interop` makes one and runs
//! this. Without it every test fails; plain `cargo test` does not build this file.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use noise_pool::config::Suite;
use noise_pool::error::{CloseReason, DialError, GoodbyeReason, HandshakeError, ProtocolError};
use noise_pool::event::{Events, HandshakeFailure, PoolEvent};
use noise_pool::snapshot::SessionReport;
use noise_pool::{Config, Identity, Lease, PeerId, Target};
use serde_json::{Value, json};
use support::raw::{AES, CHACHA};
use support::{Node, identity, soon};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const SUITES: [(Suite, &str); 2] = [(Suite::ChaChaPolyBlake2s, CHACHA), (Suite::AesGcmSha256, AES)];

/// Messages each way, beside those of [`SIZES`].
const MANY: usize = 10_000;

/// Messages under way from the Python side when both sides drain.
const PARTING: usize = 20;

/// The sizes that may go wrong: nothing, the least, a router's, almost a frame, and in fragments.
const SIZES: [usize; 5] = [0, 1, 1_028, 65_000, 1 << 20];

/// Small, so that keys change often in both directions.
const REKEY_AFTER: u64 = 100_000;

/// For what the Python side does in no time when it has a processor.
const PATIENCE: Duration = Duration::from_secs(30);

/// Cases of what is wrong under way at once: more would only wait for a processor.
const AT_ONCE: usize = 8;

/// The Python side's secret.
const SECRET: [u8; 32] = [0x5a; 32];

const NETWORK: &[u8] = b"interop";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Library {
    Noiseprotocol,
    Dissononce,
}

impl Library {
    fn name(self) -> &'static str {
        match self {
            Self::Noiseprotocol => "noiseprotocol",
            Self::Dissononce => "dissononce",
        }
    }
}

/// Which role the pool has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Python {
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drainer {
    Pool,
    Python,
    /// Each before it has heard of the other's drain.
    Both,
}

// ---- the Python side ----------------------------------------------------------------------------

/// A Python process, which ends with this value.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(python: Python, task: &Value) -> Self {
        let program = std::env::var("NOISE_POOL_INTEROP_PYTHON").expect(
            "NOISE_POOL_INTEROP_PYTHON names a Python that has tests/interop/requirements.txt",
        );
        let script = match python {
            Python::Client => "client.py",
            Python::Server => "server.py",
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
        let mut child = Command::new(program)
            .arg("-B")
            .arg(folder.join(script))
            .arg(task.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Python starts");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next of the outcomes that it tells.
    async fn outcome(&mut self) -> Value {
        let line = soon("what Python says", self.lines.next_line()).await.unwrap();
        serde_json::from_str(&line.expect("Python failed; it says above why")).unwrap()
    }

    /// Lets it go on.
    async fn go(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    }

    /// Its end, with nothing more to say.
    async fn ended(mut self) {
        assert_eq!(soon("Python's last word", self.lines.next_line()).await.unwrap(), None);
        assert!(soon("Python's end", self.child.wait()).await.unwrap().success());
    }
}

/// What the Python side is to do; `more` adds to it and replaces.
fn task(library: Library, suite: &str, more: &Value) -> Value {
    let mut task = json!({
        "library": library.name(),
        "suite": suite,
        "network_id": hex(NETWORK),
        "secret": hex(&SECRET),
    });
    for (key, value) in more.as_object().unwrap() {
        task[key] = value.clone();
    }
    task
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn python_id() -> PeerId {
    Identity::from_secret(SECRET).peer_id()
}

// ---- the pool's side ----------------------------------------------------------------------------

fn config(suite: Suite) -> Config {
    Config::default()
        .suite(suite)
        .network_id(NETWORK.to_vec())
        .application_payload(Bytes::from_static(b"pool's own"))
        .rekey_after_bytes(REKEY_AFTER)
        // Python on a busy machine is slow, which is not what is tried here.
        .verdict_timeout(PATIENCE)
        .ping_timeout(PATIENCE)
        .drain_timeout(PATIENCE)
}

/// Waits for the event that `pick` picks.
async fn event<T>(events: &mut Events, mut pick: impl FnMut(PoolEvent) -> Option<T>) -> T {
    let found = async {
        loop {
            let event = events.recv().await.expect("the pool lives").expect("no event is lost");
            if let Some(found) = pick(event) {
                return found;
            }
        }
    };
    soon("an event", found).await
}

async fn opened(events: &mut Events) {
    event(events, |event| matches!(event, PoolEvent::Opened { .. }).then_some(())).await;
}

async fn closed(events: &mut Events) -> (CloseReason, SessionReport) {
    event(events, |event| match event {
        PoolEvent::Closed { reason, report, .. } => Some((reason, report)),
        _ => None,
    })
    .await
}

/// A session between a pool and a Python peer in this role.
async fn meet(node: &Node, python: Python, task: &Value) -> (Process, Lease) {
    let mut events = node.pool.subscribe();
    match python {
        Python::Client => {
            let process = Process::start(python, &dialling(node, task));
            opened(&mut events).await;
            (process, node.pool.get(&python_id()).expect("it was opened"))
        }
        Python::Server => {
            let mut process = Process::start(python, task);
            let target = Target::new(python_id()).address(listening(&mut process).await);
            (process, soon("the dial", node.pool.get_or_dial(target)).await.unwrap())
        }
    }
}

/// The task of a client that dials this pool.
fn dialling(node: &Node, task: &Value) -> Value {
    let mut task = task.clone();
    task["address"] = node.address.to_string().into();
    if task["peer"].is_null() {
        task["peer"] = hex(node.id().as_bytes()).into();
    }
    task
}

async fn listening(process: &mut Process) -> SocketAddr {
    let port = process.outcome().await["port"].as_u64().unwrap();
    SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()))
}

// ---- they converse ------------------------------------------------------------------------------

/// Every message of a conversation is another, so that a loss or an exchange shows.
fn message(n: usize) -> Bytes {
    let size = SIZES.get(n).copied().unwrap_or(n % 64 + 8);
    let mut body = vec![0; size];
    for (at, byte) in body.iter_mut().enumerate() {
        *byte = (at >> 8 ^ at ^ n).to_le_bytes()[0];
    }
    let number = (n as u64).to_be_bytes();
    let shown = size.min(number.len());
    body[..shown].copy_from_slice(&number[number.len() - shown..]);
    body.into()
}

/// One whole session: all sizes and many messages each way, pings and rekeys of both sides, a drain.
async fn converse(
    library: Library,
    suite: (Suite, &'static str),
    python: Python,
    drainer: Drainer,
) {
    println!("{library:?} {suite:?} {python:?}, drained by {drainer:?}");
    let mut node = Node::start(config(suite.0)).await;
    let mut events = node.pool.subscribe();
    let all = SIZES.len() + MANY;
    let drain_after = (drainer != Drainer::Pool).then_some(all);
    let parting = if drainer == Drainer::Both { PARTING } else { 0 };
    let more =
        json!({ "rekey_after": REKEY_AFTER, "drain_after": drain_after, "parting": parting });
    let task = task(library, suite.1, &more);
    let (mut process, lease) = meet(&node, python, &task).await;
    assert_eq!(&lease.peer_payload()[..], b"python's own");
    let hash = hex(lease.handshake_hash());
    let observed = lease.observed_address().to_owned();

    // Sent from one task and heard in another, so that neither waits for the other.
    let sending = tokio::spawn(async move {
        for n in 0..all {
            lease.send(message(n)).await.unwrap();
            if n % 2_000 == 0 {
                lease.ping().await.unwrap();
            }
        }
        lease
    });
    for n in 0..all {
        let heard = soon("an echo", node.inbox.recv()).await.unwrap();
        assert_eq!(heard.peer, python_id());
        assert!(heard.body == message(n), "message {n} of {} bytes differs", heard.body.len());
    }
    let lease = soon("all is sent", sending).await.unwrap();

    // A drain with messages under way.
    let mut late = 0_u64;
    for n in 0..20 {
        match lease.send(message(all + n)).await {
            Ok(()) => late += 1,
            Err(error) => assert_eq!(drainer, Drainer::Python, "{error}"),
        }
    }
    drop(lease);
    let mut draining = Box::pin(node.pool.drain(PATIENCE));
    if drainer == Drainer::Both {
        // It does not read: our drain is begun when it is told to begin its own.
        assert_eq!(process.outcome().await, json!({ "ready": true }));
    }
    if drainer != Drainer::Python {
        assert!(futures_util::poll!(&mut draining).is_pending(), "it begins");
    }
    if drainer == Drainer::Both {
        process.go().await;
    }
    let (reason, report) = closed(&mut events).await;
    let told = process.outcome().await;
    process.ended().await;

    let sent = all as u64 + late;
    assert_eq!((report.accepted, report.delivered), (sent, sent), "{told}");
    assert_eq!((report.unknown, report.expired), (0, 0));
    assert_eq!(told["received"], sent, "{told}");
    assert_eq!(told["sent"], report.received, "{told}");
    let word = match drainer {
        Drainer::Pool | Drainer::Both => {
            let drained = soon("the drain", draining).await;
            assert_eq!(drained.messages, report);
            assert_eq!((drained.sessions, drained.leases_remaining), (1, 0));
            let received = if parting == 0 { sent } else { (all + parting) as u64 };
            assert_eq!((reason, report.received), (CloseReason::Drained, received));
            for n in 0..parting {
                let heard = soon("a parting message", node.inbox.recv()).await.unwrap();
                assert_eq!(heard.body, n.to_string());
            }
            6
        }
        Drainer::Python => {
            assert_eq!(reason, CloseReason::Peer(GoodbyeReason::Disconnected));
            assert_eq!(report.received, all as u64, "none behind the drain");
            0
        }
    };
    assert_eq!(told["goodbye"], json!([word, report.received]), "{told}");
    assert_eq!(told["handshake_hash"], hash);
    assert_eq!(told["peer"], hex(node.id().as_bytes()));
    assert_eq!(told["peer_payload"], "pool's own");
    // Who has dialled learns its own address.
    let learned = [observed.as_str(), told["observed"].as_str().unwrap()];
    let [nothing, learned] = match python {
        Python::Client => learned,
        Python::Server => [learned[1], learned[0]],
    };
    assert!(nothing.is_empty() && learned.starts_with("127.0.0.1:"), "{nothing:?} {learned:?}");
    assert_eq!((&told["pings_answered"], &told["pongs"]), (&json!(6), &json!(5)), "{told}");
    let rekeyed = |way: &str| told[way].as_u64().unwrap();
    assert!(rekeyed("rekeys_in") >= 5 && rekeyed("rekeys_out") >= 5, "{told}");
    assert!(rekeyed("fragments") >= 17, "a MiB takes as many frames: {told}");
    node.pool.close().await;
}

async fn both_roles_converse(library: Library) {
    for suite in SUITES {
        for python in [Python::Client, Python::Server] {
            for drainer in [Drainer::Pool, Drainer::Python, Drainer::Both] {
                converse(library, suite, python, drainer).await;
            }
        }
    }
}

#[tokio::test]
async fn noiseprotocol_converses_in_both_roles_and_suites() {
    both_roles_converse(Library::Noiseprotocol).await;
}

#[tokio::test]
async fn dissononce_converses_in_both_roles_and_suites() {
    both_roles_converse(Library::Dissononce).await;
}

// ---- what is wrong ------------------------------------------------------------------------------

/// A client whose handshake is wrong gets nothing, and the pool names the failure.
async fn is_met_with_silence(
    library: Library,
    suite: (Suite, &'static str),
    wrong: Value,
    cause: HandshakeFailure,
) {
    println!("client {library:?} {suite:?} {wrong}");
    // The silence lasts at most as long as a handshake may take, and at least half a second.
    let node = Node::start(config(suite.0).handshake_timeout(Duration::from_secs(5))).await;
    let mut events = node.pool.subscribe();
    let task = dialling(&node, &task(library, suite.1, &wrong));
    let mut process = Process::start(Python::Client, &task);
    if wrong["replay"] == true {
        // The recorded one is good, and its session goes its way.
        opened(&mut events).await;
        soon("the drain", node.pool.drain_peer(&python_id(), PATIENCE)).await;
        assert_eq!(process.outcome().await["goodbye"], json!([6, 0]));
    }
    let failed = event(&mut events, |event| match event {
        PoolEvent::HandshakeFailed { cause, .. } => Some(cause),
        PoolEvent::Opened { .. } => panic!("opened"),
        _ => None,
    })
    .await;
    assert_eq!(failed, cause, "{wrong}");
    let told = process.outcome().await;
    process.ended().await;
    assert_eq!((&told["heard"], &told["end"]), (&json!(0), &json!("end of stream")), "{told}");
    assert!(node.pool.peers().is_empty());
    assert_eq!(node.pool.stats().opened, u64::from(wrong["replay"] == true));
    node.pool.close().await;
}

/// Whether an error names what went wrong.
type Names = fn(&HandshakeError) -> bool;

/// A server whose handshake is wrong fails the dial, and the error names the failure.
async fn fails_the_dial(
    library: Library,
    suite: (Suite, &'static str),
    wrong: Value,
    names: Names,
) {
    println!("server {library:?} {suite:?} {wrong}");
    let node = Node::start(config(suite.0)).await;
    let mut process = Process::start(Python::Server, &task(library, suite.1, &wrong));
    let target = Target::new(python_id()).address(listening(&mut process).await);
    let failure = soon("the dial", node.pool.get_or_dial(target)).await.unwrap_err();
    match failure.cause() {
        DialError::Handshake(error) => assert!(names(error), "{wrong}: {error:?}"),
        other => panic!("{wrong}: {other:?}"),
    }
    let told = process.outcome().await;
    process.ended().await;
    if wrong["fault"].is_null() {
        // The library's own word for it: here it is the pool's message 1 that does not verify.
        let refused = told["refused"].as_str().unwrap();
        assert!(["InvalidTag", "DecryptFailedException"].contains(&refused), "{told}");
    } else {
        assert_eq!(told["heard"], 0, "{told}");
    }
    assert_eq!(node.pool.stats().opened, 0);
    node.pool.close().await;
}

/// A frame that is wrong ends the session without a word, and the reason names it.
async fn ends_the_session(
    library: Library,
    suite: (Suite, &'static str),
    python: Python,
    way: &str,
    expected: CloseReason,
) {
    println!("{python:?} {library:?} {suite:?} {way}");
    let node = Node::start(config(suite.0)).await;
    let mut events = node.pool.subscribe();
    let task = task(library, suite.1, &json!({ "fault": [way, "frame"] }));
    // The frame comes right behind the handshake, so that a lease might come too late.
    let mut process = match python {
        Python::Client => Process::start(python, &dialling(&node, &task)),
        Python::Server => {
            let mut process = Process::start(python, &task);
            let target = Target::new(python_id()).address(listening(&mut process).await);
            let pool = node.pool.clone();
            tokio::spawn(async move { pool.get_or_dial(target).await });
            process
        }
    };
    let (reason, report) = closed(&mut events).await;
    assert_eq!((reason, report.received), (expected, 0));
    let told = process.outcome().await;
    assert_eq!(told["heard"], 0, "{told}");
    process.ended().await;
    node.pool.close().await;
}

/// Tests that run together, since most of them wait for the end of a silence.
struct Tests(JoinSet<()>, Arc<Semaphore>);

impl Tests {
    fn new() -> Self {
        Self(JoinSet::new(), Arc::new(Semaphore::new(AT_ONCE)))
    }

    fn spawn(&mut self, test: impl Future<Output = ()> + Send + 'static) {
        let places = self.1.clone();
        self.0.spawn(async move {
            let _place = places.acquire().await.unwrap();
            test.await;
        });
    }

    async fn end(mut self) {
        while let Some(ended) = self.0.join_next().await {
            ended.unwrap();
        }
    }
}

async fn all_wrongs(library: Library) {
    let other = hex(identity(9).peer_id().as_bytes());
    let mut tests = Tests::new();
    for suite in SUITES {
        for (wrong, cause) in [
            (json!({ "network_id": "00" }), HandshakeFailure::Unverified),
            (json!({ "peer": other }), HandshakeFailure::Unverified),
            (json!({ "fault": ["flip", "message 1"] }), HandshakeFailure::Unverified),
            (json!({ "fault": ["cut", "message 1"] }), HandshakeFailure::Io),
            (json!({ "fault": ["flip", "message 3"] }), HandshakeFailure::Unverified),
            (json!({ "fault": ["cut", "message 3"] }), HandshakeFailure::Io),
            (json!({ "replay": true }), HandshakeFailure::Replayed),
        ] {
            tests.spawn(is_met_with_silence(library, suite, wrong, cause));
        }
        let dials: [(Value, Names); 6] = [
            (json!({ "network_id": "00" }), |e| matches!(e, HandshakeError::NoAnswer)),
            (json!({ "secret": "07".repeat(32) }), |e| matches!(e, HandshakeError::NoAnswer)),
            (json!({ "fault": ["flip", "message 2"] }), |e| {
                matches!(e, HandshakeError::Verify { message: 2 })
            }),
            (json!({ "fault": ["cut", "message 2"] }), |e| matches!(e, HandshakeError::NoAnswer)),
            (json!({ "fault": ["flip", "verdict"] }), |e| {
                matches!(e, HandshakeError::Protocol(ProtocolError::Decrypt))
            }),
            (json!({ "fault": ["cut", "verdict"] }), |e| matches!(e, HandshakeError::Io(_))),
        ];
        for (wrong, names) in dials {
            tests.spawn(fails_the_dial(library, suite, wrong, names));
        }
        for python in [Python::Client, Python::Server] {
            let unverified = CloseReason::Protocol(ProtocolError::Decrypt);
            tests.spawn(ends_the_session(library, suite, python, "flip", unverified));
            tests.spawn(ends_the_session(library, suite, python, "cut", CloseReason::Truncated));
        }
    }
    tests.end().await;
}

#[tokio::test]
async fn what_is_wrong_with_noiseprotocol_is_silence_or_a_named_error() {
    all_wrongs(Library::Noiseprotocol).await;
}

#[tokio::test]
async fn what_is_wrong_with_dissononce_is_silence_or_a_named_error() {
    all_wrongs(Library::Dissononce).await;
}
