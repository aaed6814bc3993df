//! What must hold after every step, whatever the network and the applications do.
//!
//! Owns the promises, one named check each; those that a single step shows are in `play`, those that
//! the messages show in `book`. A check that compares with the model is silent where the model is.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;

use noise_pool::error::{CloseReason, DialError};
use noise_pool::event::{DialFailure, PoolEvent};
use noise_pool::snapshot::{
    DialFailures, DialPhase, HandshakeFailures, LimitUse, SessionReport, SessionState, Snapshot,
};

use super::model::{Link, Model, NAMES, NODES, SessionNo};
use super::play::Dialled;
use super::support::slots;
use super::world::name;
use super::world::{Grip, Node, World};

/// All that can be seen from outside between two steps.
pub(crate) fn hold(world: &World, model: &Model) {
    for (number, node) in world.nodes.iter().enumerate() {
        let seen = node.pool.snapshot();
        one_session_one_dial(&seen);
        no_more_connections_than_dials(world, number);
        limits_hold(&seen, model, model.closed[number]);
        sums_equal_counters(node, &seen, model.closed[number]);
        if model.is_sure_of(number) {
            nothing_left(node, &seen, model, number);
        }
    }
    no_more_leases_than_there_are(world, model);
    let book = world.shared.book.lock().unwrap();
    book.sessions_keep_their_order();
    book.holders_are_not_interrupted();
}

/// PROMISE "single flight": callers at the same moment cost one dial and one connection, or none. So
/// many who gave up at once may each have begun a dial that connected nothing.
pub(crate) fn single_flight(begun: Dialled, foretold: &RangeInclusive<u64>, given_up: Option<u64>) {
    let Dialled { dials, connects } = begun;
    assert!(
        foretold.contains(&connects),
        "single flight: {connects} connections, not {foretold:?}"
    );
    assert!(dials >= connects, "single flight: {connects} connections in {dials} dials");
    if let Some(given_up) = given_up {
        assert!(
            dials <= connects + given_up,
            "single flight: {dials} dials, {connects} connections"
        );
    }
}

/// PROMISE "single flight", at every step: at most one dial to a peer may become its session, and
/// none while there is a session.
fn one_session_one_dial(seen: &Snapshot) {
    let ready = seen.sessions.iter().filter(|session| session.state == SessionState::Ready);
    let dials = seen.dials.iter().filter(|dial| dial.phase != DialPhase::Superseded);
    let mut taken = HashSet::new();
    for peer in ready.map(|session| session.peer).chain(dials.map(|dial| dial.peer)) {
        assert!(taken.insert(peer), "single flight: two sessions or dials to one peer: {seen:?}");
    }
}

/// PROMISE "single flight", in sum: a peer with one address is connected once for each dial.
fn no_more_connections_than_dials(world: &World, node: usize) {
    for peer in 0..NAMES {
        let dials = world.nodes[node].told.dials_to.get(&name(peer)).copied().unwrap_or_default();
        let connects = world.net.connects_between(name(node), name(peer));
        assert!(connects <= dials, "single flight: {connects} connections in {dials} dials");
    }
}

/// PROMISE "one outcome for all waiters": all callers of one dial get the same session or the same
/// error. What ends one caller's own wait for a lease is not the dial's outcome.
pub(crate) fn one_outcome(outcomes: &[Result<Grip, DialError>]) {
    let own = |error: &&DialError| {
        matches!(
            error.cause(),
            DialError::Deadline | DialError::Limit(noise_pool::error::Limit::Leases)
        )
    };
    let sessions = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok());
    let sessions: HashSet<_> = sessions.map(|grip| grip.lease().session_id()).collect();
    let errors = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    let errors: HashSet<_> = errors.filter(|e| !own(e)).map(|error| format!("{error:?}")).collect();
    let all = sessions.len() + errors.len();
    assert!(all <= 1, "one outcome: callers of one dial got {sessions:?} and {errors:?}");
}

/// PROMISE "limits hold at every step".
fn limits_hold(seen: &Snapshot, model: &Model, shut: bool) {
    let limits = seen.limits;
    let setup = &model.setup;
    assert_eq!(limits.sessions.limit, u64::from(setup.max_sessions));
    assert_eq!(limits.inbound.limit, u64::from(setup.max_inbound));
    // A pool that drains puts all its sessions there, and cuts none for want of room.
    let draining = if shut { LimitUse::default() } else { limits.draining };
    // Sessions that end hold what has come of them, up to a second bound.
    let mut ending = limits.inbox_bytes;
    ending.limit += limits.buffered_bytes.limit;
    for LimitUse { held, high_water, limit, .. } in [
        limits.sessions,
        limits.inbound,
        draining,
        limits.dials,
        limits.queued_dials,
        limits.pending_handshakes,
        limits.discarding,
        limits.buffered_bytes,
        ending,
    ] {
        assert!(held <= high_water && high_water <= limit, "limits: {limits:?}");
    }
    let count = |state: fn(SessionState) -> bool| {
        seen.sessions.iter().filter(|session| state(session.state)).count() as u64
    };
    // Not by the pool's own count alone.
    let ready = count(|state| state == SessionState::Ready);
    let dials =
        seen.dials.iter().filter(|d| !matches!(d.phase, DialPhase::Queued | DialPhase::Superseded));
    let dials = dials.count() as u64;
    assert!(ready <= u64::from(setup.max_sessions), "limits: {ready} sessions");
    assert!(dials <= u64::from(setup.max_concurrent_dials), "limits: {dials} dials under way");
    let draining = count(|state| state != SessionState::Ready);
    assert!(shut || draining <= u64::from(setup.max_draining), "limits: {draining} sessions drain");
    if let Some(max) = setup.max_leases {
        for session in &seen.sessions {
            let out = session.leases as usize;
            assert!(out <= usize::from(max), "limits: {out} leases of {session:?}");
        }
    }
}

/// PROMISE "limits hold at every step", by the leases in callers' hands; and PROMISE "exclusive never
/// interleaved": who has all leases is the only one who has any.
fn no_more_leases_than_there_are(world: &World, model: &Model) {
    let leases = world.shared.leases.lock().unwrap();
    let mut out: BTreeMap<_, (usize, bool)> = BTreeMap::new();
    for grip in leases.values() {
        let (count, exclusive) = out.entry((grip.node, grip.lease().session_id())).or_default();
        *count += 1;
        *exclusive |= grip.is_exclusive();
    }
    for ((_, session), (count, exclusive)) in out {
        let max = model.setup.max_leases.map_or(usize::MAX, usize::from);
        assert!(count <= max, "limits: {count} leases of {session} are out");
        assert!(!exclusive || count == 1, "exclusive: {count} leases of {session} are out");
    }
}

/// PROMISE "snapshot sums equal counters": what the snapshot lists, what the events told and what the
/// counters say is the same.
fn sums_equal_counters(node: &Node, seen: &Snapshot, shut: bool) {
    let (stats, told) = (seen.stats, &node.told);
    assert_eq!(node.pool.stats(), stats, "sums: a snapshot's counters are the counters");
    let live = seen.sessions.len() as u64;
    let closed = told.closed.len() as u64;
    assert_eq!((stats.opened, stats.closed), (told.opened, closed), "sums: opened and closed");
    assert_eq!(stats.opened, closed + live, "sums: who opened has closed or is listed");
    assert_eq!(stats.dials, told.dials, "sums: dials begun");
    assert_eq!(stats.dials_succeeded, told.dials_succeeded, "sums: dials that succeeded");
    let by_cause = dial_failures(stats.dial_failures);
    let failed = by_cause.iter().map(|(_, count)| count).sum::<u64>();
    for (cause, count) in by_cause {
        let told = told.dials_failed.get(&cause).copied().unwrap_or_default();
        assert_eq!(count, told, "sums: dials that failed, {cause:?}");
    }
    assert_eq!(
        stats.dials,
        stats.dials_succeeded + failed + seen.dials.len() as u64,
        "sums: a dial has succeeded, failed or is listed"
    );
    assert_eq!(stats.evicted, told.evicted, "sums: evicted");
    assert_eq!(stats.superseded, told.superseded, "sums: superseded");
    assert_eq!(stats.identity_conflicts, told.conflicts, "sums: conflicts");
    let (us, peer) = (stats.rejected_by_us, stats.rejected_by_peer);
    let sum = |r: noise_pool::snapshot::Rejections| {
        r.full + r.draining + r.refused + r.simultaneous + r.duplicate + r.other
    };
    // A pool that has ended tells nothing any more; a stream that its caller brought may still be
    // turned away.
    let untold = sum(us) - told.rejected_by_us;
    assert!(untold == 0 || shut, "sums: rejected by us");
    let untold = handshake_failures(stats.handshake_failures) - told.handshakes_failed;
    assert!(untold == 0 || shut, "sums: inbound handshakes that failed");
    let untold = stats.handshake_failures.shed - told.shed;
    assert!(untold == 0 || shut, "sums: inbound handshakes that were shed");
    assert_eq!(sum(peer), told.rejected_by_peer, "sums: rejected by the peer");

    let reports = told.reports();
    let messages_in: u64 = seen.sessions.iter().map(|session| session.messages_in).sum();
    assert_eq!(stats.messages_in, reports.received + messages_in, "sums: messages in");
    let expired: u64 = seen.sessions.iter().map(|session| session.expired).sum();
    assert_eq!(stats.messages_expired, reports.expired + expired, "sums: messages expired");
    // Of a session that has closed, the report does not say how many were handed to the socket: it is
    // at least those that arrived, and at most those that were accepted and did not expire.
    let messages_out: u64 = seen.sessions.iter().map(|session| session.messages_out).sum();
    let of_closed = stats.messages_out - messages_out;
    let max = reports.accepted - reports.expired;
    assert!((reports.delivered..=max).contains(&of_closed), "sums: {of_closed} out of {max}");

    let limits = seen.limits;
    let draining = seen.sessions.iter().filter(|session| session.state != SessionState::Ready);
    assert_eq!(limits.draining.held, draining.count() as u64, "sums: draining sessions");
    let of = |which: fn(DialPhase) -> bool| {
        seen.dials.iter().filter(|dial| which(dial.phase)).count() as u64
    };
    let turns = of(|phase| !matches!(phase, DialPhase::Queued | DialPhase::Superseded));
    assert!(turns <= limits.dials.held, "sums: a dial without its turn");
    let queued: u64 = seen.sessions.iter().map(|session| session.queue_bytes).sum();
    assert!(limits.buffered_bytes.held <= queued, "sums: bytes buffered beyond the queues");
}

fn dial_failures(count: DialFailures) -> [(DialFailure, u64); 16] {
    [
        (DialFailure::NoAddress, count.no_address),
        (DialFailure::Resolve, count.resolve),
        (DialFailure::Connect, count.connect),
        (DialFailure::NoAnswer, count.no_answer),
        (DialFailure::Handshake, count.handshake),
        (DialFailure::TimedOut, count.timed_out),
        (DialFailure::VerdictTimedOut, count.verdict_timed_out),
        (DialFailure::Rejected, count.rejected),
        (DialFailure::Refused, count.refused),
        (DialFailure::Cancelled, count.cancelled),
        (DialFailure::Disconnected, count.disconnected),
        (DialFailure::Superseded, count.superseded),
        (DialFailure::Limit, count.limit),
        (DialFailure::OwnIdentity, count.own_identity),
        (DialFailure::PoolClosed, count.pool_closed),
        (DialFailure::Panicked, count.panicked),
    ]
}

/// Those that were not turned away for want of room, nor before they had begun.
fn handshake_failures(count: HandshakeFailures) -> u64 {
    let HandshakeFailures { io, unverified, malformed, skewed, replayed, .. } = count;
    io + unverified + malformed + skewed + replayed + count.bad_key + count.timed_out
}

/// PROMISE "nothing left at rest": where all is known, a pool holds the sessions of the model and
/// nothing else: no slot, no room, no dial, no drain, no handshake.
fn nothing_left(node: &Node, seen: &Snapshot, model: &Model, number: usize) {
    let expected: BTreeMap<_, _> = model
        .sessions_of(number)
        .into_iter()
        .map(|(peer, session)| (name(peer), model.out(number, session).count()))
        .collect();
    let sessions: BTreeMap<_, _> =
        seen.sessions.iter().map(|s| (s.peer, s.leases as usize)).collect();
    assert_eq!(sessions, expected, "nothing left: the leases of each session, {seen:?}");
    assert!(seen.sessions.iter().all(|session| session.state == SessionState::Ready));
    assert_eq!(seen.sessions.len(), expected.len(), "nothing left: sessions");
    assert_eq!(slots(&node.pool), expected.len(), "nothing left: slots");
    let limits = seen.limits;
    assert_eq!(limits.sessions.held, expected.len() as u64, "nothing left: room");
    assert!(limits.inbound.held <= expected.len() as u64, "nothing left: inbound room");
    assert!(seen.dials.is_empty(), "nothing left: {:?}", seen.dials);
    for used in [
        limits.draining,
        limits.dials,
        limits.queued_dials,
        limits.buffered_bytes,
        limits.inbox_bytes,
    ] {
        assert_eq!(used.held, 0, "nothing left: {limits:?}");
    }
    if !model.may_have_strangers(number) {
        assert_eq!(limits.pending_handshakes.held, 0, "nothing left: handshakes");
        assert_eq!(limits.discarding.held, 0, "nothing left: strangers");
    }
}

/// What the pools told during a step.
pub(crate) fn heard(world: &mut World) {
    world.listen();
    let events = std::mem::take(&mut world.heard);
    let held = world.held();
    let held: HashSet<_> = world.held_before.intersection(&held).collect();
    for (node, event) in &events {
        match event {
            PoolEvent::Evicted { session, .. } => {
                leased_never_evicted(!held.contains(&(*node, *session)));
            }
            PoolEvent::Closed { session, reason, report, .. } => {
                adds_up(*report);
                let unused = !matches!(reason, CloseReason::Evicted | CloseReason::Idle);
                leased_never_evicted(unused || !held.contains(&(*node, *session)));
                // PROMISE "closing an old session never touches its successor": who is told that a
                // session is broken ends that one.
                assert!(
                    *reason != CloseReason::Discarded || world.discarded.contains(session),
                    "an old session's end touched {session}"
                );
                assert_ne!(*reason, CloseReason::Internal);
                if report.delivered == report.accepted + report.carried {
                    world.shared.book.lock().unwrap().exactly_once_if_confirmed(*session);
                }
            }
            _ => {}
        }
    }
}

/// PROMISE "leased sessions never evicted", nor ended for want of use.
fn leased_never_evicted(holds: bool) {
    assert!(holds, "a session was evicted or expired for want of use while a lease of it was out");
}

/// A report's parts are its whole.
pub(crate) fn adds_up(report: SessionReport) {
    let SessionReport { accepted, carried, delivered, unknown, unsent, expired, .. } = report;
    assert_eq!(accepted + carried, delivered + unknown + unsent + expired, "{report:?}");
}

/// PROMISE "closing an old session never touches its successor": the session that was there is there,
/// whatever has happened to its predecessors and to the handles that are left of them.
pub(crate) fn successors_are_untouched(world: &mut World, model: &Model) {
    for (ends, link) in &model.links {
        let Link::Up(number) = link else { continue };
        let ids = [(ends.0, ends.1), (ends.1, ends.0)].map(|(node, peer)| {
            let ready = world.nodes[node].ready_session(peer);
            let ready = ready.unwrap_or_else(|| panic!("the session of {ends:?} has gone"));
            let known = *world.known.entry((node, *number)).or_insert(ready);
            assert_eq!(ready, known, "the session of {ends:?} was replaced");
            (node, ready)
        });
        if world.accounts.insert(*number, ids).is_none() {
            // Both ends mean the same session.
            let pools = [(ends.0, ends.1), (ends.1, ends.0)];
            let leases = pools.map(|(node, peer)| world.nodes[node].pool.get(&name(peer)));
            if let [Some(one), Some(other)] = leases {
                assert_eq!(
                    one.handshake_hash(),
                    other.handshake_hash(),
                    "two sessions of {ends:?}"
                );
            }
        }
    }
}

/// PROMISE "exactly-once on graceful paths": where all is known, what each end of a session accepted
/// has come out at the other, all of it, once, in order; also when the session has ended meanwhile.
pub(crate) fn exactly_once_where_all_is_known(world: &mut World, model: &Model) {
    let book = world.shared.book.lock().unwrap();
    for (number, ends) in &world.accounts {
        let session = &model.sessions[number];
        if model.is_rough(session.ends.0, session.ends.1) {
            continue;
        }
        for (here, there) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            let accepted = book.accepted_on(here.1);
            if let Some(sent) = session.sent[session.end(here.0)] {
                assert_eq!(accepted.len() as u64, sent, "messages that were accepted, {session:?}");
            }
            assert_eq!(book.brought_by(there.1), accepted, "exactly once: {session:?}");
        }
    }
    drop(book);
    let up = |number: &SessionNo| model.links.values().any(|link| *link == Link::Up(*number));
    world.accounts.retain(|number, _| up(number));
}

/// After the end: the reports of all sessions are true of all messages.
pub(crate) fn reports_are_true(world: &World) {
    let book = world.shared.book.lock().unwrap();
    for number in 0..NODES {
        let total = world.nodes[number].told.reports();
        let (accepted, came) = book.accepted_by(number);
        assert_eq!(total.accepted, accepted, "what was accepted is reported");
        assert!(total.delivered <= came, "{} confirmed, {came} came", total.delivered);
        assert_eq!(total.received, book.came_to(number), "what came is reported");
    }
}
