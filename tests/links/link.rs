//! A link and the processes at its ends.
//!
//! Owns what this machine must have for it, and that nothing is left of it.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::figures::now;

/// Longer than a process needs for its report once its time is up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What each direction does to packets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    /// In kbit/s; 0 is no bound.
    pub(crate) rate: u32,
    /// One way, in milliseconds.
    pub(crate) delay: u32,
    /// In percent.
    pub(crate) loss: f64,
    /// In KiB.
    pub(crate) queue: u32,
    /// From when to when nothing passes, in seconds.
    pub(crate) cut: Option<(f64, f64)>,
}

/// A link that is up. It goes when this does.
pub(crate) struct Up {
    _carrier: Child,
    name: String,
    /// Since when, in microseconds of the wall clock.
    pub(crate) since: u64,
}

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// 10.99.0.1.
    A,
    /// 10.99.0.2.
    B,
}

/// What the machine lacks.
pub(crate) fn missing() -> Vec<&'static str> {
    let runs = |program: &str, argument| {
        let mut command = std::process::Command::new(program);
        command.arg(argument).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let tun = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let conditions = [
        (geteuid().is_root(), "to be root, who alone may make network namespaces"),
        (runs("ip", "-V"), "`ip` (Debian's package iproute2)"),
        (runs("python3", "--version"), "python3"),
        (tun.is_ok(), "/dev/net/tun, to read and to write"),
    ];
    conditions.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what).collect()
}

impl Up {
    /// Makes the link; `number` tells it from others.
    pub(crate) async fn make(link: Link, number: usize) -> Self {
        let name = format!("np{}x{number}", std::process::id());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/links/link.py");
        let mut command = Command::new("python3");
        command.args([script, &format!("{name}a"), &format!("{name}b")]);
        command.args(["--rate", &link.rate.to_string(), "--delay", &link.delay.to_string()]);
        command.args(["--loss", &link.loss.to_string(), "--queue", &link.queue.to_string()]);
        command.args(["--seed", &number.to_string()]);
        if let Some((from, to)) = link.cut {
            command.args(["--cut", &format!("{from}:{to}")]);
        }
        let mut carrier =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 runs");
        let output = carrier.stdout.as_mut().expect("it is piped");
        let mut word = [0; 3];
        timeout(PATIENCE, output.read_exact(&mut word)).await.expect("in time").expect("it is up");
        assert_eq!(&word, b"up\n", "the link is not up");
        Self { _carrier: carrier, name, since: now() }
    }

    fn end(&self, side: Side) -> String {
        let end = match side {
            Side::A => "a",
            Side::B => "b",
        };
        format!("{}{end}", self.name)
    }

    /// Takes an end's address away, and gives it another.
    pub(crate) async fn move_end(&self, side: Side, from: &str, to: &str) {
        let end = self.end(side);
        let device = format!("l{}", &end[end.len().saturating_sub(12)..]);
        for (verb, address) in [("del", from), ("add", to)] {
            let mut command = Command::new("ip");
            command.args(["-n", &end, "addr", verb, &format!("{address}/24"), "dev", &device]);
            assert!(command.status().await.is_ok_and(|status| status.success()), "ip fails");
        }
    }

    /// Starts this program at one end.
    pub(crate) fn start(&self, side: Side, arguments: &[String]) -> Process {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.end(side)]);
        command.arg(std::env::current_exe().expect("our own program")).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        Process { child: command.spawn().expect("it starts") }
    }
}

/// A process at an end, killed when dropped. `ip netns exec` becomes the program: they have one number.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Its number, to stop it by.
    pub(crate) fn id(&self) -> ProcessId {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        ProcessId(id.and_then(Pid::from_raw).expect("it runs"))
    }

    /// What it reports at its end.
    pub(crate) async fn report(mut self, lasts: Duration) -> Value {
        let mut lines = BufReader::new(self.child.stdout.take().expect("it is piped")).lines();
        let line = timeout(lasts + PATIENCE, lines.next_line()).await.expect("it ends in time");
        let line = line.expect("it can be read").expect("it says above what is wrong");
        serde_json::from_str(&line).expect("a report")
    }
}

/// Which process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessId(Pid);

impl ProcessId {
    /// It does nothing from now on.
    pub(crate) fn stop(self) {
        kill_process(self.0, Signal::STOP).expect("it runs");
    }

    /// It goes on.
    pub(crate) fn go_on(self) {
        kill_process(self.0, Signal::CONT).expect("it is there");
    }
}
