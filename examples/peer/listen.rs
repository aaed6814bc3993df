//! `peer listen`: accepts sessions and prints what arrives.
//!
//! Owns how a received message is shown. It never prints a stranger's bytes as they are: a message
//! could carry codes that a terminal obeys.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;
use noise_pool::Message;
use noise_pool::event::PoolEvent;

use crate::{DRAIN_AT_MOST, Failure, Node, interrupts};

#[derive(Args)]
pub(crate) struct Listen {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: SocketAddr,
    #[command(flatten)]
    node: Node,
}

impl Listen {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let (pool, mut inbox) = self.node.open()?;
        let mut interrupts = interrupts()?;
        // Before the first peer can connect: a subscription tells what happens after it.
        let mut events = pool.subscribe();
        let address = pool.listen(self.addr).await?;
        print_line(&format!("{}@{address}", pool.id()))?;

        loop {
            tokio::select! {
                biased;
                Some(()) = interrupts.recv() => break,
                Some(event) = events.recv() => match event {
                    Ok(event) => show_event(&event),
                    Err(lagged) => eprintln!("* {lagged}"),
                },
                Some(message) = inbox.recv() => print_line(&shown(&message))?,
                else => break,
            }
        }

        // Peers may be sending: what they had sent when they hear of our drain still arrives, and the
        // inbox ends after it.
        let report = pool.drain(DRAIN_AT_MOST).await;
        while let Some(message) = inbox.recv().await {
            print_line(&shown(&message))?;
        }
        let ms = report.elapsed.as_millis();
        eprintln!("* drained {} sessions in {ms} ms", report.sessions);
        Ok(ExitCode::SUCCESS)
    }
}

fn show_event(event: &PoolEvent) {
    match event {
        PoolEvent::Opened { peer, remote, .. } => match remote {
            Some(remote) => eprintln!("* {peer} connected from {remote}"),
            None => eprintln!("* {peer} connected"),
        },
        PoolEvent::Closed { peer, reason, report, .. } => {
            eprintln!("* {peer} left after {} messages: {reason}", report.received);
        }
        _ => {}
    }
}

/// One line for a message, with its sender's whole name: a short one could be imitated.
pub(crate) fn shown(message: &Message) -> String {
    format!("{} {}", message.peer, printable(&message.body))
}

fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(bytes).chars() {
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

/// Prints a line, and flushes it: a program at the other end of a pipe waits for it.
pub(crate) fn print_line(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(printable("grüß dich".as_bytes()), "grüß dich");
        assert_eq!(printable(b"\x1b[2J\r\n"), "\\u{1b}[2J\\r\\n");
        assert_eq!(printable(b"\xff"), "\u{fffd}");
    }
}
