//! The network that the fuzzed pools are on: what happens to each connection is data.
//!
//! Owns the names of the pools, the fates of connections and the streams between them. It must never
//! look at what the bytes mean.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, duplex};
use tokio::time::sleep;

use crate::base::address::Address;
use crate::base::id::PeerId;
use crate::base::identity::Identity;
use crate::base::io::{BoxFuture, BoxedStream, TargetData};
use crate::base::sync::{Mutex, lock};
use crate::pool::{Pool, Role};
use crate::transport::Connector;
use crate::verify::fuzz::input::Input;

/// Pools on the network. One more peer has a name and is never there.
pub(super) const NODES: usize = 3;

pub(super) static IDENTITIES: LazyLock<[Identity; NODES + 1]> =
    LazyLock::new(|| [1, 2, 3, 4].map(|secret| Identity::from_secret([secret; 32])));

/// What happens to one connection.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    what: Fate,
    /// After so many bytes in the direction that has the fate.
    at: u16,
    /// Bytes that pass at once, and how long each such piece takes.
    piece: u16,
    delay: Duration,
    to_responder: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passes,
    /// Connecting fails.
    Refused,
    /// Connecting never ends.
    Hangs,
    /// The connector panics.
    Panics,
    /// Leads to the next node instead.
    Elsewhere,
    /// The stream breaks.
    Breaks,
    /// The stream passes nothing more.
    Stalls,
    /// A bit changes.
    Flips,
}

impl Plan {
    /// Nothing happens to it.
    const SMOOTH: Self = Self {
        what: Fate::Passes,
        at: 0,
        piece: u16::MAX,
        delay: Duration::ZERO,
        to_responder: true,
    };

    pub(super) fn take(input: &mut Input<'_>) -> Self {
        let what = input.byte();
        Self {
            what: match what & 7 {
                0 => Fate::Passes,
                1 => Fate::Refused,
                2 => Fate::Hangs,
                3 => Fate::Panics,
                4 => Fate::Elsewhere,
                5 => Fate::Breaks,
                6 => Fate::Stalls,
                _ => Fate::Flips,
            },
            at: input.word() & 0x0fff,
            piece: if what & 0x10 == 0 { u16::MAX } else { 7 },
            delay: Duration::from_millis(if what & 0x20 == 0 { 0 } else { 40 }),
            to_responder: what & 0x08 == 0,
        }
    }
}

/// The network.
#[derive(Default)]
pub(super) struct Net {
    pub(super) nodes: Mutex<Vec<Pool>>,
    /// What happens to the next connections; those after them pass.
    pub(super) plans: Mutex<VecDeque<Plan>>,
}

impl Net {
    async fn connect(self: &Arc<Self>, node: usize) -> io::Result<BoxedStream> {
        let plan = lock(&self.plans).pop_front().unwrap_or(Plan::SMOOTH);
        let node = match plan.what {
            Fate::Refused => return Err(io::ErrorKind::ConnectionRefused.into()),
            Fate::Hangs => pending().await,
            // Without the panic hook: this panic is meant, and others are findings.
            Fate::Panics => std::panic::resume_unwind(Box::new("as planned")),
            Fate::Elsewhere => (node + 1) % NODES,
            _ => node,
        };
        let Some(pool) = lock(&self.nodes).get(node).cloned() else {
            return Err(io::ErrorKind::HostUnreachable.into());
        };
        let (near, far) = wire(plan);
        tokio::spawn(async move {
            let _ = pool.adopt(far, Role::Responder).await;
        });
        Ok(Box::new(near))
    }
}

/// The ends of a stream with this plan: the initiator's, the responder's.
pub(super) fn wire(plan: Plan) -> (impl crate::io::Stream, impl crate::io::Stream) {
    let (near, near_inner) = duplex(1 << 12);
    let (far, far_inner) = duplex(1 << 12);
    let (near_read, near_write) = tokio::io::split(near_inner);
    let (far_read, far_write) = tokio::io::split(far_inner);
    let harmless = Plan { what: Fate::Passes, ..plan };
    let (there, back) = if plan.to_responder { (plan, harmless) } else { (harmless, plan) };
    tokio::spawn(async move {
        // A break is of both directions; an ordinary end is of one.
        let broken = tokio::sync::Notify::new();
        let pumps = async {
            tokio::join!(
                pump(near_read, far_write, there, &broken),
                pump(far_read, near_write, back, &broken),
            )
        };
        tokio::select! {
            biased;
            () = broken.notified() => {}
            _ = pumps => {}
        }
    });
    (near, far)
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    plan: Plan,
    broken: &tokio::sync::Notify,
) {
    let mut passed = 0;
    let mut piece = vec![0; usize::from(plan.piece).min(1 << 12)];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        if !plan.delay.is_zero() {
            sleep(plan.delay).await;
        }
        let piece = &mut piece[..length];
        let fate = usize::from(plan.at).checked_sub(passed).filter(|at| *at < length);
        passed += length;
        match (plan.what, fate) {
            (Fate::Breaks, Some(at)) => {
                let _ = to.write_all(&piece[..at]).await;
                broken.notify_one();
                return;
            }
            (Fate::Stalls, Some(_)) => return pending().await,
            (Fate::Flips, Some(at)) => piece[at] ^= 0x10,
            _ => {}
        }
        if to.write_all(piece).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// One node's way into the network.
pub(super) struct Port(pub(super) Arc<Net>);

impl Connector for Port {
    fn resolve<'a>(
        &'a self,
        peer: &'a PeerId,
        _: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<Vec<Address>>> {
        let node = IDENTITIES.iter().position(|identity| identity.peer_id() == *peer);
        Box::pin(async move { Ok(node.map(|node| address(node, 1)).into_iter().collect()) })
    }

    fn connect<'a>(
        &'a self,
        address: &'a Address,
        _: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<BoxedStream>> {
        let Address::Host { host, .. } = address else {
            return Box::pin(async { Err(io::ErrorKind::InvalidInput.into()) });
        };
        let node = host.bytes().next().map_or(0, |digit| usize::from(digit - b'a'));
        Box::pin(self.0.connect(node))
    }
}

pub(super) fn address(node: usize, port: u8) -> Address {
    let host = ["a", "b", "c", "d"][node];
    format!("{host}:{port}").parse().expect("a letter is a host name")
}
