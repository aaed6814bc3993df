//! What each step must come to.
//!
//! Owns the `Forecast`, and what a step does to the model. Wherever it cannot be known what the pools
//! do, it says so, and the pair is rough from then on.

use std::ops::RangeInclusive;

use super::{ABSENT, Held, LeaseNo, Link, MAX_MESSAGE, Model, SessionNo, Standing, pair};
use crate::story::{Answer, Step};
use crate::support::net::Fate;

/// Why callers get no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    OwnIdentity,
    PoolClosed,
    /// Nobody is there.
    Connect,
    /// The peer is full.
    Full,
    /// Our own room is full of sessions in use.
    Sessions,
    /// All leases of the session are out.
    Leases,
    /// The caller's own deadline passes.
    Deadline,
    /// Some failure, perhaps an earlier one.
    Any,
}

/// What the last step must come to.
#[derive(Clone, Debug)]
pub(crate) enum Forecast {
    /// Only the laws are known.
    Unknown,
    /// Only the laws are known; callers who get a lease get one of these, at one pool and another.
    Loose([Vec<LeaseNo>; 2]),
    /// Callers at one pool.
    Calls {
        /// The session that all get who get any.
        session: Option<SessionNo>,
        /// The leases of those who get one.
        leases: Vec<LeaseNo>,
        /// What the others get.
        denial: Denial,
        /// Connections that the step begins.
        connects: RangeInclusive<u64>,
    },
    /// Callers at both ends at once: one session, and these leases at each end.
    Crossed { session: SessionNo, leases: [Vec<LeaseNo>; 2], denial: Denial },
    /// A session that drained, and the lease of a caller on its successor.
    Replaced { old: SessionNo, session: SessionNo, lease: LeaseNo },
    /// Messages on a lease, or to a peer.
    Sent(Sending),
    /// Whether `disconnect` finds something to end.
    Found(bool),
    /// What a drain reports: the sessions that end, and the leases that are out at the deadline.
    Drained { node: usize, sessions: Vec<SessionNo>, leases_remaining: usize },
}

/// What becomes of messages that are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    Accepted,
    /// The session has ended.
    Refused,
    TooLarge,
    Unsure,
}

/// Where a call for a session leads.
enum Reach {
    Session(SessionNo),
    Denied(Denial),
    Unsure,
}
impl Model {
    pub(crate) fn play(&mut self, step: &Step) {
        self.spent += step.takes();
        self.forecast = match step {
            Step::Call { from, to, callers, .. } => self.call(*from, *to, usize::from(*callers)),
            Step::Cross { one, other, callers } => self.cross(*one, *other, usize::from(*callers)),
            Step::Exclusive { from, to } => self.exclusive(*from, *to),
            Step::Send { lease, count, length, .. } => self.send(*lease, *count, *length),
            Step::SendTo { from, to, count, length } => self.send_to(*from, *to, *count, *length),
            Step::Contend { lease, words, rivals } => self.contend(*lease, *words, *rivals),
            Step::Probe { lease } => Forecast::Sent(match self.standing(*lease) {
                Standing::Live(_) => Sending::Accepted,
                Standing::Stale => Sending::Refused,
                Standing::Unsure => Sending::Unsure,
            }),
            Step::Return { lease, words } => {
                // The peer speaks on the session that there is, be it a successor of the lease's.
                let Held { node, peer, .. } = self.leases[lease];
                if let Some(session) = self.session(node, peer) {
                    self.last_words(session, peer, *words);
                }
                self.leases.remove(lease);
                Forecast::Unknown
            }
            Step::Discard { lease } => {
                if let Standing::Live(session) = self.standing(*lease) {
                    self.end(session);
                }
                self.leases.remove(lease);
                Forecast::Unknown
            }
            Step::Disconnect { node, peer, refuse, .. } => self.disconnect(*node, *peer, *refuse),
            Step::Replace { node, peer } => self.replace(*node, *peer),
            Step::DrainPeer { node, peer, words, answers } => {
                self.drain_peer(*node, *peer, *words, *answers)
            }
            Step::DrainPool { node, words } => self.drain_pool(*node, *words),
            Step::ClosePool { node } => {
                self.shut(*node);
                Forecast::Unknown
            }
            Step::Wait { .. } => Forecast::Unknown,
            Step::WaitLong => {
                self.wait_long();
                Forecast::Unknown
            }
            Step::Plan { from, to, plan } => {
                self.planned.insert((*from, *to));
                if plan.fate == Fate::Elsewhere {
                    self.detours.insert((*from, *to));
                }
                Forecast::Unknown
            }
            Step::Checks { node, peer, answer } => {
                if *answer != Answer::Yes {
                    self.roughen(*node, *peer);
                }
                Forecast::Unknown
            }
            Step::Keep { node, peer } => {
                self.roughen(*node, *peer);
                Forecast::Unknown
            }
            Step::Stranger { node, .. } => {
                self.strangers[*node] = true;
                Forecast::Unknown
            }
            Step::Mend { one, other } => {
                self.mend(*one, *other);
                Forecast::Unknown
            }
        };
    }

    /// Finds what a call meets, and does to the model what the call does to the pools.
    fn reach(&mut self, from: usize, to: usize) -> (Reach, RangeInclusive<u64>) {
        if from == to {
            return (Reach::Denied(Denial::OwnIdentity), 0..=0);
        }
        if self.closed[from] {
            return (Reach::Denied(Denial::PoolClosed), 0..=0);
        }
        match self.link(from, to) {
            Link::Up(session) => return (Reach::Session(session), 0..=0),
            // It may dial, and take the room of others.
            Link::Rough => return self.give_up(from, to),
            Link::Down => {}
        }
        let nobody = to == ABSENT || self.closed[to];
        if self.cool.contains(&(from, to)) || self.planned.contains(&(from, to)) {
            if nobody && self.room_is_free(from) {
                return (Reach::Denied(Denial::Any), 0..=1);
            }
            return self.give_up(from, to);
        }
        if self.may_be_disturbed(from) || (!nobody && self.may_be_disturbed(to)) {
            return self.give_up(from, to);
        }
        // Room is reserved before a dial begins: a dial may end any session without leases.
        if self.sessions_of(from).len() >= usize::from(self.setup.max_sessions) {
            let idle = self.idle_sessions(from, |_| true);
            if idle.is_empty() {
                return (Reach::Denied(Denial::Sessions), 0..=0);
            }
            self.evict_one_of(&idle);
        }
        if nobody {
            self.cool.insert((from, to));
            let denial = if to == ABSENT { Denial::Connect } else { Denial::Any };
            return (Reach::Denied(denial), 1..=1);
        }
        // An inbound newcomer may end inbound sessions only.
        let (inbound, unsure) = self.inbound_of(to);
        let used = self.sessions_of(to).len();
        let full = used >= usize::from(self.setup.max_sessions)
            || inbound >= usize::from(self.setup.max_inbound);
        if unsure && (full || used >= usize::from(self.setup.max_inbound)) {
            return self.give_up(from, to);
        }
        if full {
            let idle = self.idle_sessions(to, |session| session.opened_by != Some(to));
            if idle.is_empty() {
                self.cool.insert((from, to));
                return (Reach::Denied(Denial::Full), 1..=1);
            }
            self.evict_one_of(&idle);
        }
        (Reach::Session(self.begin(from, to, Some(from))), 1..=1)
    }

    fn give_up(&mut self, from: usize, to: usize) -> (Reach, RangeInclusive<u64>) {
        self.roughen(from, to);
        (Reach::Unsure, 0..=0)
    }

    fn call(&mut self, from: usize, to: usize, callers: usize) -> Forecast {
        let (reach, connects) = self.reach(from, to);
        let (session, denial) = match reach {
            Reach::Session(session) => (Some(session), self.setup.without_lease()),
            Reach::Denied(Denial::Sessions) => (None, self.setup.without_room()),
            Reach::Denied(denial) => (None, denial),
            Reach::Unsure => {
                let leases = self.lend(callers, from, to, None, false);
                return Forecast::Loose([leases, Vec::new()]);
            }
        };
        let free = session.map_or(0, |session| self.free_leases(from, session));
        let leases = self.lend(callers.min(free), from, to, session, false);
        Forecast::Calls { session, leases, denial, connects }
    }

    fn cross(&mut self, one: usize, other: usize, callers: usize) -> Forecast {
        let (one, other) = pair(one, other);
        let sure = [(one, other), (other, one)].iter().all(|way| {
            !self.cool.contains(way)
                && !self.planned.contains(way)
                && !self.may_be_disturbed(way.0)
                && self.room_is_free(way.0)
        });
        // A connection that finds no dial any more needs the room of inbound sessions.
        let inbound = |node| self.inbound_of(node).0 < usize::from(self.setup.max_inbound);
        if self.link(one, other) != Link::Down || !sure || !inbound(one) || !inbound(other) {
            self.roughen(one, other);
            let leases = [(one, other), (other, one)]
                .map(|(from, to)| self.lend(callers, from, to, None, false));
            return Forecast::Loose(leases);
        }
        let session = self.begin(one, other, None);
        let granted = callers.min(self.free_leases(one, session));
        let leases = [(one, other), (other, one)]
            .map(|(from, to)| self.lend(granted, from, to, Some(session), false));
        Forecast::Crossed { session, leases, denial: self.setup.without_lease() }
    }

    fn exclusive(&mut self, from: usize, to: usize) -> Forecast {
        let (reach, connects) = self.reach(from, to);
        let (session, denial) = match reach {
            Reach::Session(session) => (Some(session), Denial::Deadline),
            Reach::Denied(Denial::Sessions) => (None, self.setup.without_room()),
            Reach::Denied(denial) => (None, denial),
            Reach::Unsure => {
                let leases = self.lend(1, from, to, None, true);
                return Forecast::Loose([leases, Vec::new()]);
            }
        };
        let free = session.filter(|session| self.out(from, *session).next().is_none());
        let leases = self.lend(usize::from(free.is_some()), from, to, free, true);
        Forecast::Calls { session, leases, denial, connects }
    }

    fn send(&mut self, lease: LeaseNo, count: u8, length: u16) -> Forecast {
        let node = self.leases[&lease].node;
        Forecast::Sent(match self.standing(lease) {
            Standing::Stale => Sending::Refused,
            Standing::Unsure => Sending::Unsure,
            Standing::Live(_) if length > MAX_MESSAGE => Sending::TooLarge,
            Standing::Live(session) if self.setup.small_queues => {
                let session = self.sessions.get_mut(&session).unwrap();
                session.sent[session.end(node)] = None;
                Sending::Unsure
            }
            Standing::Live(session) => {
                self.accept(session, node, count.into());
                Sending::Accepted
            }
        })
    }

    fn send_to(&mut self, from: usize, to: usize, count: u8, length: u16) -> Forecast {
        let (reach, connects) = self.reach(from, to);
        let denied = |denial, connects| Forecast::Calls {
            session: None,
            leases: Vec::new(),
            denial,
            connects,
        };
        match reach {
            Reach::Session(session) if self.free_leases(from, session) == 0 => {
                denied(self.setup.without_lease(), connects)
            }
            Reach::Session(_) if length > MAX_MESSAGE => Forecast::Sent(Sending::TooLarge),
            Reach::Session(session) => {
                self.accept(session, from, count.into());
                Forecast::Calls {
                    session: Some(session),
                    leases: Vec::new(),
                    denial: Denial::Any,
                    connects,
                }
            }
            // A dial that its caller has just left may still have its turn when the next call comes.
            Reach::Denied(Denial::Sessions) if self.setup.max_queued_dials == 0 => {
                denied(Denial::Any, connects)
            }
            Reach::Denied(Denial::Sessions) => denied(self.setup.without_room(), connects),
            // Each message is a call of its own: those behind the first may meet its failure.
            Reach::Denied(Denial::Connect | Denial::Full) => denied(Denial::Any, 1..=count.into()),
            Reach::Denied(denial) => denied(denial, 0..=(*connects.end() * u64::from(count))),
            Reach::Unsure => Forecast::Unknown,
        }
    }

    fn contend(&mut self, lease: LeaseNo, words: u8, rivals: u8) -> Forecast {
        let standing = self.standing(lease);
        let held = self.leases.remove(&lease).unwrap();
        let Standing::Live(session) = standing else {
            self.roughen(held.node, held.peer);
            return Forecast::Unknown;
        };
        // Where callers do not wait for leases, the rivals have gone before the holder returns.
        let rivals = if self.setup.waits { rivals } else { 0 };
        self.accept(session, held.node, u64::from(words) + u64::from(rivals));
        Forecast::Sent(Sending::Accepted)
    }

    fn disconnect(&mut self, node: usize, peer: usize, refuse: bool) -> Forecast {
        let link = self.link(node, peer);
        if refuse && !self.closed[node] {
            self.cool.insert((node, peer));
            self.cool.insert((peer, node));
        }
        match link {
            Link::Rough => Forecast::Unknown,
            Link::Down => Forecast::Found(false),
            Link::Up(session) => {
                self.end(session);
                Forecast::Found(true)
            }
        }
    }

    /// The old session has left its slot, so there is room for the new one. At the peer it has not: the
    /// peer retires it for the new one, and with that the drain is held up no longer.
    fn replace(&mut self, node: usize, peer: usize) -> Forecast {
        let Link::Up(old) = self.link(node, peer) else { unreachable!("it can be replaced") };
        self.end(old);
        // The room that it has at the peer is that of the old one, whoever opened that.
        let session = self.begin(node, peer, None);
        let lease = self.lend(1, node, peer, Some(session), false)[0];
        Forecast::Replaced { old, session, lease }
    }

    fn drain_peer(&mut self, node: usize, peer: usize, words: u8, answers: u8) -> Forecast {
        match self.link(node, peer) {
            Link::Rough => Forecast::Unknown,
            Link::Down => Forecast::Drained { node, sessions: Vec::new(), leases_remaining: 0 },
            Link::Up(session) => {
                self.last_words(session, node, words);
                self.last_words(session, peer, answers);
                self.end(session);
                let leases_remaining = self.out(node, session).count();
                Forecast::Drained { node, sessions: vec![session], leases_remaining }
            }
        }
    }

    /// Messages that one end accepts just before the session drains, if a lease is to be had.
    fn last_words(&mut self, session: SessionNo, node: usize, words: u8) {
        if self.free_leases(node, session) > 0 {
            self.accept(session, node, words.into());
        }
    }

    fn drain_pool(&mut self, node: usize, words: u8) -> Forecast {
        let sure = self.is_sure_of(node) && !self.may_have_strangers(node);
        let mut sessions = Vec::new();
        for (_, session) in self.sessions_of(node) {
            self.last_words(session, node, words);
            sessions.push(session);
        }
        let leases_remaining = sessions.iter().map(|s| self.out(node, *s).count()).sum();
        self.shut(node);
        if sure {
            Forecast::Drained { node, sessions, leases_remaining }
        } else {
            Forecast::Unknown
        }
    }
}
