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
    /// The peer is full or draining, and may have said for how long.
    Busy {
        /// What it asked for; without it the wait is exponential.
        retry_after: Option<Duration>,
    },
    /// A policy said no, the peer's or ours, or somebody else answered: it will not change by itself.
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

/// A peer's standing.
struct Entry<E> {
    until: Instant,
    /// Failures in a row; the wait doubles with each.
    failures: u32,
    /// Whether the application refuses the peer, whatever its address.
    by_application: bool,
    tried: Tried,
    error: E,
}

/// What was known of a peer.
#[derive(Clone, Copy)]
struct Known {
    until: Instant,
    failures: u32,
    by_application: bool,
    tried: Tried,
}

/// Peers that failed recently, and what each failed with.
///
/// A peer takes one entry of about 130 bytes and its error, and 48 bytes in the order of times. When
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
        let known = self.forget(&peer);
        let failures = known.map_or(0, |known| known.failures).saturating_add(1);
        let wait = match outcome {
            Outcome::Unreachable | Outcome::Busy { retry_after: None } => {
                self.exponential(failures, random)
            }
            Outcome::Busy { retry_after: Some(asked) } => {
                asked.max(self.bounds.first / 2).min(self.bounds.max_refusal)
            }
            Outcome::Refused => self.bounds.max_refusal,
        };
        // A failure at a new address does not shorten what was decided for the old ones.
        let until = known.map_or(now, |known| known.until).max(now + wait);
        // The application's refusal counts until its own end; what it delayed since is a failure's.
        let by_application = known.is_some_and(|known| known.by_application && now < known.until);
        let mut all_tried = known.map_or(Tried::default(), |known| known.tried);
        for address in tried {
            all_tried.add(*address);
        }
        self.put(peer, Entry { until, failures, by_application, tried: all_tried, error });
        until
    }

    /// The application wants no session to this peer until then, at whatever address.
    pub(crate) fn refuse(&mut self, peer: PeerId, until: Instant, error: E, now: Instant) {
        self.forget_the_old(now);
        let known = self.forget(&peer);
        let (failures, tried) =
            known.map_or((0, Tried::default()), |known| (known.failures, known.tried));
        self.put(peer, Entry { until, failures, by_application: true, tried, error });
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
        let new = addresses.iter().any(|address| !entry.tried.has(*address));
        if new && !entry.by_application {
            return None;
        }
        Some((entry.until, &entry.error))
    }

    /// Until when the application refuses this peer, inbound sessions included.
    pub(crate) fn refused_by_application(&self, peer: &PeerId, now: Instant) -> Option<Instant> {
        self.entries
            .get(peer)
            .filter(|entry| entry.by_application && entry.until > now)
            .map(|entry| entry.until)
    }

    /// A session to this peer exists: its failures are forgotten. What the application refused stays
    /// refused until its time.
    pub(crate) fn clear(&mut self, peer: &PeerId) {
        match self.entries.get_mut(peer) {
            Some(entry) if entry.by_application => entry.failures = 0,
            _ => drop(self.forget(peer)),
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
    fn forget(&mut self, peer: &PeerId) -> Option<Known> {
        let Entry { until, failures, by_application, tried, error } = self.take(peer)?;
        self.spent.push(error);
        Some(Known { until, failures, by_application, tried })
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
