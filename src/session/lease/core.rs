//! What all leases of a session hold together.
//!
//! Owns the count of leases, which is that of an `Arc`, so that a checkout touches one contended word;
//! a semaphore exists only when `max_leases` is set or an exclusive lease is wanted. It knows the
//! session as [`Leased`] only.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Semaphore;

use crate::base::id::{PeerId, SessionId};
use crate::base::sync;
use crate::base::sync::AtomicU64;
use crate::session::context::Context;
use crate::session::life::{Availability, Marks};

/// What leases ask of the session that they are of, and tell it.
pub(crate) trait Leased: Sized + Send + Sync + 'static {
    fn id(&self) -> SessionId;

    fn peer(&self) -> PeerId;

    /// What it shares with all sessions of its pool.
    fn context(&self) -> &Arc<Context<LeaseCore<Self>>>;

    /// A core was made. From now on it is marked as the session is, and its permits are closed when the
    /// session is retired.
    fn core_added(&self, core: &LeaseHandle<Self>, permits: Option<Arc<Semaphore>>);

    /// The last share of a core has gone; `last_use` is when a lease of it was last checked out or
    /// returned, by the coarse clock.
    fn core_gone(&self, last_use: u64);

    /// Leases out, and handles that may become leases, as of some moment during the call.
    fn leases_out(&self) -> u32;
}

/// A share of a session. Each lease has one; what the pool has of its own is
/// [uncounted](super::table::UncountedRef).
pub(crate) type LeaseHandle<S> = sync::Arc<LeaseCore<S>>;

/// Leads to a share as long as there is one, and keeps none.
pub(crate) type WeakLeaseHandle<S> = sync::Weak<LeaseCore<S>>;

/// See the module.
///
/// When the last share has gone, it tells the session; a retired one then drains.
///
/// It has all that a checkout touches, side by side and in as little memory as possible: where there
/// are very many sessions, each line of memory that is not in a cache costs more than all the rest of
/// a hit. While it is a blank of the [slab](super::slab)'s it has neither context nor session.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct LeaseCore<S: Leased> {
    /// When a lease was last checked out or returned, by the coarse clock; above that the session's
    /// [`Marks`], and [`REPLACED`].
    state: AtomicU64,
    peer: PeerId,
    context: Option<Arc<Context<Self>>>,
    id: Option<SessionId>,
    permits: Option<Arc<LeasePermits>>,
    session: Option<Arc<S>>,
}

/// A newer core has taken its place, for an exclusive lease: no further leases of this one.
const REPLACED: u32 = 1 << 7;

/// From which bit of a core's state on the marks stand.
const MARKS: u32 = 56;

/// The bits below: more milliseconds than there have been.
const LAST_USE: u64 = (1 << MARKS) - 1;

/// Bounds the leases of a core.
#[derive(Debug)]
pub(crate) struct LeasePermits {
    pub(super) semaphore: Arc<Semaphore>,
    /// How many there are in all.
    pub(super) all: u32,
}

impl<S: Leased> Default for LeaseCore<S> {
    /// A blank.
    fn default() -> Self {
        Self {
            state: AtomicU64::new(0),
            peer: PeerId::from_bytes([0; 32]),
            context: None,
            id: None,
            permits: None,
            session: None,
        }
    }
}

impl<S: Leased> LeaseCore<S> {
    /// A core for the session's slot. `permits` bounds its leases; `u32::MAX` serves an exclusive
    /// lease on a session whose leases are not limited. Earlier cores give out no further leases.
    pub(crate) fn new(session: Arc<S>, permits: Option<NonZeroU32>) -> LeaseHandle<S> {
        let permits = permits.map(|all| {
            Arc::new(LeasePermits {
                semaphore: Arc::new(Semaphore::new(all.get() as usize)),
                all: all.get(),
            })
        });
        let semaphore = permits.as_ref().map(|permits| Arc::clone(&permits.semaphore));
        let context = Arc::clone(session.context());
        let core = context.slab.fill(Self {
            state: AtomicU64::new(context.ticks()),
            peer: session.peer(),
            context: Some(Arc::clone(&context)),
            id: Some(session.id()),
            permits,
            session: Some(session),
        });
        core.session().core_added(&core, semaphore);
        core
    }

    /// Who is at the other end.
    #[inline]
    pub(crate) fn peer(&self) -> &PeerId {
        &self.peer
    }

    #[inline]
    pub(super) fn id(&self) -> SessionId {
        *in_use(&self.id)
    }

    #[inline]
    pub(super) fn context(&self) -> &Arc<Context<Self>> {
        in_use(&self.context)
    }

    /// The session.
    #[inline]
    pub(crate) fn session(&self) -> &Arc<S> {
        in_use(&self.session)
    }

    /// Whether the session may be handed out.
    #[inline]
    pub(crate) fn availability(&self) -> Availability {
        Marks::from_bits(self.bits() & !REPLACED).availability()
    }

    #[inline]
    fn bits(&self) -> u32 {
        (self.state.load(Ordering::Relaxed) >> MARKS) as u32
    }

    fn set_bits(&self, bits: u32) {
        self.state.fetch_or(u64::from(bits) << MARKS, Ordering::AcqRel);
    }

    /// The session is marked.
    pub(super) fn mark(&self, marks: Marks) {
        self.set_bits(marks.bits());
    }

    /// A mark is taken back.
    pub(super) fn unmark(&self, marks: Marks) {
        self.state.fetch_and(!(u64::from(marks.bits()) << MARKS), Ordering::AcqRel);
    }

    /// A newer core takes its place.
    pub(super) fn replace(&self) {
        self.set_bits(REPLACED);
    }

    pub(super) fn last_use(&self) -> u64 {
        self.state.load(Ordering::Relaxed) & LAST_USE
    }

    /// Marks a use by the coarse clock, which shows `now`: no clock read, and no write unless the
    /// clock has moved.
    #[inline]
    pub(super) fn mark_use(&self, now: u64) {
        if cfg!(noise_pool_loom) {
            // A model has no time, and must take the same course whenever it runs.
            return;
        }
        let later = |state| (state & LAST_USE < now).then_some(state & !LAST_USE | now);
        // An error says that it was marked already.
        let _ = self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }

    /// Whether its leases are counted by permits.
    #[inline]
    pub(crate) fn has_permits(&self) -> bool {
        self.permits.is_some()
    }

    pub(super) fn permits(&self) -> Option<Arc<LeasePermits>> {
        self.permits.clone()
    }

    /// Lets one lease more be given out, if there is one without waiting. With permits, the lease has
    /// one of them then.
    #[inline]
    pub(super) fn admit(&self) -> bool {
        if self.bits() & REPLACED != 0 {
            return false;
        }
        if let Some(permits) = &self.permits {
            match permits.semaphore.try_acquire() {
                Ok(permit) => permit.forget(),
                Err(_) => return false,
            }
        }
        self.mark_use(self.context().ticks());
        true
    }
}

/// Returns a lease for whose return others may wait. It is not counted any more when its permit is given
/// back, nor when the waiters for an idle session are woken.
#[cold]
pub(super) fn give_back<S: Leased>(lease: &mut LeaseHandle<S>) {
    let session = Arc::clone(lease.session());
    let permits = lease.permits();
    // Not by its drop, which comes last.
    drop(std::mem::replace(lease, session.context().slab.vacant()));
    if let Some(permits) = permits {
        permits.semaphore.add_permits(1);
    }
    let context = session.context();
    if context.idle_wanted() && session.leases_out() == 0 {
        context.note_idle();
    }
}

/// A part that only a blank lacks.
#[inline]
#[expect(clippy::expect_used, reason = "only the slab has blanks, and it uses none of their parts")]
fn in_use<T>(part: &Option<T>) -> &T {
    part.as_ref().expect("a core that is in use is of a session")
}

impl<S: Leased> Drop for LeaseCore<S> {
    fn drop(&mut self) {
        if let (Some(context), Some(session)) = (&self.context, &self.session) {
            context.slab.gone();
            session.core_gone(self.last_use());
        }
    }
}
