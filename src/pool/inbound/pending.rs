//! Who may begin a handshake: the strangers' share of our time and memory.
//!
//! Owns the pending handshakes. There are at most `max_pending_handshakes`; when they are all taken,
//! somebody is shed for the newcomer, who must never be the one to suffer while there is anybody else.
//! The silent, who have sent no valid message 1, and those who have and then send no message 3, are
//! kept apart: of whichever are more, the one that came first is shed. So neither kind can hold the
//! door, since it pays itself for its number, and an honest peer of either kind has at least the time
//! in which its like fill half of the places. Once message 3 is there nobody is shed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::sync::{Mutex, lock};
use crate::pool::stop_signal::StopSignal;

/// The pending handshakes.
pub(crate) struct Admission {
    max: usize,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    next: u64,
    /// Without a valid message 1, in the order of arrival.
    silent: BTreeMap<u64, Arc<StopSignal>>,
    /// With a valid message 1 and no message 3, in the order of arrival.
    half: BTreeMap<u64, Arc<StopSignal>>,
    /// With message 3: the peer is authenticated, and is judged or told no.
    whole: BTreeMap<u64, Arc<StopSignal>>,
    /// Nobody is to be heard out any more.
    closed: bool,
    high_water: usize,
}

/// The place of one pending handshake; given back on drop.
pub(crate) struct HandshakePermit {
    admission: Arc<Admission>,
    number: u64,
    halt: Arc<StopSignal>,
}

/// What became of a newcomer.
pub(crate) struct Entry {
    /// Its place, if there is one.
    pub(crate) ticket: Option<HandshakePermit>,
    /// Whether somebody was shed: another, or the newcomer itself.
    pub(crate) shed: bool,
}

impl Admission {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, pending: Mutex::default() })
    }

    /// Admits a newcomer, at the cost of another if need be.
    pub(crate) fn enter(self: &Arc<Self>) -> Entry {
        let mut pending = lock(&self.pending);
        let full = pending.held() >= self.max;
        let loser = if full { pending.shed_one() } else { None };
        if full && loser.is_none() {
            return Entry { ticket: None, shed: true };
        }
        let number = pending.next;
        pending.next += 1;
        let halt = Arc::new(StopSignal::default());
        if pending.closed {
            halt.abort();
        }
        pending.silent.insert(number, halt.clone());
        pending.high_water = pending.high_water.max(pending.held());
        drop(pending);
        // Not under the lock: it wakes the one's task.
        if let Some(loser) = loser {
            loser.abort();
        }
        let ticket = HandshakePermit { admission: self.clone(), number, halt };
        Entry { ticket: Some(ticket), shed: full }
    }

    /// From now on whoever has not sent message 3 is aborted.
    pub(crate) fn close(&self) {
        let mut pending = lock(&self.pending);
        pending.closed = true;
        let strangers: Vec<_> =
            pending.silent.values().chain(pending.half.values()).cloned().collect();
        drop(pending);
        strangers.iter().for_each(|halt| halt.abort());
    }

    /// Cuts all that are pending now. After [`close`](Self::close) none of them ends otherwise.
    pub(crate) fn cut(&self) {
        let pending = lock(&self.pending);
        let kinds = [&pending.silent, &pending.half, &pending.whole];
        let all: Vec<_> = kinds.into_iter().flat_map(BTreeMap::values).cloned().collect();
        drop(pending);
        all.iter().for_each(|halt| halt.cut());
    }

    /// How many are pending, and how many ever were at once.
    pub(crate) fn held(&self) -> (usize, usize) {
        let pending = lock(&self.pending);
        (pending.held(), pending.high_water)
    }
}

impl Pending {
    fn held(&self) -> usize {
        self.silent.len() + self.half.len() + self.whole.len()
    }

    /// Takes out who came first of the more numerous kind.
    fn shed_one(&mut self) -> Option<Arc<StopSignal>> {
        let more =
            if self.half.len() > self.silent.len() { &mut self.half } else { &mut self.silent };
        more.pop_first().map(|(_, halt)| halt)
    }

    /// Takes out one that is not whole; none: it was shed.
    fn take(&mut self, number: u64) -> Option<Arc<StopSignal>> {
        self.half.remove(&number).or_else(|| self.silent.remove(&number))
    }
}

impl HandshakePermit {
    /// Silent → half: message 1 was valid.
    pub(crate) fn verified(&self) {
        let mut pending = lock(&self.admission.pending);
        if let Some(halt) = pending.silent.remove(&self.number) {
            pending.half.insert(self.number, halt);
        }
    }

    /// Half → whole: message 3 was valid. None if it was shed before.
    pub(crate) fn authenticated(self) -> Option<Self> {
        let mut pending = lock(&self.admission.pending);
        let halt = pending.take(self.number)?;
        pending.whole.insert(self.number, halt);
        drop(pending);
        Some(self)
    }

    /// The handshake failed. Whether that was its end: if not, it had been shed, and was counted then.
    pub(crate) fn failed(&self) -> bool {
        lock(&self.admission.pending).take(self.number).is_some()
    }

    /// Aborted, when it is shed or when strangers are not heard out any more; cut, when the pool
    /// closes.
    pub(crate) fn halt(&self) -> &Arc<StopSignal> {
        &self.halt
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        let mut pending = lock(&self.admission.pending);
        // Nothing, if it was shed or has failed.
        if pending.whole.remove(&self.number).is_none() {
            pending.take(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(admission: &Arc<Admission>) -> HandshakePermit {
        admission.enter().ticket.unwrap()
    }

    #[test]
    fn the_first_of_the_more_numerous_kind_is_shed_and_the_limit_holds() {
        let admission = Admission::new(4);
        let tickets: Vec<_> = (0..4).map(|_| enter(&admission)).collect();
        tickets[0].verified();
        // One half, three silent.
        let fifth = admission.enter();
        assert!(fifth.shed);
        let shed = |ticket: &HandshakePermit| ticket.halt.is_aborted();
        assert_eq!(tickets.iter().map(shed).collect::<Vec<_>>(), [false, true, false, false]);
        // Three half, one silent.
        tickets[2].verified();
        tickets[3].verified();
        assert!(admission.enter().shed);
        assert_eq!(tickets.iter().map(shed).collect::<Vec<_>>(), [true, true, false, false]);
        assert_eq!(admission.held(), (3, 4), "the sixth has gone, the shed are not counted twice");
        drop(tickets);
        assert_eq!(admission.held(), (1, 4));
        drop(fifth);
        assert_eq!(admission.held(), (0, 4));
    }

    #[test]
    fn nobody_is_shed_after_message_3() {
        let admission = Admission::new(2);
        let whole: Vec<_> = (0..2)
            .map(|_| {
                let ticket = enter(&admission);
                ticket.verified();
                ticket.authenticated().unwrap()
            })
            .collect();
        let newcomer = admission.enter();
        assert!(newcomer.ticket.is_none() && newcomer.shed);
        assert_eq!(admission.held(), (2, 2));
        drop(whole);
        assert_eq!(admission.held(), (0, 2));
    }

    #[test]
    fn who_comes_when_it_is_closed_is_told_so_and_who_is_whole_goes_on_until_cut() {
        let admission = Admission::new(4);
        let (silent, half, whole) = (enter(&admission), enter(&admission), enter(&admission));
        half.verified();
        let whole = whole.authenticated().unwrap();
        admission.close();
        let late = enter(&admission);
        let aborted = |ticket: &HandshakePermit| ticket.halt.is_aborted();
        assert_eq!([&silent, &half, &whole, &late].map(aborted), [true, true, false, true]);
        admission.cut();
        assert!(aborted(&whole));
    }

    /// While it fails or completes on one thread it may be shed on another: it is one or the other.
    #[test]
    fn one_that_was_shed_neither_fails_nor_completes() {
        let admission = Admission::new(1);
        let first = enter(&admission);
        first.verified();
        let second = enter(&admission);
        assert!(first.authenticated().is_none());
        let third = enter(&admission);
        assert!(!second.failed());
        assert!(third.failed());
        assert_eq!(admission.held(), (0, 1));
    }
}
