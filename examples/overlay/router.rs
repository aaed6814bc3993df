//! One router: its key, and a pool that comes and goes as the router restarts.
//!
//! Owns the way from a received message to the next hop, and the order of a restart. It never holds
//! more than one pool, and never repeats a send whose message the pool has accepted.
//!
//! ```text
//! running ─ leaves the paths ─▶ quiet ─ withdraws its address ─▶ draining ─▶ down ─▶ running
//!    └────────────────────────── killed ────────────────────────────────────▶ down ─┘
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use noise_pool::error::{Retry, SendToError};
use noise_pool::snapshot::Snapshot;
use noise_pool::{Config, DrainReport, Identity, Inbox, PeerId, Pool};
use rand::RngExt;
use tokio::sync::{Mutex, RwLock, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Failure;
use crate::ledger::Ledger;
use crate::netdb::NetDb;
use crate::packet::{self, Step};

/// How long a router that leaves must have received nothing before it drains. A message under way
/// through it takes far less than that.
const QUIET: Duration = Duration::from_millis(50);
/// A router that never gets quiet leaves all the same: what reaches it later waits for its
/// successor.
const QUIET_AT_MOST: Duration = Duration::from_secs(5);
/// Between the end of the old pool and the start of its successor: others must notice.
const DOWN: Duration = Duration::from_millis(50);
/// The pool's own bound on a drain; none comes near it.
const DRAIN_AT_MOST: Duration = Duration::from_secs(30);
/// The first pause before a send is repeated; it doubles.
const RETRY_FIRST: Duration = Duration::from_millis(2);
/// The longest pause of our own; the pool's backoff may ask for more.
const RETRY_MOST: Duration = Duration::from_millis(250);
/// Messages taken from the inbox at a time.
const BATCH: usize = 64;

/// What all routers of the process share.
pub(crate) struct Overlay {
    /// Who is where.
    pub(crate) netdb: NetDb,
    /// Who has sent and received what.
    pub(crate) ledger: Ledger,
    /// Sources hold it for reading while they write a message into the books; whoever holds it for
    /// writing knows that no new message sets out.
    pub(crate) gate: RwLock<()>,
    /// How every pool is built.
    pub(crate) config: Config,
}

/// One router of the overlay.
pub(crate) struct Router {
    /// Its number, for tables and the books.
    pub(crate) number: u16,
    /// Its name in the network.
    pub(crate) peer: PeerId,
    identity: Identity,
    overlay: Arc<Overlay>,
    /// None while it restarts. Messages in hand wait here for the successor: this process outlives
    /// its routers, where a real one would write them to disk or finish them before it goes.
    pool: watch::Sender<Option<Running>>,
    /// The task that reads the inbox of the present pool.
    receiver: Mutex<Option<JoinHandle<()>>>,
    /// One task per message that could not be sent on at once.
    carriers: TaskTracker,
    received: AtomicU64,
}

/// One life of a router.
#[derive(Clone)]
pub(crate) struct Running {
    /// Its pool.
    pub(crate) pool: Pool,
    /// Fires when it is killed, and takes what the router has in hand along.
    killed: CancellationToken,
}

impl Router {
    /// A router that is down.
    pub(crate) fn new(number: u16, identity: Identity, overlay: Arc<Overlay>) -> Arc<Self> {
        Arc::new(Self {
            number,
            peer: identity.peer_id(),
            identity,
            overlay,
            pool: watch::Sender::new(None),
            receiver: Mutex::new(None),
            carriers: TaskTracker::new(),
            received: AtomicU64::new(0),
        })
    }

    /// Down → running: a new pool with the same key, on a new port.
    pub(crate) async fn start(self: &Arc<Self>) -> Result<(), Failure> {
        let (pool, inbox) = Pool::builder(self.identity.clone())
            .config(self.overlay.config.clone())
            .connector(self.overlay.netdb.clone())
            .build()?;
        let address = pool.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let running = Running { pool, killed: CancellationToken::new() };
        let receive = self.clone().receive(inbox, running.clone());
        *self.receiver.lock().await = Some(tokio::spawn(receive));
        self.pool.send_replace(Some(running));
        // Last: who reads the address must find a router that answers.
        self.overlay.netdb.publish(&self.peer, address);
        Ok(())
    }

    /// Running → down, losing nothing: leave the paths, send on what is under way, then drain.
    pub(crate) async fn leave(&self) -> Option<(Snapshot, DrainReport)> {
        self.overlay.netdb.announce_leave(&self.peer);
        self.quiet().await;
        // From here on nobody dials us, and a neighbour that finds its session drained waits for our
        // next address.
        self.overlay.netdb.withdraw(&self.peer);
        let running = self.pool.send_replace(None)?;
        let report = running.pool.drain(DRAIN_AT_MOST).await;
        // The inbox stays readable through the drain and then ends, so the receiver has seen all.
        self.join_receiver().await;
        let last = running.pool.snapshot();
        sleep(DOWN).await;
        Some((last, report))
    }

    /// Running → down at once, as a crash would: what is in hand, queued or unread is lost.
    pub(crate) async fn kill(&self) -> Option<Snapshot> {
        let running = self.pool.send_replace(None)?;
        running.killed.cancel();
        running.pool.close().await;
        self.join_receiver().await;
        let last = running.pool.snapshot();
        // A crashed router withdraws nothing: for a while, neighbours dial a dead address.
        sleep(DOWN).await;
        Some(last)
    }

    /// The present pool, if the router runs.
    pub(crate) fn pool(&self) -> Option<Pool> {
        (self.pool.borrow().as_ref()).map(|running| running.pool.clone())
    }

    /// The present life of the router, or its next one.
    pub(crate) async fn running(&self) -> Running {
        let mut pool = self.pool.subscribe();
        loop {
            if let Some(running) = pool.borrow_and_update().clone() {
                return running;
            }
            if pool.changed().await.is_err() {
                // Unreachable while `self` holds the sender.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Sends a message to its next hop, however long that takes: dials, waits for a router that is
    /// down, and repeats what the pool did not accept. A killed router drops it.
    pub(crate) async fn carry(&self, next: PeerId, mut body: Bytes) {
        let mut changes = self.overlay.netdb.changes();
        let mut pause = RETRY_FIRST;
        loop {
            changes.mark_seen();
            let running = self.running().await;
            // `send` gives the message back if and only if it was not accepted, so repeating it can
            // never make two of it.
            let sent = running.pool.send(next, body);
            let Some(sent) = running.killed.run_until_cancelled(sent).await else {
                return;
            };
            let retry_at = match sent {
                Ok(()) => return,
                Err(SendToError::Dial { message, source }) => {
                    body = message;
                    match source.retry() {
                        Retry::At(until) => Some(Instant::from_std(until)),
                        // `Never` means: not to this address. It will have another one.
                        _ => None,
                    }
                }
                Err(SendToError::Send(error)) => {
                    body = error.message;
                    None
                }
                Err(other) => return self.overlay.ledger.fault(other),
            };
            self.overlay.ledger.retried();
            let jitter = rand::rng().random_range(0.5..1.0);
            let retry_at =
                (Instant::now() + pause.mul_f64(jitter)).max(retry_at.unwrap_or_else(Instant::now));
            pause = (pause * 2).min(RETRY_MOST);
            tokio::select! {
                biased;
                () = running.killed.cancelled() => return,
                () = changes.next() => {}
                () = sleep_until(retry_at) => {}
            }
        }
    }

    /// Reads one pool's inbox until it ends.
    async fn receive(self: Arc<Self>, mut inbox: Inbox, running: Running) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let received = inbox.recv_many(&mut batch, BATCH);
            match running.killed.run_until_cancelled(received).await {
                None | Some(0) => return,
                Some(_) => {}
            }
            self.received.fetch_add(batch.len() as u64, Ordering::Relaxed);
            for message in batch.drain(..) {
                match packet::step(message.body, &self.peer) {
                    Ok(Step::Deliver(stamp)) => self.overlay.ledger.deliver(stamp),
                    Ok(Step::Relay { next, body }) => self.relay(&running.pool, next, body),
                    Err(error) => self.overlay.ledger.fault(error),
                }
            }
        }
    }

    /// Sends on at once where a session stands and has room; else a task of its own waits, so that
    /// one slow or absent hop does not hold up the messages behind it. What is under way at all is
    /// bounded by the sources' windows, and so is the number of these tasks.
    fn relay(self: &Arc<Self>, pool: &Pool, next: PeerId, body: Bytes) {
        let body = match pool.get(&next) {
            None => body,
            Some(lease) => match lease.try_send(body) {
                Ok(()) => return,
                Err(refused) => refused.message,
            },
        };
        let router = self.clone();
        self.carriers.spawn(async move { router.carry(next, body).await });
    }

    /// Waits until nothing has come in for a while and nothing waits to go out.
    async fn quiet(&self) {
        let give_up = Instant::now() + QUIET_AT_MOST;
        let mut before = self.received.load(Ordering::Relaxed);
        while Instant::now() < give_up {
            sleep(QUIET).await;
            let now = self.received.load(Ordering::Relaxed);
            if now == before && self.carriers.is_empty() {
                return;
            }
            before = now;
        }
    }

    async fn join_receiver(&self) {
        if let Some(receiver) = self.receiver.lock().await.take()
            && let Err(error) = receiver.await
        {
            self.overlay.ledger.fault(format_args!("router {}: {error}", self.number));
        }
    }
}
