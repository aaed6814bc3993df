//! This binary once more, as another process that is told what to do line by line.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// Longer than any round with its end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The other process; killed when dropped.
pub(crate) struct Other {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Other {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("our own binary"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, input, output }
    }

    pub(crate) async fn tell(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
    }

    pub(crate) async fn hear(&mut self) -> String {
        let line = timeout(PATIENCE, self.output.next_line()).await;
        line.expect("it answers in time").expect("it answers").expect("it says above what is wrong")
    }

    /// Processor time that it has used so far, of all its threads.
    pub(crate) fn used(&self) -> Duration {
        processor_time(&self.child.id().expect("it runs").to_string())
    }
}

/// Processor time of a process, in the kernel and outside, as Linux tells it in hundredths of a second.
pub(crate) fn processor_time(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs, on Linux");
    // After the name, which may hold anything, in parentheses: the state, and 10 numbers.
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks = fields.split_whitespace().skip(11).take(2);
    Duration::from_millis(
        ticks.map(|field| field.parse::<u64>().expect("a number")).sum::<u64>() * 10,
    )
}
