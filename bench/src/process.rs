//! What this process has used so far, and processes of the bench's own.
//!
//! Owns the readings of memory and processor time, and how a case is run in a process of its own:
//! what it holds resident is then its own, whatever ran before it.

use std::env;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// Bytes of this process that are in memory.
///
/// # Panics
/// On systems without `/proc`.
pub fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux shows it");
    let pages = pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok());
    pages.expect("the second number") * rustix::param::page_size() as f64
}

/// Processor time of all threads of this process, in the kernel and outside it.
pub fn processor_time() -> Duration {
    clock(rustix::time::ClockId::ProcessCPUTime)
}

/// Processor time of this thread. What it does alone takes just so long where nothing else runs, and
/// elsewhere what other programs take is not in it.
pub fn thread_time() -> Duration {
    clock(rustix::time::ClockId::ThreadCPUTime)
}

fn clock(id: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(id);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Runs a part of a group in a process of its own; what it says.
///
/// # Panics
/// If it fails: its own words are on the standard error.
pub fn apart(name: &str, arguments: &[&str]) -> Value {
    let bench = env::current_exe().expect("the bench is a file");
    let output = Command::new(bench)
        .args(["--part", name])
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .expect("the bench runs itself");
    assert!(output.status.success(), "{name} {arguments:?} failed");
    serde_json::from_slice(&output.stdout).expect("a part prints JSON")
}
