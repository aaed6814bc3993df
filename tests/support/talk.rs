//! Pools that talk: whoever has a lease sends at once, and a book knows what must have arrived.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use noise_pool::error::{DialError, Limit};
use noise_pool::event::PoolEvent;
use noise_pool::snapshot::SessionState;
use noise_pool::{Config, Hooks, Identity, Lease, PeerId, Pool};
use tokio::task::JoinHandle;

use super::net::Net;

/// Every message that was accepted for sending, and every one that arrived.
#[derive(Clone, Default)]
pub(crate) struct Book(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    messages: BTreeMap<u64, Entry>,
    draining_full: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) accepted: bool,
    pub(crate) arrivals: u32,
    pub(crate) from: Option<PeerId>,
    pub(crate) to: Option<PeerId>,
}

impl Book {
    /// Sends one new message on the lease. Whether it was accepted.
    pub(crate) async fn send(&self, from: PeerId, lease: &Lease) -> bool {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let accepted = lease.send(Bytes::copy_from_slice(&id.to_be_bytes())).await.is_ok();
        let mut book = self.0.lock().unwrap();
        let entry = book.messages.entry(id).or_default();
        (entry.accepted, entry.from, entry.to) = (accepted, Some(from), Some(lease.peer()));
        accepted
    }

    fn arrived(&self, body: &[u8]) {
        let id = u64::from_be_bytes(body.try_into().unwrap());
        self.0.lock().unwrap().messages.entry(id).or_default().arrivals += 1;
    }

    /// Whether so many sessions drained at once that one had to be cut.
    pub(crate) fn draining_was_full(&self) -> bool {
        self.0.lock().unwrap().draining_full
    }

    /// Messages that were accepted and have not arrived.
    pub(crate) fn missing(&self) -> Vec<(u64, Entry)> {
        self.select(|entry| entry.accepted && entry.arrivals == 0)
    }

    /// Messages that arrived twice, or that nobody sent.
    pub(crate) fn surplus(&self) -> Vec<(u64, Entry)> {
        self.select(|entry| entry.arrivals > u32::from(entry.accepted))
    }

    fn select(&self, which: impl Fn(&Entry) -> bool) -> Vec<(u64, Entry)> {
        let book = self.0.lock().unwrap();
        let chosen = book.messages.iter().filter(|(_, entry)| which(entry));
        chosen.map(|(id, entry)| (*id, *entry)).collect()
    }
}

/// A pool whose every session is greeted with a message as soon as it is open, and whose inbox is
/// read into the book.
pub(crate) struct Talker {
    pub(crate) pool: Pool,
    pub(crate) book: Book,
    tasks: Vec<JoinHandle<()>>,
}

impl Talker {
    pub(crate) fn new(net: &Net, identity: Identity, config: Config, book: &Book) -> Self {
        Self::with_hooks(net, identity, config, book, super::NoHooks)
    }

    pub(crate) fn with_hooks(
        net: &Net,
        identity: Identity,
        config: Config,
        book: &Book,
        hooks: impl Hooks,
    ) -> Self {
        let (pool, mut inbox) = net.pool_with(identity, config, hooks);
        let reading = {
            let book = book.clone();
            tokio::spawn(async move {
                while let Some(message) = inbox.recv().await {
                    book.arrived(&message.body);
                }
            })
        };
        let greeting = {
            let (pool, book, mut events) = (pool.clone(), book.clone(), pool.subscribe());
            tokio::spawn(async move {
                while let Some(event) = events.recv().await {
                    match event {
                        Ok(PoolEvent::Opened { peer, .. }) => {
                            if let Some(lease) = pool.get(&peer) {
                                book.send(pool.id(), &lease).await;
                            }
                        }
                        Ok(PoolEvent::LimitHit { limit: Limit::Draining, .. }) => {
                            book.0.lock().unwrap().draining_full = true;
                        }
                        _ => {}
                    }
                }
            })
        };
        Self { pool, book: book.clone(), tasks: vec![reading, greeting] }
    }

    pub(crate) fn id(&self) -> PeerId {
        self.pool.id()
    }

    /// Asks for a session and says something on it; the lease is held until the task is joined.
    pub(crate) fn call(&self, peer: PeerId) -> JoinHandle<Result<Lease, DialError>> {
        let (pool, book) = (self.pool.clone(), self.book.clone());
        tokio::spawn(async move {
            let lease = pool.get_or_dial(peer).await?;
            book.send(pool.id(), &lease).await;
            Ok(lease)
        })
    }

    /// Reads what is left in the inbox of a pool that has ended.
    pub(crate) async fn read_out(mut self) {
        super::soon("the inbox ends", &mut self.tasks[0]).await.unwrap();
    }

    /// Whether nothing is under way: no dial, no drain, no handshake, nothing queued, and one slot
    /// in use for each session.
    pub(crate) fn is_at_rest(&self) -> bool {
        let snapshot = self.pool.snapshot();
        let limits = &snapshot.limits;
        snapshot.dials.is_empty()
            && snapshot.sessions.iter().all(|session| session.state == SessionState::Ready)
            && limits.sessions.held == snapshot.sessions.len() as u64
            && [
                limits.draining,
                limits.dials,
                limits.queued_dials,
                limits.pending_handshakes,
                limits.discarding,
                limits.buffered_bytes,
                limits.inbox_bytes,
            ]
            .iter()
            .all(|limit| limit.held == 0)
    }

    /// The handshake hashes of the sessions to the peer.
    pub(crate) fn session_hash(&self, peer: PeerId) -> Option<[u8; 32]> {
        self.pool.get(&peer).map(|lease| *lease.handshake_hash())
    }

    /// How many sessions to the peer there are.
    pub(crate) fn sessions(&self, peer: PeerId) -> usize {
        self.pool.snapshot().sessions.iter().filter(|session| session.peer == peer).count()
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
