//! `peer send`: each line of standard input becomes one message.
//!
//! Owns the account of what was delivered. Only the peer can say what it received, and it does so
//! when a session ends: so the account is complete after the drain, and not before.

use std::io::{self, BufRead};
use std::net::SocketAddr;
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use noise_pool::event::PoolEvent;
use noise_pool::{Inbox, PeerAddress, Pool};
use tokio::sync::mpsc;

use crate::listen::{print_line, shown};
use crate::{DRAIN_AT_MOST, Failure, Node, interrupts};

/// Lines read ahead of what the session accepts.
const READ_AHEAD: usize = 64;

#[derive(Args)]
pub(crate) struct SendLines {
    /// To whom and where: <peer>@<addr>
    target: PeerAddress,
    /// Also accept sessions here, so that the peer can dial back; prints <peer>@<addr> first
    #[arg(long)]
    addr: Option<SocketAddr>,
    #[command(flatten)]
    node: Node,
}

impl SendLines {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let (pool, mut inbox) = self.node.open()?;
        let mut interrupts = interrupts()?;
        let mut events = pool.subscribe();
        if let Some(addr) = self.addr {
            let address = pool.listen(addr).await?;
            print_line(&format!("{}@{address}", pool.id()))?;
        }
        let mut sent = 0;
        // Dropping the work half-way is safe: a message was accepted, or it was not.
        let outcome = tokio::select! {
            biased;
            _ = interrupts.recv() => Ok(()),
            outcome = send_lines(&pool, &self.target, &mut inbox, &mut sent) => outcome,
        };

        // Whatever happened: what was accepted goes out, and the peer says what it has.
        let drain = pool.drain(DRAIN_AT_MOST).await;
        while let Some(message) = inbox.recv().await {
            print_line(&shown(&message))?;
        }
        // Not from the drain's report alone: a session that was replaced on the way has its own.
        let mut delivered = 0;
        while let Some(event) = events.recv().await {
            if let PoolEvent::Closed { report, .. } = event? {
                delivered += report.delivered;
            }
        }
        let ms = drain.elapsed.as_secs_f64() * 1e3;
        eprintln!("{sent} sent, {delivered} delivered, drained in {ms:.1} ms");
        outcome?;
        Ok(match delivered == sent {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

async fn send_lines(
    pool: &Pool,
    target: &PeerAddress,
    inbox: &mut Inbox,
    sent: &mut u64,
) -> Result<(), Failure> {
    // Before the first line: who cannot be reached should be known before anything is typed.
    pool.get_or_dial(target.clone()).await?;
    let mut lines = stdin_lines();
    loop {
        tokio::select! {
            biased;
            line = lines.recv() => match line {
                // `Pool::send` and not `lease.send`: if the session is replaced meanwhile, this line
                // goes over its successor.
                Some(line) => {
                    pool.send(target.clone(), line?).await?;
                    *sent += 1;
                }
                None => break,
            },
            Some(message) = inbox.recv() => print_line(&shown(&message))?,
        }
    }
    Ok(())
}

/// Lines of standard input, without their ends.
///
/// Read by a thread of its own, which may block for ever: tokio's standard input would keep the
/// runtime, and so the program, from ending until one more line is typed.
fn stdin_lines() -> mpsc::Receiver<io::Result<Bytes>> {
    let (lines, receiver) = mpsc::channel(READ_AHEAD);
    std::thread::spawn(move || {
        for line in io::stdin().lock().split(b'\n') {
            let last = line.is_err();
            if lines.blocking_send(line.map(Bytes::from)).is_err() || last {
                return;
            }
        }
    });
    receiver
}
