//! The reference model: what the pools must hold and answer, as far as it can be known.
//!
//! Owns what the model knows: who is connected to whom, which lease belongs to which session, and what
//! was sent; what each step comes to is in `forecast`. A pair of pools whose network is smooth is known
//! exactly. Where chance decides, the pair is `Rough`: then nothing is foretold of it, and only
//! the laws hold. The model must never look at a pool.

mod forecast;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::story::Setup;

pub(crate) use forecast::{Denial, Forecast, Sending};

/// Pools on the network.
pub(crate) const NODES: usize = 4;
/// Names on the network: those of the pools, and one of a peer that is never there.
pub(crate) const NAMES: usize = NODES + 1;
/// The peer that is never there.
pub(crate) const ABSENT: usize = NODES;
/// The longest message that the pools take.
pub(crate) const MAX_MESSAGE: u16 = 3000;

/// What a story's steps may take together until it waits long: well below `max_idle`.
const SHORT_SECONDS: u64 = 900;

/// Two pools, the smaller number first.
pub(crate) type Pair = (usize, usize);

pub(crate) fn pair(one: usize, other: usize) -> Pair {
    (one.min(other), one.max(other))
}

/// A session between two pools, by the order in which they began; both ends have the same number.
pub(crate) type SessionNo = u32;
/// A lease, by the order in which they were given out.
pub(crate) type LeaseNo = u32;

/// What holds between two pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// No session, and nothing under way.
    Down,
    /// This session, on both ends.
    Up(SessionNo),
    /// It cannot be known.
    Rough,
}

/// A session that is or was known.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) ends: Pair,
    /// Who dialled; unknown if both did.
    opened_by: Option<usize>,
    /// How many messages each end accepted, if that can be known.
    pub(crate) sent: [Option<u64>; 2],
}

impl Session {
    /// Which of the two numbers of `sent` is this pool's.
    pub(crate) fn end(&self, node: usize) -> usize {
        usize::from(node == self.ends.1)
    }
}

/// A lease that a step gave out.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) node: usize,
    pub(crate) peer: usize,
    /// None: whether it was given out, and on which session, is not known.
    pub(crate) session: Option<SessionNo>,
    pub(crate) exclusive: bool,
}

/// Whether a lease's session lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Live(SessionNo),
    /// It has ended; perhaps it has a successor.
    Stale,
    Unsure,
}

/// All that is known.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) setup: Setup,
    pub(crate) links: BTreeMap<Pair, Link>,
    pub(crate) sessions: BTreeMap<SessionNo, Session>,
    pub(crate) leases: BTreeMap<LeaseNo, Held>,
    pub(crate) closed: [bool; NODES],
    /// Strangers may be in the handshake here.
    strangers: [bool; NODES],
    /// Calls in this direction may fail at once, because of an earlier failure or a refusal.
    cool: BTreeSet<(usize, usize)>,
    /// The next connection in this direction is not smooth.
    planned: BTreeSet<(usize, usize)>,
    /// It may lead to any pool, as a stranger.
    detours: BTreeSet<(usize, usize)>,
    next_lease: LeaseNo,
    /// At most so many seconds have passed in which nothing may have expired yet.
    spent: u64,
    pub(crate) forecast: Forecast,
}

/// A failing story begins with what cannot be read from its steps.
impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.setup.fmt(f)
    }
}

impl Model {
    pub(crate) fn new(setup: Setup) -> Self {
        let pairs = (0..NODES).flat_map(|one| (one + 1..NODES).map(move |other| (one, other)));
        Self {
            setup,
            links: pairs.map(|pair| (pair, Link::Down)).collect(),
            sessions: BTreeMap::new(),
            leases: BTreeMap::new(),
            closed: [false; NODES],
            strangers: [false; NODES],
            cool: BTreeSet::new(),
            planned: BTreeSet::new(),
            detours: BTreeSet::new(),
            next_lease: 0,
            spent: 0,
            forecast: Forecast::Unknown,
        }
    }

    // ---- what is known -------------------------------------------------------------------------

    pub(crate) fn link(&self, one: usize, other: usize) -> Link {
        // A pool has no link to itself, nor to a peer that is never there.
        self.links.get(&pair(one, other)).copied().unwrap_or(Link::Down)
    }

    /// The known session between two pools.
    pub(crate) fn session(&self, one: usize, other: usize) -> Option<SessionNo> {
        match self.link(one, other) {
            Link::Up(session) => Some(session),
            Link::Down | Link::Rough => None,
        }
    }

    pub(crate) fn is_rough(&self, one: usize, other: usize) -> bool {
        self.link(one, other) == Link::Rough
    }

    /// Whether all is known that concerns this pool.
    pub(crate) fn is_sure_of(&self, node: usize) -> bool {
        !(0..NODES).any(|other| self.is_rough(node, other))
    }

    pub(crate) fn standing(&self, lease: LeaseNo) -> Standing {
        let held = &self.leases[&lease];
        match held.session {
            None => Standing::Unsure,
            Some(session) if self.session(held.node, held.peer) == Some(session) => {
                Standing::Live(session)
            }
            Some(_) => Standing::Stale,
        }
    }

    /// The leases of a known session that are out at one of its ends.
    pub(crate) fn out(&self, node: usize, session: SessionNo) -> impl Iterator<Item = &Held> {
        let leases = self.leases.values();
        leases.filter(move |held| held.node == node && held.session == Some(session))
    }

    /// How many more leases of a known session there are at one of its ends.
    pub(crate) fn free_leases(&self, node: usize, session: SessionNo) -> usize {
        if self.out(node, session).any(|held| held.exclusive) {
            return 0;
        }
        let max = self.setup.max_leases.map_or(usize::MAX, usize::from);
        max - self.out(node, session).count()
    }

    /// The known sessions of a pool, with their peers.
    pub(crate) fn sessions_of(&self, node: usize) -> Vec<(usize, SessionNo)> {
        let peers = (0..NODES).filter(|peer| *peer != node);
        peers.filter_map(|peer| Some((peer, self.session(node, peer)?))).collect()
    }

    /// Whether connections of nobody's may be open at a pool.
    pub(crate) fn may_have_strangers(&self, node: usize) -> bool {
        self.strangers[node] || !self.detours.is_empty()
    }

    /// Whether what is not known of one peer of a pool can touch another.
    fn may_be_disturbed(&self, node: usize) -> bool {
        self.setup.is_tight() && (self.may_have_strangers(node) || !self.is_sure_of(node))
    }

    // ---- what happens --------------------------------------------------------------------------

    fn room_is_free(&self, node: usize) -> bool {
        let max = usize::from(self.setup.max_sessions);
        max >= NAMES || (self.is_sure_of(node) && self.sessions_of(node).len() < max)
    }

    /// How many inbound sessions a pool has; and whether that is not known, since both ends dialled.
    fn inbound_of(&self, node: usize) -> (usize, bool) {
        let sessions = self.sessions_of(node);
        let openers = || sessions.iter().map(|(_, session)| self.sessions[session].opened_by);
        (openers().filter(|by| *by != Some(node)).count(), openers().any(|by| by.is_none()))
    }

    /// The sessions of a pool that may make room for another: no lease of them is out there.
    fn idle_sessions(&self, node: usize, which: impl Fn(&Session) -> bool) -> Vec<SessionNo> {
        let sessions = self.sessions_of(node).into_iter().map(|(_, session)| session);
        sessions
            .filter(|session| self.out(node, *session).next().is_none())
            .filter(|session| which(&self.sessions[session]))
            .collect()
    }

    /// One of these is evicted. Which one is not foretold: the order of their last use is known to the
    /// pool alone.
    fn evict_one_of(&mut self, idle: &[SessionNo]) {
        match idle {
            [only] => self.end(*only),
            several => several.iter().for_each(|session| self.blur(self.sessions[session].ends)),
        }
    }

    fn begin(&mut self, one: usize, other: usize, opened_by: Option<usize>) -> SessionNo {
        let number = SessionNo::try_from(self.sessions.len()).unwrap();
        let ends = pair(one, other);
        self.sessions.insert(number, Session { ends, opened_by, sent: [Some(0); 2] });
        self.links.insert(ends, Link::Up(number));
        // A session ends the wait after failures at both ends.
        self.cool.remove(&(one, other));
        self.cool.remove(&(other, one));
        number
    }

    fn end(&mut self, session: SessionNo) {
        self.links.insert(self.sessions[&session].ends, Link::Down);
    }

    /// Nothing is foretold of this pair any more. Its leases may be of any session, or of none.
    fn blur(&mut self, ends: Pair) {
        if let Some(Link::Up(session)) = self.links.insert(ends, Link::Rough) {
            for held in self.leases.values_mut() {
                if held.session == Some(session) {
                    held.session = None;
                }
            }
        }
    }

    /// As `blur`; where room is short, what is not known of one pair touches all.
    fn roughen(&mut self, one: usize, other: usize) {
        if self.setup.is_tight() {
            let all: Vec<Pair> = self.links.keys().copied().collect();
            all.into_iter().for_each(|ends| self.blur(ends));
        } else if one != other && one.max(other) < NODES {
            self.blur(pair(one, other));
        }
    }

    /// Leases that are given out; which session they are of may not be known.
    fn lend(
        &mut self,
        many: usize,
        node: usize,
        peer: usize,
        session: Option<SessionNo>,
        exclusive: bool,
    ) -> Vec<LeaseNo> {
        let first = self.next_lease;
        self.next_lease += LeaseNo::try_from(many).unwrap();
        let leases: Vec<LeaseNo> = (first..self.next_lease).collect();
        for lease in &leases {
            self.leases.insert(*lease, Held { node, peer, session, exclusive });
        }
        leases
    }

    /// Notes messages that this end of a session accepts.
    fn accept(&mut self, session: SessionNo, node: usize, count: u64) {
        let session = self.sessions.get_mut(&session).unwrap();
        let end = session.end(node);
        session.sent[end] = session.sent[end].map(|sent| sent + count);
    }

    fn shut(&mut self, node: usize) {
        self.sessions_of(node).into_iter().for_each(|(_, session)| self.end(session));
        self.closed[node] = true;
    }

    /// Time in which all that may expire does, every wait after a failure ends, and strangers go.
    fn wait_long(&mut self) {
        self.spent = 0;
        self.cool.clear();
        self.strangers = [false; NODES];
        let up: Vec<SessionNo> = self
            .links
            .values()
            .filter_map(|link| match link {
                Link::Up(session) => Some(*session),
                Link::Down | Link::Rough => None,
            })
            .collect();
        for session in up {
            let (one, other) = self.sessions[&session].ends;
            let idle = [one, other].iter().any(|node| self.out(*node, session).next().is_none());
            if self.setup.ages || (self.setup.idles && idle) {
                self.end(session);
            }
        }
    }

    /// The pairs that a step mends: where room is short, all.
    pub(crate) fn mended(&self, one: usize, other: usize) -> Vec<Pair> {
        let all = self.setup.is_tight();
        self.links.keys().copied().filter(|ends| all || *ends == pair(one, other)).collect()
    }

    /// The leases that are dropped when these pairs are mended.
    pub(crate) fn unsure_leases(&self, pairs: &[Pair]) -> Vec<LeaseNo> {
        let leases = self.leases.iter();
        leases
            .filter(|(_, held)| {
                held.session.is_none() && pairs.contains(&pair(held.node, held.peer))
            })
            .map(|(lease, _)| *lease)
            .collect()
    }

    fn mend(&mut self, one: usize, other: usize) {
        let pairs = self.mended(one, other);
        for lease in self.unsure_leases(&pairs) {
            self.leases.remove(&lease);
        }
        for ends in pairs {
            self.links.insert(ends, Link::Down);
            for way in [ends, (ends.1, ends.0)] {
                self.cool.remove(&way);
                self.planned.remove(&way);
                self.detours.remove(&way);
            }
        }
        self.strangers = [false; NODES];
    }

    /// Whether so much more time may pass before the model would have to know what expires when.
    pub(crate) fn has_time(&self, seconds: u64) -> bool {
        self.spent + seconds <= SHORT_SECONDS
    }

    // ---- what may be asked ---------------------------------------------------------------------

    /// Whether a drain of this pool's session to a peer is held up, so that another may be had
    /// meanwhile.
    pub(crate) fn can_replace(&self, node: usize, peer: usize) -> bool {
        let way = (node, peer);
        self.session(node, peer).is_some_and(|session| self.out(node, session).next().is_some())
            && !self.cool.contains(&way)
            && !self.planned.contains(&way)
            && !self.may_be_disturbed(node)
            && !self.may_be_disturbed(peer)
    }

    /// Whether there is something to mend between two pools.
    pub(crate) fn is_troubled(&self, one: usize, other: usize) -> bool {
        let ways = [(one, other), (other, one)];
        self.is_rough(one, other) || ways.iter().any(|way| self.planned.contains(way))
    }
}
