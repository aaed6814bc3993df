//! The network between the pools: what happens to a connection is data, chosen beforehand.
//!
//! Owns the fates that wait for the next connections of each direction of each pair, the streams, and
//! the count of connections. It never looks at what the bytes mean, and everything that it does not
//! hold a fate for is smooth.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::io;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use noise_pool::io::{BoxFuture, BoxedStream, Stream, TargetData};
use noise_pool::{Address, Connector, Identity, PeerId, Pool, Role};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, duplex};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::model::{NAMES, NODES};

/// The identities of the pools, and last that of a peer that has a name and is never there.
pub(crate) static IDENTITIES: LazyLock<[Identity; NAMES]> =
    LazyLock::new(|| [1, 2, 3, 4, 5].map(|secret| Identity::from_secret([secret; 32])));

/// What the n-th pool is called.
pub(crate) fn name(node: usize) -> PeerId {
    IDENTITIES[node].peer_id()
}

/// Which pool has this name.
pub(crate) fn who(peer: PeerId) -> usize {
    IDENTITIES.iter().position(|identity| identity.peer_id() == peer).unwrap()
}

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

/// The network.
#[derive(Default)]
pub(crate) struct Net {
    pools: Mutex<Vec<Pool>>,
    plans: Mutex<BTreeMap<(usize, usize), VecDeque<Plan>>>,
    connects: Mutex<BTreeMap<(usize, usize), u64>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Net {
    /// From now on these pools answer to their names.
    pub(crate) fn join(&self, pools: Vec<Pool>) {
        *self.pools.lock().unwrap() = pools;
    }

    /// What happens to the connection from one pool to another that is next, behind those that have a
    /// plan already.
    pub(crate) fn plan(&self, from: usize, to: usize, plan: Plan) {
        self.plans.lock().unwrap().entry((from, to)).or_default().push_back(plan);
    }

    /// From now on connections between these two are smooth.
    pub(crate) fn mend(&self, one: usize, other: usize) {
        let mut plans = self.plans.lock().unwrap();
        plans.remove(&(one, other));
        plans.remove(&(other, one));
    }

    /// How often one pool asked for a connection to another.
    pub(crate) fn connects(&self, from: usize, to: usize) -> u64 {
        self.connects.lock().unwrap().get(&(from, to)).copied().unwrap_or_default()
    }

    /// Ends the network: it holds no pool and has no task any more.
    pub(crate) fn end(&self) {
        self.pools.lock().unwrap().clear();
        self.tasks.lock().unwrap().drain(..).for_each(|task| task.abort());
    }

    async fn connect(&self, from: usize, to: usize) -> io::Result<BoxedStream> {
        *self.connects.lock().unwrap().entry((from, to)).or_default() += 1;
        let plan = self.plans.lock().unwrap().get_mut(&(from, to)).and_then(VecDeque::pop_front);
        let to = match plan.map(|plan| plan.fate) {
            Some(Fate::Refused) => return Err(io::ErrorKind::ConnectionRefused.into()),
            Some(Fate::Hangs) => pending().await,
            // Without the panic hook: this panic is meant, and others are findings.
            Some(Fate::Panics) => std::panic::resume_unwind(Box::new("as planned")),
            Some(Fate::Elsewhere) => (to + 1) % NODES,
            _ => to,
        };
        let Some(pool) = self.pools.lock().unwrap().get(to).cloned() else {
            return Err(io::ErrorKind::HostUnreachable.into());
        };
        let near: BoxedStream = match plan {
            None => {
                let (near, far) = duplex(1 << 12);
                self.answer(pool, far);
                Box::new(near)
            }
            Some(plan) => {
                let (near, far) = self.wire(plan);
                self.answer(pool, far);
                Box::new(near)
            }
        };
        Ok(near)
    }

    fn answer(&self, pool: Pool, stream: impl Stream) {
        self.spawn(async move {
            let _ = pool.adopt(stream, Role::Responder).await;
        });
    }

    /// The ends of a stream with this plan: the initiator's, the responder's.
    pub(crate) fn wire(&self, plan: Plan) -> (impl Stream + use<>, impl Stream + use<>) {
        let (near, near_inner) = duplex(1 << 12);
        let (far, far_inner) = duplex(1 << 12);
        let (near_read, near_write) = tokio::io::split(near_inner);
        let (far_read, far_write) = tokio::io::split(far_inner);
        let harmless = Plan { fate: Fate::Passes, ..plan };
        let (there, back) = if plan.to_responder { (plan, harmless) } else { (harmless, plan) };
        self.spawn(async move {
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
        });
        (near, far)
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().unwrap().push(tokio::spawn(work).abort_handle());
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    plan: Plan,
    broken: &Notify,
) {
    let mut passed = 0;
    let mut piece = vec![0; usize::from(plan.piece).min(1 << 12)];
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
            Fate::StallsAt(at) if here(at).is_some() => return pending().await,
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

/// One pool's way into the network. Every peer has exactly one address.
pub(crate) struct Port {
    pub(crate) net: Arc<Net>,
    pub(crate) own: usize,
}

impl Connector for Port {
    fn resolve<'a>(
        &'a self,
        peer: &'a PeerId,
        _: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<Vec<Address>>> {
        Box::pin(async move { Ok(vec![format!("{peer}:1").parse().map_err(io::Error::other)?]) })
    }

    fn connect<'a>(
        &'a self,
        address: &'a Address,
        _: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move {
            let text = address.to_string();
            let host = text.split(':').next().unwrap_or_default();
            let to: PeerId = host.parse().map_err(io::Error::other)?;
            self.net.connect(self.own, who(to)).await
        })
    }
}
