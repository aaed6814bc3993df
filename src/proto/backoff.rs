//! What is remembered of peers that could not be dialled.
//!
//! Owns the rule when a peer may be dialled again, in a table of fixed size. It must not grow with the
//! number of peers that failed, and must take time and chance as arguments. A success or an
//! inbound session ends what it remembers; a refusal by the application ends by time alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::base::id::PeerId;

/// Addresses remembered per peer. A router publishes a handful; with more tried than this, none counts
/// as new any more, so that a list of dead addresses cannot keep us dialling.
const MAX_TRIED: usize = 16;

/// How a dial failed, as far as the next one depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No session could be had: connect, handshake or verdict failed or timed out. Exponential.
    Unreachable,
    /// As that, and nobody answered at all. A peer that was [lost](BackoffTable::lost) is tried again soon,
    /// however often: it is likely to be where it was, behind a link that is away.
    Silent,
    /// The peer is full or draining, and may have said for how long.
    Busy {
        /// What it asked for; without it the wait is exponential.
        retry_after: Option<Duration>,
    },
    /// A policy said no, the peer's or ours, or the peer can never be dialled: it will not change by
    /// itself.
    Refused,
}

/// Bounds of the waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The longest wait after one failure.
    pub(crate) first: Duration,
    /// The longest wait after many.
    pub(crate) max: Duration,
    /// The longest wait that a peer may ask for, and the wait after a refusal. The shortest that it
    /// may ask for is half of `first`, as after any failure: it must not make us dial without pause.
    pub(crate) max_refusal: Duration,
    /// Peers that are remembered.
    pub(crate) capacity: usize,
}

/// How long a peer that was lost is looked for.
const LOOKED_FOR: Duration = Duration::from_secs(3_600);

/// A peer's standing.
#[derive(Clone, Copy, Default)]
struct Standing {
    /// Failures in a row; the wait doubles with each.
    failures: u32,
    /// Until when the application refuses the peer, whatever its address.
    refused_until: Option<Instant>,
    /// When a session to it was lost.
    lost_at: Option<Instant>,
    tried: Tried,
}

impl Standing {
    fn refused_at(&self, now: Instant) -> Option<Instant> {
        self.refused_until.filter(|until| *until > now)
    }
}

struct Entry<E> {
    /// When the next dial is due.
    until: Instant,
    standing: Standing,
    error: E,
}

/// Peers that failed recently, and what each failed with.
///
/// A peer takes one entry of about 140 bytes and its error, and 48 bytes in the order of times. When
/// the table is full, the entry that ends first makes room.
pub(crate) struct BackoffTable<E> {
    bounds: Bounds,
    entries: BTreeMap<PeerId, Entry<E>>,
    by_time: BTreeSet<(Instant, PeerId)>,
    /// Errors of entries that are gone.
    spent: Vec<E>,
}

impl<E> BackoffTable<E> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, entries: BTreeMap::new(), by_time: BTreeSet::new(), spent: Vec::new() }
    }

    /// The errors that were forgotten since the last call. Their drop may run code of the application,
    /// so the caller drops them where it holds no lock.
    pub(crate) fn take_spent(&mut self) -> Vec<E> {
        std::mem::take(&mut self.spent)
    }

    /// A dial failed; returns when the next one is due.
    ///
    /// `tried` are hashes of the addresses that were tried; a hash that strangers cannot predict keeps
    /// them from making two addresses look like one. `random` is drawn evenly from all 64-bit numbers.
    pub(crate) fn failed(
        &mut self,
        peer: PeerId,
        outcome: Outcome,
        error: E,
        tried: &[u64],
        now: Instant,
        random: u64,
    ) -> Instant {
        self.forget_the_old(now);
        let (known_until, mut standing) = self.forget(&peer).unwrap_or((now, Standing::default()));
        let is_looked_for = standing.lost_at.is_some_and(|lost| now < lost + LOOKED_FOR);
        if !(is_looked_for && outcome == Outcome::Silent) {
            standing.failures = standing.failures.saturating_add(1);
        }
        let wait = match outcome {
            // Nobody is there to be disturbed.
            Outcome::Silent if is_looked_for => self.bounds.first / 2,
            Outcome::Unreachable | Outcome::Silent | Outcome::Busy { retry_after: None } => {
                self.exponential(standing.failures, random)
            }
            Outcome::Busy { retry_after: Some(asked) } => {
                asked.max(self.bounds.first / 2).min(self.bounds.max_refusal)
            }
            Outcome::Refused => self.bounds.max_refusal,
        };
        // A failure at a new address does not shorten what was decided for the old ones.
        let until = known_until.max(now + wait);
        for address in tried {
            standing.tried.add(*address);
        }
        self.put(peer, Entry { until, standing, error });
        until
    }

    /// A session to this peer has ended because nothing came from it any more. It may be dialled at once.
    pub(crate) fn lost(&mut self, peer: PeerId, error: E, now: Instant) {
        self.forget_the_old(now);
        let (until, mut standing) = self.forget(&peer).unwrap_or((now, Standing::default()));
        standing.lost_at = Some(now);
        self.put(peer, Entry { until, standing, error });
    }

    /// The application wants no session to this peer until then, at whatever address.
    pub(crate) fn refuse(&mut self, peer: PeerId, until: Instant, error: E, now: Instant) {
        self.forget_the_old(now);
        let (_, mut standing) = self.forget(&peer).unwrap_or((now, Standing::default()));
        standing.refused_until = Some(until);
        self.put(peer, Entry { until, standing, error });
    }

    /// Whether anything is remembered of this peer; of most peers nothing is.
    pub(crate) fn knows(&self, peer: &PeerId) -> bool {
        self.entries.contains_key(peer)
    }

    /// Until when a call for this peer fails at once, and with what. `None`: it may be dialled, because
    /// the wait is over or one of `addresses` (hashes) has not been tried.
    pub(crate) fn check(
        &self,
        peer: &PeerId,
        addresses: &[u64],
        now: Instant,
    ) -> Option<(Instant, &E)> {
        let entry = self.entries.get(peer).filter(|entry| entry.until > now)?;
        let new = addresses.iter().any(|address| !entry.standing.tried.has(*address));
        if new && entry.standing.refused_at(now).is_none() {
            return None;
        }
        Some((entry.until, &entry.error))
    }

    /// Until when the application refuses this peer, inbound sessions included.
    pub(crate) fn refused_by_application(&self, peer: &PeerId, now: Instant) -> Option<Instant> {
        self.entries.get(peer)?.standing.refused_at(now)
    }

    /// A session to this peer exists: its failures are forgotten. What the application refused stays
    /// refused until its time.
    pub(crate) fn clear(&mut self, peer: &PeerId, now: Instant) {
        let Some(mut entry) = self.take(peer) else { return };
        match entry.standing.refused_at(now) {
            Some(until) => {
                entry.until = until;
                entry.standing.failures = 0;
                self.put(*peer, entry);
            }
            None => self.spent.push(entry.error),
        }
    }

    /// Evenly from half of `first` to the bound of this many failures.
    ///
    /// The bound doubles with each failure. The draw goes over the whole range ("full jitter"), so that
    /// peers which failed together do not come back together; it does not begin at zero, so that no
    /// failure is repeated at once.
    fn exponential(&self, failures: u32, random: u64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let ceiling = self.bounds.first.saturating_mul(1 << doublings).min(self.bounds.max);
        let floor = (self.bounds.first / 2).min(ceiling);
        // The settings bound a wait to a month: its nanoseconds fit 64 bits, and the product 128.
        let range = (ceiling - floor).as_nanos();
        let drawn = (range * u128::from(random)) >> 64;
        floor + Duration::from_nanos(u64::try_from(drawn).unwrap_or(u64::MAX))
    }

    /// Failures in a row are in a row no more once the longest wait has passed after the last.
    fn forget_the_old(&mut self, now: Instant) {
        while let Some((until, peer)) = self.by_time.first().copied() {
            if until + self.bounds.max > now {
                break;
            }
            self.forget(&peer);
        }
    }

    /// Takes an entry out; all but its error.
    fn forget(&mut self, peer: &PeerId) -> Option<(Instant, Standing)> {
        let Entry { until, standing, error } = self.take(peer)?;
        self.spent.push(error);
        Some((until, standing))
    }

    fn take(&mut self, peer: &PeerId) -> Option<Entry<E>> {
        let entry = self.entries.remove(peer)?;
        self.by_time.remove(&(entry.until, *peer));
        Some(entry)
    }

    fn put(&mut self, peer: PeerId, entry: Entry<E>) {
        if self.entries.len() >= self.bounds.capacity.max(1)
            && let Some((_, first)) = self.by_time.first().copied()
        {
            self.forget(&first);
        }
        self.by_time.insert((entry.until, peer));
        self.entries.insert(peer, entry);
    }

    /// Peers remembered.
    #[cfg(test)]
    fn len(&self) -> usize {
        assert_eq!(self.entries.len(), self.by_time.len());
        self.entries.len()
    }
}

/// A small set of address hashes. Half of each hash is kept: that two addresses of one peer share it
/// by accident has a chance of one in four thousand million, and then costs one wait.
#[derive(Clone, Copy, Default)]
struct Tried {
    hashes: [u32; MAX_TRIED],
    len: u8,
    /// More were tried than fit: everything counts as tried.
    overflowed: bool,
}

impl Tried {
    fn add(&mut self, address: u64) {
        if self.has(address) {
            return;
        }
        match self.hashes.get_mut(usize::from(self.len)) {
            Some(free) => {
                *free = half(address);
                self.len += 1;
            }
            None => self.overflowed = true,
        }
    }

    fn has(&self, address: u64) -> bool {
        self.overflowed || self.hashes[..usize::from(self.len)].contains(&half(address))
    }
}

/// The upper half of a hash.
const fn half(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
#[path = "../verify/proto/backoff.rs"]
mod tests;
