//! Every message: who accepted it on which session, and where it came out.
//!
//! Owns the numbers in the messages' bodies, and what they prove: nothing comes twice or from nowhere,
//! sessions keep their order, and nobody sends between the words of an exclusive holder.

use std::collections::{BTreeSet, HashMap};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use noise_pool::SessionId;

use super::model::LeaseNo;

/// All messages so far.
#[derive(Default)]
pub(crate) struct Book {
    /// By their number.
    messages: Vec<Entry>,
    /// What each session brought, by the receiver's number of the session, in the order of arrival.
    arrivals: HashMap<SessionId, Vec<u64>>,
}

struct Entry {
    from: usize,
    to: usize,
    /// The sender's session, where the sender chose it.
    session: Option<SessionId>,
    /// The exclusive lease that it was sent on.
    holder: Option<LeaseNo>,
    refused: bool,
    came: bool,
}

/// Who sends a message, to whom, on what.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) session: Option<SessionId>,
    pub(crate) holder: Option<LeaseNo>,
}

impl Book {
    /// A new message; it counts as accepted until it is given back.
    pub(crate) fn write(&mut self, header: Header, length: usize) -> (u64, Bytes) {
        let Header { from, to, session, holder } = header;
        let number = self.messages.len() as u64;
        self.messages.push(Entry { from, to, session, holder, refused: false, came: false });
        let mut body = BytesMut::with_capacity(length.max(8));
        body.put_u64(number);
        body.resize(length.max(8), 0x5a);
        (number, body.freeze())
    }

    /// The message was not accepted, but given back.
    pub(crate) fn given_back(&mut self, number: u64) {
        let entry = &mut self.messages[number as usize];
        entry.refused = true;
        assert!(
            !entry.came,
            "at most once: message {number} was given back, and came all the same"
        );
    }

    /// The message turned out to have been accepted on this session.
    pub(crate) fn sent_on(&mut self, number: u64, session: SessionId) {
        self.messages[number as usize].session = Some(session);
    }

    /// A message came out at a pool, as from this peer.
    pub(crate) fn came(&mut self, node: usize, peer: usize, session: SessionId, mut body: Bytes) {
        let number = body.get_u64();
        assert!(body.iter().all(|byte| *byte == 0x5a), "message {number} came changed");
        let entry = &mut self.messages[number as usize];
        assert_eq!((entry.from, entry.to), (peer, node), "message {number} came astray");
        at_most_once(number, entry);
        entry.came = true;
        self.arrivals.entry(session).or_default().push(number);
    }

    /// How many messages came out at a pool.
    pub(crate) fn came_to(&self, node: usize) -> u64 {
        self.messages.iter().filter(|entry| entry.to == node && entry.came).count() as u64
    }

    /// How many messages a pool accepted, and how many of them came out.
    pub(crate) fn accepted_by(&self, node: usize) -> (u64, u64) {
        let accepted = || self.messages.iter().filter(|entry| entry.from == node && !entry.refused);
        (accepted().count() as u64, accepted().filter(|entry| entry.came).count() as u64)
    }

    /// The messages that this session accepted, in order, as far as the sender chose the session.
    pub(crate) fn accepted_on(&self, session: SessionId) -> Vec<u64> {
        let messages = self.messages.iter().zip(0..);
        messages
            .filter(|(entry, _)| entry.session == Some(session) && !entry.refused)
            .map(|(_, number)| number)
            .collect()
    }

    /// The messages that this session brought, in order.
    pub(crate) fn brought_by(&self, session: SessionId) -> &[u64] {
        self.arrivals.get(&session).map(Vec::as_slice).unwrap_or_default()
    }

    /// PROMISE "exactly-once on graceful paths": a session whose goodbye confirmed all that it accepted
    /// has delivered all of it.
    pub(crate) fn exactly_once_if_confirmed(&self, session: SessionId) {
        for number in self.accepted_on(session) {
            let came = self.messages[number as usize].came;
            assert!(came, "exactly once: {session} confirmed all, and message {number} never came");
        }
    }

    /// PROMISE "per-session order": what came on one session came in the order in which it was
    /// accepted. Messages for which the pool chose the session were not accepted in the order of
    /// their numbers.
    pub(crate) fn sessions_keep_their_order(&self) {
        for (session, numbers) in &self.arrivals {
            let chosen = |number: &&u64| self.messages[**number as usize].session.is_some();
            let order: Vec<u64> = numbers.iter().filter(chosen).copied().collect();
            assert!(order.is_sorted(), "per-session order: {session} brought {order:?}");
        }
    }

    /// PROMISE "exclusive never interleaved": on one session, what the holder of an exclusive lease
    /// sent came in one piece, with nobody's words between.
    pub(crate) fn holders_are_not_interrupted(&self) {
        for (session, numbers) in &self.arrivals {
            let mut gone = BTreeSet::new();
            let mut last = None;
            for number in numbers {
                let holder = self.messages[*number as usize].holder;
                if holder == last {
                    continue;
                }
                gone.extend(last);
                let again = holder.is_some_and(|holder| gone.contains(&holder));
                assert!(
                    !again,
                    "exclusive: {session} brought words of others between, {numbers:?}"
                );
                last = holder;
            }
        }
    }
}

/// PROMISE "at-most-once always": a message comes once, and never after it was given back.
fn at_most_once(number: u64, entry: &Entry) {
    assert!(!entry.came, "at most once: message {number} came twice");
    assert!(!entry.refused, "at most once: message {number} was given back, and came all the same");
}
