//! An example run as a process of its own: started, typed to, read, signalled, and never left behind.
//!
//! Owns where the examples' binaries are, and the bound on every wait. What a process prints stays in
//! its pipes until a test asks for it, so a test that lets much be printed has to read it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::{sleep, timeout};

/// The bound on every single wait: much more than any takes, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);

/// The binary of an example, as `cargo test` builds it before any test runs.
fn binary(example: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own binary has a path");
    // target/<profile>/deps/<test> and target/<profile>/examples/<example>.
    let profile = test.parent().and_then(|deps| deps.parent()).expect("it is in target/*/deps");
    let name = format!("{example}{}", std::env::consts::EXE_SUFFIX);
    let binary = profile.join("examples").join(name);
    assert!(
        binary.is_file(),
        "{} is not there: `cargo test` builds it; `cargo test --test processes` does not, so run \
         `cargo build --examples` first, with the same profile",
        binary.display(),
    );
    binary
}

/// What a process left when it had ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// None: a signal ended it.
    pub(crate) code: Option<i32>,
    /// The rest of standard output.
    pub(crate) out: String,
    /// The rest of standard error.
    pub(crate) err: String,
}

/// A running example; killed when dropped.
pub(crate) struct Program {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
    /// What was read of standard error, for the message of a test that fails.
    told: String,
}

impl Program {
    /// Starts an example with pipes on all three streams.
    pub(crate) fn start<A: AsRef<OsStr>>(
        example: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut child = Command::new(binary(example))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the example starts");
        Self {
            name: format!("{example} (process {})", child.id().unwrap_or_default()),
            input: child.stdin.take(),
            out: BufReader::new(child.stdout.take().expect("it is piped")),
            err: BufReader::new(child.stderr.take().expect("it is piped")),
            child,
            told: String::new(),
        }
    }

    /// Waits for the next line of standard output.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        match timeout(PATIENCE, self.out.read_line(&mut line)).await {
            Ok(Ok(1..)) => line.trim_end_matches('\n').to_string(),
            outcome => self.fail(&format!("printed no line: {outcome:?}")).await,
        }
    }

    /// Waits for the next line of standard output that has `part` in it.
    pub(crate) async fn line_with(&mut self, part: &str) -> String {
        loop {
            let line = self.line().await;
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Waits for a line of standard error that has `part` in it.
    pub(crate) async fn told(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            match timeout(PATIENCE, self.err.read_line(&mut line)).await {
                Ok(Ok(1..)) => self.told += &line,
                outcome => self.fail(&format!("did not tell {part:?}: {outcome:?}")).await,
            }
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Writes a line to standard input.
    pub(crate) async fn type_line(&mut self, line: &str) {
        let input = self.input.as_mut().expect("standard input is open");
        let written = timeout(PATIENCE, input.write_all(format!("{line}\n").as_bytes())).await;
        if !matches!(written, Ok(Ok(()))) {
            self.fail(&format!("did not read {line:?}: {written:?}")).await;
        }
    }

    /// Closes standard input.
    pub(crate) fn end_of_input(&mut self) {
        self.input = None;
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a child may be signalled");
    }

    /// Ends it as a power cut would, and waits until it has gone.
    pub(crate) async fn kill(mut self) {
        self.signal(Signal::KILL);
        self.wait().await;
    }

    /// Stops it, and waits until it stands still.
    pub(crate) async fn stop(&mut self) {
        self.signal(Signal::STOP);
        let standing = async {
            let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
            while waitid(WaitId::Pid(self.pid()), options).expect("a child").is_none() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        if timeout(PATIENCE, standing).await.is_err() {
            self.fail("did not stop").await;
        }
    }

    /// Waits until it ends by itself, with its standard input closed.
    pub(crate) async fn end(mut self) -> Ended {
        self.end_of_input();
        let (mut out, mut err) = (String::new(), String::new());
        let read = async {
            tokio::try_join!(self.out.read_to_string(&mut out), self.err.read_to_string(&mut err))
        };
        let read = timeout(PATIENCE, read).await;
        if !matches!(read, Ok(Ok(_))) {
            self.fail(&format!("did not end: {read:?}\n{out}\n{err}")).await;
        }
        Ended { code: self.wait().await.code(), out, err }
    }

    fn pid(&self) -> Pid {
        // None only after `wait`, which takes the program.
        let id = self.child.id().expect("it has not been waited for");
        Pid::from_raw(i32::try_from(id).expect("a process id")).expect("not zero")
    }

    async fn wait(&mut self) -> ExitStatus {
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) => status,
            outcome => self.fail(&format!("did not end: {outcome:?}")).await,
        }
    }

    /// Panics with what the process had to say.
    async fn fail(&mut self, what: &str) -> ! {
        // Killed first: its standard error ends only then.
        let _ = self.child.start_kill();
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, self.err.read_to_end(&mut rest)).await;
        panic!("{} {what}\n{}{}", self.name, self.told, String::from_utf8_lossy(&rest))
    }
}
