//! The pool's promise, checked from outside: one session per pair of routers.
//!
//! Owns the reading of many snapshots as one network. Snapshots of different routers are taken one
//! after another, so what they say together is only judged while no message is under way.

use std::collections::{BTreeMap, BTreeSet};

use noise_pool::snapshot::{SessionState, Snapshot};
use noise_pool::{PeerId, Pool};

/// What one router shows of its sessions.
pub(crate) struct View {
    /// The router.
    me: PeerId,
    /// Each session that it hands out: the peer, and the handshake hash, which is the same at both
    /// ends; none if the session ended while we looked.
    ready: Vec<(PeerId, Option<[u8; 32]>)>,
    /// Dials, and sessions that are on their way out.
    changing: usize,
}

impl View {
    /// Reads a pool and the snapshot just taken of it.
    pub(crate) fn of(pool: &Pool, snapshot: &Snapshot) -> Self {
        let is_ready = |state| state == SessionState::Ready;
        let (ready, leaving): (Vec<_>, Vec<_>) =
            (snapshot.sessions.iter()).partition(|session| is_ready(session.state));
        let hash = |peer| pool.get(peer).map(|lease| *lease.handshake_hash());
        Self {
            me: snapshot.peer,
            ready: (ready.iter()).map(|session| (session.peer, hash(&session.peer))).collect(),
            changing: leaving.len() + snapshot.dials.len(),
        }
    }
}

/// What all views together say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assessment {
    /// Sessions, each counted once.
    pub(crate) sessions: usize,
    /// The most sessions that a pair of routers has.
    pub(crate) max_per_pair: usize,
    /// What is still changing: dials, sessions that drain, sessions that only one end knows.
    pub(crate) unsettled: usize,
}

/// Reads the views of all routers.
pub(crate) fn assess(views: &[View]) -> Assessment {
    #[derive(Default)]
    struct Pair {
        /// How many sessions each of the two shows.
        ends: BTreeMap<PeerId, usize>,
        /// The hashes that either shows: two ends with different ones are two sessions.
        hashes: BTreeSet<[u8; 32]>,
    }

    let mut pairs: BTreeMap<(PeerId, PeerId), Pair> = BTreeMap::new();
    let mut result = Assessment::default();
    for view in views {
        result.unsettled += view.changing;
        for &(peer, hash) in &view.ready {
            let names = (view.me.min(peer), view.me.max(peer));
            let pair = pairs.entry(names).or_default();
            *pair.ends.entry(view.me).or_default() += 1;
            pair.hashes.extend(hash);
            result.unsettled += usize::from(hash.is_none());
        }
    }
    for pair in pairs.values() {
        let max_at_one_end = pair.ends.values().copied().max().unwrap_or(0);
        let sessions = pair.hashes.len().max(max_at_one_end);
        result.sessions += sessions;
        result.max_per_pair = result.max_per_pair.max(sessions);
        result.unsettled += usize::from(pair.ends.len() != 2);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use noise_pool::Identity;

    fn peer(n: u8) -> PeerId {
        Identity::from_secret([n; 32]).peer_id()
    }

    fn view(me: u8, ready: &[(u8, u8)]) -> View {
        View {
            me: peer(me),
            ready: (ready.iter()).map(|&(to, hash)| (peer(to), Some([hash; 32]))).collect(),
            changing: 0,
        }
    }

    #[test]
    fn two_ends_of_one_session_are_one_session() {
        let views = [view(1, &[(2, 7), (3, 8)]), view(2, &[(1, 7)]), view(3, &[(1, 8)])];
        let expected = Assessment { sessions: 2, max_per_pair: 1, unsettled: 0 };
        assert_eq!(assess(&views), expected);
    }

    #[test]
    fn ends_with_different_hashes_are_two_sessions() {
        let views = [view(1, &[(2, 7)]), view(2, &[(1, 8)])];
        assert_eq!(assess(&views).max_per_pair, 2);
    }

    #[test]
    fn two_sessions_at_one_end_are_two_even_with_one_hash() {
        let views = [view(1, &[(2, 7), (2, 7)]), view(2, &[(1, 7)])];
        assert_eq!(assess(&views).max_per_pair, 2);
    }

    #[test]
    fn a_session_that_one_end_does_not_know_is_unsettled() {
        let views = [view(1, &[(2, 7)]), view(2, &[])];
        assert_eq!(assess(&views).unsettled, 1);
        let ended = View { ready: vec![(peer(2), None)], ..view(1, &[]) };
        assert_eq!(assess(&[ended, view(2, &[(1, 7)])]).unsettled, 1);
    }
}
