//! Streams to which something happens, as a plan says.

use std::future::pending;
use std::time::Duration;

use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex,
};
use tokio::sync::Notify;
use tokio::time::sleep;

/// Bytes that each half of a stream holds.
const HALF: usize = 1 << 12;

/// What happens to one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) fate: Fate,
    /// Only so many bytes pass at once.
    pub(crate) piece: u16,
    /// How long each piece takes.
    pub(crate) delay_ms: u8,
    /// Which direction a fate of the stream is for.
    pub(crate) to_responder: bool,
}

/// What is wrong with one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing; it may still be slow, and in pieces.
    Passes,
    /// Connecting fails.
    Refused,
    /// Connecting never ends.
    Hangs,
    /// The connector panics.
    Panics,
    /// Leads to another pool than the one that was asked for.
    Elsewhere,
    /// Both directions break after so many bytes.
    BreaksAt(u16),
    /// Nothing more passes after so many bytes.
    StallsAt(u16),
    /// A bit of this byte changes.
    FlipsAt(u16),
}

impl Plan {
    /// Nothing happens.
    pub(crate) const SMOOTH: Self =
        Self { fate: Fate::Passes, piece: u16::MAX, delay_ms: 0, to_responder: true };
}

/// The ends of a stream with this plan, the initiator's and the responder's, and what is to be run
/// between them.
pub(crate) fn pipe(plan: Plan) -> (DuplexStream, DuplexStream, impl Future<Output = ()> + Send) {
    let (near, near_inner) = duplex(HALF);
    let (far, far_inner) = duplex(HALF);
    let (near_read, near_write) = tokio::io::split(near_inner);
    let (far_read, far_write) = tokio::io::split(far_inner);
    let harmless = Plan { fate: Fate::Passes, ..plan };
    let (there, back) = if plan.to_responder { (plan, harmless) } else { (harmless, plan) };
    let work = async move {
        // A break is of both directions; an ordinary end is of one.
        let broken = Notify::new();
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
    };
    (near, far, work)
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    plan: Plan,
    broken: &Notify,
) {
    let mut passed = 0;
    let mut piece = vec![0; usize::from(plan.piece).min(HALF)];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        if plan.delay_ms > 0 {
            sleep(Duration::from_millis(plan.delay_ms.into())).await;
        }
        let piece = &mut piece[..length];
        // Where in this piece the fate is.
        let here = |at: u16| usize::from(at).checked_sub(passed).filter(|at| *at < length);
        match plan.fate {
            Fate::BreaksAt(at) => {
                if let Some(at) = here(at) {
                    let _ = to.write_all(&piece[..at]).await;
                    broken.notify_one();
                    return;
                }
            }
            Fate::StallsAt(at) => {
                if let Some(at) = here(at) {
                    let _ = to.write_all(&piece[..at]).await;
                    return pending().await;
                }
            }
            Fate::FlipsAt(at) => {
                if let Some(at) = here(at) {
                    piece[at] ^= 0x10;
                }
            }
            _ => {}
        }
        passed += length;
        if to.write_all(piece).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
