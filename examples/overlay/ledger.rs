//! The books of the run: every message's end-to-end id, who waits for room, how long delivery took.
//!
//! Owns the count of what was sent and what arrived, exactly once or not; it is the measuring
//! instrument, outside the overlay. Nothing in it decides how a message travels. Its memory is one
//! bit per message and one histogram per router.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Semaphore;

use crate::packet::Stamp;

/// Latencies above this count as this: the run's own deadline is far below.
const LATENCY_CEILING: Duration = Duration::from_secs(3600);

/// One router's account as a source.
struct Account {
    /// Room for messages under way. A source takes a permit per message, the message's arrival gives
    /// it back: what is under way is bounded, and so is the memory of the whole run.
    window: Semaphore,
    in_flight: AtomicU64,
    latency: Mutex<Histogram<u64>>,
}

/// The books; shared by all routers of the process.
pub(crate) struct Ledger {
    began: Instant,
    messages: u64,
    next: AtomicU64,
    stopped: AtomicBool,
    seen: Box<[AtomicU64]>,
    delivered: AtomicU64,
    duplicated: AtomicU64,
    retried: AtomicU64,
    accounts: Box<[Account]>,
    faults: Mutex<Vec<String>>,
}

impl Ledger {
    /// Books for `messages` messages of `routers` routers, each with room for `window` at a time.
    ///
    /// # Errors
    ///
    /// The histogram's own, should its bounds be refused.
    pub(crate) fn new(
        routers: usize,
        messages: u64,
        window: usize,
    ) -> Result<Self, hdrhistogram::CreationError> {
        let account = |_| {
            Ok(Account {
                window: Semaphore::new(window),
                in_flight: AtomicU64::new(0),
                latency: Mutex::new(empty_histogram()?),
            })
        };
        let words = messages.div_ceil(64);
        Ok(Self {
            began: Instant::now(),
            messages,
            next: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            seen: (0..words).map(|_| AtomicU64::new(0)).collect(),
            delivered: AtomicU64::new(0),
            duplicated: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            accounts: (0..routers).map(account).collect::<Result<_, _>>()?,
            faults: Mutex::new(Vec::new()),
        })
    }

    /// Waits until `source` may have one more message under way.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken until [`Ledger::take`].
    pub(crate) async fn room<'a>(&'a self, source: u16) -> Option<Room<'a>> {
        let account = self.accounts.get(usize::from(source))?;
        let permit = account.window.acquire().await.ok()?;
        Some(Room { permit, account })
    }

    /// Writes a new message into the books: none when all have been sent, or after
    /// [`Ledger::stop`].
    pub(crate) fn take(&self, source: u16, room: Room<'_>) -> Option<Stamp> {
        if self.stopped.load(Ordering::Acquire) {
            return None;
        }
        let id = (self.next)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |next| {
                (next < self.messages).then_some(next + 1)
            })
            .ok()?;
        room.permit.forget();
        room.account.in_flight.fetch_add(1, Ordering::AcqRel);
        Some(Stamp { source, id, sent: self.began.elapsed() })
    }

    /// A message has arrived at its destination.
    pub(crate) fn deliver(&self, stamp: Stamp) {
        let word = usize::try_from(stamp.id / 64).ok();
        let (Some(word), Some(account)) = (
            word.and_then(|word| self.seen.get(word)),
            self.accounts.get(usize::from(stamp.source)),
        ) else {
            return self.fault("a message arrived that nobody sent");
        };
        let bit = 1 << (stamp.id % 64);
        if word.fetch_or(bit, Ordering::AcqRel) & bit != 0 {
            self.duplicated.fetch_add(1, Ordering::AcqRel);
            return;
        }
        let took = self.began.elapsed().saturating_sub(stamp.sent);
        lock(&account.latency).saturating_record(took.as_micros() as u64);
        self.delivered.fetch_add(1, Ordering::AcqRel);
        // A message that had been written off and arrives after all has no room to give back.
        if (account.in_flight)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1))
            .is_ok()
        {
            account.window.add_permits(1);
        }
    }

    /// A send had to be repeated: the next hop was down, or its session was just being replaced.
    pub(crate) fn retried(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
    }

    /// Something happened that must not, in words; the first few are kept.
    pub(crate) fn fault(&self, what: impl ToString) {
        const KEPT: usize = 16;
        let mut faults = lock(&self.faults);
        if faults.len() < KEPT {
            faults.push(what.to_string());
        }
    }

    /// No message is taken from now on.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// Whether [`Ledger::stop`] was called.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Gives the room of all messages under way back, and returns how many there were.
    ///
    /// After a router was killed: what it held will not arrive, and its sources must not wait.
    pub(crate) fn write_off(&self) -> u64 {
        let write_off = |account: &Account| {
            let lost = account.in_flight.swap(0, Ordering::AcqRel);
            // Never more than one window, which is a usize.
            account.window.add_permits(lost as usize);
            lost
        };
        self.accounts.iter().map(write_off).sum()
    }

    /// Messages under way, and not written off.
    pub(crate) fn in_flight(&self) -> u64 {
        let in_flight = |account: &Account| account.in_flight.load(Ordering::Acquire);
        self.accounts.iter().map(in_flight).sum()
    }

    /// The counts so far.
    pub(crate) fn counts(&self) -> Counts {
        // Delivered first: read the other way round, more could have arrived than were sent.
        let delivered = self.delivered.load(Ordering::Acquire);
        Counts {
            delivered,
            sent: self.next.load(Ordering::Acquire),
            duplicated: self.duplicated.load(Ordering::Acquire),
            retried: self.retried.load(Ordering::Relaxed),
        }
    }

    /// The latencies of all messages delivered so far, in microseconds.
    pub(crate) fn latency(&self) -> Result<Histogram<u64>, hdrhistogram::CreationError> {
        let mut all = empty_histogram()?;
        for account in &self.accounts {
            // All histograms have the same bounds, so adding them cannot fail.
            if all.add(&*lock(&account.latency)).is_err() {
                self.fault("two latency histograms differ in their bounds");
            }
        }
        Ok(all)
    }

    /// What went wrong, in words.
    pub(crate) fn faults(&self) -> Vec<String> {
        lock(&self.faults).clone()
    }

    /// Since the books were opened.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Room for one message under way, which returns unless a message takes it.
pub(crate) struct Room<'a> {
    permit: tokio::sync::SemaphorePermit<'a>,
    account: &'a Account,
}

/// What the books say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages that a source has sent.
    pub(crate) sent: u64,
    /// Messages that arrived, each counted once.
    pub(crate) delivered: u64,
    /// Arrivals of a message that had arrived before.
    pub(crate) duplicated: u64,
    /// Sends that had to be repeated.
    pub(crate) retried: u64,
}

impl Counts {
    /// Sent and not delivered: lost, once nothing is under way any more.
    pub(crate) fn missing(&self) -> u64 {
        self.sent - self.delivered
    }
}

fn empty_histogram() -> Result<Histogram<u64>, hdrhistogram::CreationError> {
    Histogram::new_with_bounds(1, LATENCY_CEILING.as_micros() as u64, 3)
}

/// A panic elsewhere leaves counts as good as they were.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn send(ledger: &Ledger, source: u16) -> Option<Stamp> {
        let room = ledger.room(source).await?;
        ledger.take(source, room)
    }

    #[tokio::test]
    async fn each_message_counts_once_and_a_repeat_counts_apart() {
        let ledger = Ledger::new(2, 100, 10).expect("bounds");
        let first = send(&ledger, 0).await.expect("room");
        let second = send(&ledger, 1).await.expect("room");
        assert_ne!(first.id, second.id);
        assert_eq!(ledger.in_flight(), 2);
        ledger.deliver(first);
        ledger.deliver(first);
        let counts = ledger.counts();
        assert_eq!((counts.sent, counts.delivered), (2, 1));
        assert_eq!((counts.duplicated, counts.missing()), (1, 1));
        assert_eq!(ledger.in_flight(), 1);
        assert_eq!(ledger.latency().expect("bounds").len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_window_waits_for_an_arrival_or_a_write_off() {
        let ledger = Ledger::new(1, 100, 1).expect("bounds");
        let stamp = send(&ledger, 0).await.expect("room");
        let wait = || tokio::time::timeout(Duration::from_secs(1), send(&ledger, 0));
        assert!(wait().await.is_err());
        ledger.deliver(stamp);
        let late = wait().await.expect("an arrival makes room").expect("taken");
        assert_eq!(ledger.write_off(), 1);
        wait().await.expect("a write-off makes room").expect("taken");
        // What was written off and arrives after all is delivered, and gives back one room at most.
        ledger.deliver(late);
        ledger.deliver(late);
        assert_eq!(ledger.counts().delivered, 2);
        assert_eq!(ledger.counts().duplicated, 1);
    }

    #[tokio::test]
    async fn no_more_than_the_agreed_number_is_sent_and_none_after_a_stop() {
        let ledger = Ledger::new(1, 2, 10).expect("bounds");
        assert!(send(&ledger, 0).await.is_some());
        ledger.stop();
        assert!(send(&ledger, 0).await.is_none());
        let ledger = Ledger::new(1, 1, 10).expect("bounds");
        assert!(send(&ledger, 0).await.is_some());
        assert!(send(&ledger, 0).await.is_none());
        assert_eq!(ledger.in_flight(), 1);
    }

    #[tokio::test]
    async fn an_id_that_was_never_sent_is_a_fault() {
        let ledger = Ledger::new(1, 1, 1).expect("bounds");
        let sent = Duration::ZERO;
        ledger.deliver(Stamp { source: 0, id: 64, sent });
        ledger.deliver(Stamp { source: 9, id: 0, sent });
        assert_eq!(ledger.faults().len(), 2);
        assert_eq!(ledger.counts().delivered, 0);
    }
}
