//! The pool's state.
//!
//! Owns the parts that all tasks of the pool share, how far its life is, and what is remembered of
//! peers that failed. What follows from a change of a slot is in `install`.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::base::address::Address;
use crate::base::config::Settings;
use crate::base::error::{DialError, Refusal};
use crate::base::event::Publisher;
use crate::base::id::PeerId;
use crate::base::metrics::Counters;
use crate::base::metrics::SessionReport;
use crate::base::sync::{AtomicU8, Mutex, lock};
use crate::pool::admission::Admission;
use crate::pool::dial::Dial;
use crate::pool::draining::Draining;
use crate::pool::hooks;
use crate::pool::hooks::Hooks;
use crate::pool::idle::IdleIndex;
use crate::pool::keep::Keepers;
use crate::pool::permit::Gauge;
use crate::pool::reaper::Watched;
use crate::pool::registry::{Handle, Readable, Registry, Seed};
use crate::pool::room::Room;
use crate::pool::target::Target;
use crate::proto::backoff::{BackoffTable, Bounds, Outcome};
use crate::proto::rate_limit::Throttle;
use crate::proto::slot::{KeyOrder, Slot};
use crate::proto::stamp::StampSource;
use crate::session;
use crate::session::{LeaseCore, LeaseHandle, UncountedRef};
use crate::transport::Connector;
use crate::transport::native::Native;

/// The slot of one peer, as the pool fills it.
pub(crate) type PeerSlot = Slot<Arc<Dial>, Held>;

/// A session in its slot: the slot's own share of it, and its room.
pub(crate) struct Held {
    pub(crate) core: UncountedRef,
    /// Passed on when another session replaces this one.
    pub(crate) room: Option<Room>,
}

impl Readable for Held {
    type Handle = UncountedRef;

    fn handle(&self) -> UncountedRef {
        UncountedRef::of(&self.core)
    }

    fn mark(&self) -> usize {
        LeaseHandle::as_ptr(&self.core).addr()
    }
}

impl Handle for UncountedRef {
    #[inline]
    fn peer(&self) -> &PeerId {
        LeaseCore::peer(self)
    }
}

impl Held {
    /// Closes the share to those who would make a lease of a weak one. It must be hidden from those
    /// who take one without the slot's lock ([`Registry::with_hidden`]).
    ///
    /// # Errors
    /// A lease is out; the share is as it was.
    pub(crate) fn close_unused(self) -> Result<Self, Self> {
        let Self { core, room } = self;
        match core.close_unused() {
            Ok(core) => Ok(Self { core, room }),
            Err(core) => Err(Self { core, room }),
        }
    }
}

/// Errors that the table of failures has forgotten.
pub(crate) type Spent = Vec<DialError>;

/// How far the pool's life is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Life {
    /// Dials and accepts.
    Open = 0,
    /// Neither; sessions flush and close.
    Draining = 1,
    /// Over.
    Closed = 2,
}

/// What all tasks of a pool share.
pub(crate) struct Inner {
    pub(crate) settings: Arc<Settings>,
    pub(crate) peer: PeerId,
    pub(crate) native: Native,
    pub(crate) connector: Arc<dyn Connector>,
    /// None: everybody is welcome, and nothing is asked.
    pub(crate) hooks: Option<Arc<dyn Hooks>>,
    pub(crate) registry: Registry<Arc<Dial>, Held>,
    pub(crate) backoff: Mutex<BackoffTable<DialError>>,
    pub(crate) throttle: Mutex<Throttle>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) draining: Draining,
    pub(crate) idle: Mutex<IdleIndex<Instant, Watched>>,
    pub(crate) keepers: Keepers,
    pub(crate) sessions: Gauge,
    pub(crate) inbound: Gauge,
    pub(crate) dialling: Gauge,
    pub(crate) queued: Gauge,
    pub(crate) discarding: Gauge,
    pub(crate) session_shared: Arc<session::SessionContext>,
    pub(crate) events: Publisher,
    pub(crate) counters: Counters,
    pub(crate) listeners: Mutex<Vec<SocketAddr>>,
    /// Sums over the sessions that ended since a drain began.
    pub(crate) drained: Mutex<(usize, SessionReport)>,
    /// Told whenever a session or a dial has ended.
    pub(crate) ended: Notify,
    /// Told when the first session appears, so that expiry begins to watch.
    pub(crate) appeared: Notify,
    /// Ends listeners and keepers. Strangers under way are told by `admission`.
    pub(crate) stop_accepting: CancellationToken,
    /// Ends every task but those of connections: dials and handshakes have a `Halt` each, and sessions
    /// end by themselves.
    pub(crate) stop: CancellationToken,
    /// Dials, handshakes and sessions: a drain waits for them.
    pub(crate) work: TaskTracker,
    /// Listeners, keepers, expiry.
    pub(crate) service: TaskTracker,
    pub(crate) began: Instant,
    /// Addresses come from strangers too; the backoff remembers them as hashes.
    address_hasher: RandomState,
    stamps: StampSource,
    life: AtomicU8,
}

/// What [`Inner::new`] needs besides the settings.
pub(crate) struct Parts {
    pub(crate) settings: Arc<Settings>,
    pub(crate) native: Native,
    pub(crate) peer: PeerId,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) hooks: Option<Arc<dyn Hooks>>,
    pub(crate) session_shared: Arc<session::SessionContext>,
}

impl Inner {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { settings, native, peer, connector, hooks, session_shared } = parts;
        let random = || {
            let mut bytes = [0; 8];
            settings.entropy.fill(&mut bytes);
            u64::from_le_bytes(bytes)
        };
        // A random start hides how busy we are; the upper half stays free so that it never wraps.
        let start = random() >> 1;
        let seed = match settings.hasher_seed {
            Some(seed) => Seed::Fixed(seed),
            None => Seed::Secret { process: random(), map: random() },
        };
        Arc::new(Self {
            peer,
            native,
            connector,
            hooks,
            registry: Registry::new(seed),
            backoff: Mutex::new(BackoffTable::new(Bounds {
                first: settings.initial_backoff,
                max: settings.max_backoff,
                max_refusal: settings.max_refusal,
                capacity: settings.backoff_table,
            })),
            throttle: Mutex::new(Throttle::new(
                settings.source_burst,
                settings.source_rate,
                settings.source_table,
                settings.limit_loopback,
            )),
            admission: Admission::new(settings.max_pending_handshakes),
            draining: Draining::new(settings.max_draining),
            idle: Mutex::new(IdleIndex::new()),
            keepers: Keepers::default(),
            sessions: Gauge::new(settings.max_sessions),
            inbound: Gauge::new(settings.max_inbound),
            dialling: Gauge::new(settings.max_concurrent_dials),
            queued: Gauge::new(settings.max_queued_dials),
            discarding: Gauge::new(settings.max_discarding),
            session_shared,
            events: Publisher::new(settings.event_capacity),
            counters: Counters::default(),
            listeners: Mutex::default(),
            drained: Mutex::default(),
            ended: Notify::new(),
            appeared: Notify::new(),
            stop_accepting: CancellationToken::new(),
            stop: CancellationToken::new(),
            work: TaskTracker::new(),
            service: TaskTracker::new(),
            began: Instant::now(),
            address_hasher: RandomState::new(),
            stamps: StampSource::new(start),
            life: AtomicU8::new(Life::Open as u8),
            settings,
        })
    }

    // ---- life ----------------------------------------------------------------------------------

    pub(crate) fn life(&self) -> Life {
        match self.life.load(Ordering::Acquire) {
            0 => Life::Open,
            1 => Life::Draining,
            _ => Life::Closed,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.life() == Life::Open
    }

    /// Moves on to `life`; it never goes back. Whether this call moved it.
    pub(crate) fn advance(&self, life: Life) -> bool {
        self.life.fetch_max(life as u8, Ordering::AcqRel) < life as u8
    }

    /// Runs work that a drain waits for and a close stops.
    pub(crate) fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.work.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// From the configured source, which may be the application's: not under a lock.
    pub(crate) fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        self.settings.entropy.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// The next stamp: strictly increasing, and never before an earlier one of any task.
    pub(crate) fn next_stamp(&self) -> u64 {
        self.stamps.next(self.began.elapsed())
    }

    pub(crate) fn key_order(&self, peer: &PeerId) -> KeyOrder {
        KeyOrder::of(peer, &self.peer)
    }

    // ---- checks --------------------------------------------------------------------------------

    /// Our authorisation and ready check of a peer that has authenticated.
    pub(crate) async fn check(&self, candidate: &hooks::Candidate) -> Result<(), Refusal> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        let limit = self.settings.hook_timeout;
        let checked = async {
            hooks::ask(limit, || hooks.authorise(&candidate.peer, candidate.origin)).await?;
            hooks::ask(limit, || hooks.ready(candidate)).await
        };
        let answer = checked.await;
        if let Err(refusal) = answer {
            self.hook_refused(refusal);
        }
        answer
    }

    pub(crate) fn hook_refused(&self, refusal: Refusal) {
        self.counters.hooks.count(refusal);
        if refusal != Refusal::Refused {
            warn!(%refusal, "a callback of the application failed");
        }
    }

    // ---- backoff -------------------------------------------------------------------------------

    /// Notes a failure; the error that waiters and later callers get, and the errors that the table
    /// has forgotten for it. Called under a shard's lock: the table's lock is the inner one.
    pub(crate) fn back_off(
        &self,
        dial: &Dial,
        error: DialError,
        outcome: Option<Outcome>,
        random: u64,
    ) -> (DialError, Spent) {
        let Some(outcome) = outcome else { return (error, Spent::new()) };
        let (until, spent) = self.with_backoff(|backoff| {
            backoff.failed(
                dial.peer,
                outcome,
                error.clone(),
                &self.hashes(&dial.addresses()),
                Instant::now().into_std(),
                random,
            )
        });
        (DialError::Backoff { until: until.into(), cause: Arc::new(error) }, spent)
    }

    /// A session to the peer exists: its failures are forgotten.
    pub(crate) fn forget_failures(&self, peer: &PeerId) {
        drop(self.with_backoff(|backoff| backoff.clear(peer)));
    }

    /// Changes the table of failures. What it forgets comes back, to be dropped when no lock is held:
    /// the errors are the application's.
    pub(crate) fn with_backoff<R>(
        &self,
        change: impl FnOnce(&mut BackoffTable<DialError>) -> R,
    ) -> (R, Spent) {
        let mut backoff = lock(&self.backoff);
        let result = change(&mut backoff);
        (result, backoff.take_spent())
    }

    /// The error for a call that comes too early after a failure.
    pub(crate) fn backing_off(&self, target: &Target) -> Option<DialError> {
        let backoff = lock(&self.backoff);
        if !backoff.knows(&target.peer) {
            return None;
        }
        let now = Instant::now().into_std();
        let (until, cause) = backoff.check(&target.peer, &self.hashes(target.addresses()), now)?;
        Some(DialError::Backoff { until: until.into(), cause: Arc::new(cause.clone()) })
    }

    /// The error for a call for a peer that the application refuses.
    pub(crate) fn refused_by_application(&self, peer: &PeerId) -> Option<DialError> {
        let backoff = lock(&self.backoff);
        if !backoff.knows(peer) {
            return None;
        }
        let until = backoff.refused_by_application(peer, Instant::now().into_std())?;
        Some(DialError::Backoff { until: until.into(), cause: Arc::new(DialError::Disconnected) })
    }

    fn hashes(&self, addresses: &[Address]) -> Vec<u64> {
        addresses.iter().map(|address| self.address_hasher.hash_one(address)).collect()
    }
}
