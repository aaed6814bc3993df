//! An exhaustive test of the slot machine: two nodes, every interleaving.
//!
//! A breadth-first search drives the real [`Slot`](super::Slot), one per node, through the pool's
//! use of it ([`pool`]), and checks the invariants ([`world`]) in every state that can be reached.
//! Node 1 has the larger key. A connection delivers in order; connections are not ordered among
//! each other. Each planted fault ([`faults`]) must be found. Random walks go where there are too
//! many states to visit them all.
//!
//! A state is a value; what only compares by order (stamps, orders of arrival) is renumbered to its
//! rank, which merges states that no comparison can tell apart. Visited states are remembered by a
//! fingerprint of 128 bits. A violation comes with the shortest trace that leads to it.
//!
//! What the model takes for granted of a pool, beside the machine's own documentation:
//!
//! * Judging, installing and drawing the stamp of an accept happen under one lock; so do
//!   committing and drawing the stamp of message 3. A stamp is never used twice.
//! * A dial whose commit is refused closes its connections and tells the machine that it ended.
//! * A dial whose committed connection ends without a session reopens if it has waiters, even when
//!   it will not go on: a connection that is parked here gets the slot then. When nothing is parked
//!   any more, it goes on with another connection of its race if the committed one broke, connects
//!   anew if the peer named another connection, and gives up otherwise.
//! * A displaced session is drained, never cut; a draining end reads until the peer has drained.
//! * The slot may learn late that a session ended; it is told by id.
//! * Every end that waits on a dead connection times out in the end.
//!
//! * A message that a caller gives to a dial travels behind message 3, and is opened once the peer has
//!   accepted. The dial keeps it: refused, it goes out on the session that serves the caller, if there
//!   is one, and else back to the caller. Where the connection breaks, nobody knows.
//!
//! [`Wire::Unstamped`] walks the rule for claims without stamps. There a dial may be presumed
//! accepted at any time after message 3, the presumption may end at any time after that, and a
//! refusal says only that there is one. Its sessions carry no messages, and the promises are fewer:
//! a dead incarnation or a late dial may win for a moment, and a dial may be refused for a session
//! that is dead at its own end. What must hold is that the ends come to rest with one and the same
//! session, or with none if something broke or was closed, and that no dial with waiters fails
//! though nothing of it broke: to connect anew helps.
//!
//! `cargo test --release slot::model` visits 13 million states in half a minute of processor
//! time, `cargo test` smaller scenarios. The deep run takes minutes, and memory up to 6 GiB:
//!
//! ```text
//! cargo test --release slot::model -- --ignored --nocapture
//! ```
//!
//! Not modelled: more than two nodes, two processes with one key, limits (to the machine an
//! eviction is a close, and a lack of room a check that refuses), order across successive sessions
//! (not promised).

mod connection;
mod faults;
mod moves;
mod pool;
mod tests;
mod world;

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

use foldhash::quality::FixedState;

use faults::Fault;
use moves::{KINDS, Move};
use pool::Step;
use world::{Violation, World};

/// Bounded events; a scenario says how often each may happen in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A connection breaks, and both ends learn it.
    Break,
    /// A connection goes silent, and each end learns it by a timeout of its own.
    Blackhole,
    /// A session is closed at once.
    Cut,
    /// A verdict is awaited for too long.
    Timeout,
    /// A session is drained.
    Drain,
    /// A session is retired while leases are out.
    Retire,
    Disconnect,
    /// A check refuses the peer, before the commit or before the judgement.
    Refuse,
    /// A caller joins a dial.
    Join,
    /// A caller no longer waits.
    Leave,
    /// A node restarts with a new instance; its connections are reset, or go silent.
    Restart,
    /// No first frame came in time, and the accept is presumed; only on a wire without verdicts.
    Presume,
}

/// What both nodes speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    /// As the native one: a verdict decides a dial, and claims have stamps.
    Stamped,
    /// Neither verdicts nor stamps. The responder sends a first frame at once when it accepts, and
    /// nothing while it parks; a termination or the end of the stream refuses; a dial that gets
    /// neither is presumed accepted.
    Unstamped,
}

/// What may happen in one search.
#[derive(Clone, Debug)]
struct Scenario {
    wire: Wire,
    /// Dials of each node.
    dials: u8,
    /// Messages of each node.
    messages: u8,
    /// Addresses that one dial races.
    addresses: u8,
    /// How often one dial connects anew after the peer named another connection.
    redials: u8,
    max: [u8; KINDS],
    fault: Option<Fault>,
    /// Whether callers give messages to dials, to travel with message 3.
    first_messages: bool,
    /// Whether states that differ only in numbers compared by order are merged.
    renumber: bool,
}

impl Scenario {
    fn new(dials: u8, messages: u8) -> Self {
        Self {
            wire: Wire::Stamped,
            dials,
            messages,
            addresses: 1,
            redials: 1,
            max: [0; KINDS],
            fault: None,
            first_messages: false,
            renumber: true,
        }
    }

    /// Crossing dials on a wire without verdicts and stamps. No messages: such a wire does not
    /// promise that those on a connection that loses arrive.
    fn unstamped(dials: u8) -> Self {
        Self { wire: Wire::Unstamped, ..Self::new(dials, 0) }
    }

    fn with_first_messages(mut self) -> Self {
        self.first_messages = true;
        self
    }

    fn with(mut self, kind: Kind, max: u8) -> Self {
        self.max[kind as usize] = max;
        self
    }

    fn redials(mut self, redials: u8) -> Self {
        self.redials = redials;
        self
    }

    fn addresses(mut self, addresses: u8) -> Self {
        self.addresses = addresses;
        self
    }
}

/// Rows of the tables and other turns of the machine, counted so that none goes untested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    Vacant,
    AbortsDial,
    SupersedesDial,
    RetiresSession,
    Park,
    Simultaneous,
    Duplicate,
    Current,
    LateVacant,
    LateAbortsDial,
    LateSupersedesDial,
    LateRetiresSession,
    DrainCancelled,
    DrainStale,
    FalseCommit,
    CommitAgain,
    Reopen,
    Redial,
    LastWaiterStops,
    GoesOnAlone,
    StaleRemove,
}

const ROWS: [Row; 21] = [
    Row::Vacant,
    Row::AbortsDial,
    Row::SupersedesDial,
    Row::RetiresSession,
    Row::Park,
    Row::Simultaneous,
    Row::Duplicate,
    Row::Current,
    Row::LateVacant,
    Row::LateAbortsDial,
    Row::LateSupersedesDial,
    Row::LateRetiresSession,
    Row::DrainCancelled,
    Row::DrainStale,
    Row::FalseCommit,
    Row::CommitAgain,
    Row::Reopen,
    Row::Redial,
    Row::LastWaiterStops,
    Row::GoesOnAlone,
    Row::StaleRemove,
];

/// How often each row was taken.
#[derive(Clone, Debug, Default)]
struct Rows([u64; ROWS.len()]);

impl Rows {
    fn count(&mut self, row: Row) {
        self.0[row as usize] += 1;
    }

    /// The rows that were never taken.
    fn missing(&self) -> Vec<Row> {
        ROWS.into_iter().filter(|row| self.0[*row as usize] == 0).collect()
    }
}

/// A violation and the shortest way to it.
struct Finding {
    violation: Violation,
    trace: Vec<(Move, World)>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.violation)?;
        for (event, world) in &self.trace {
            writeln!(f, "  {event:?}")?;
            for (side, node) in world.nodes.iter().enumerate() {
                writeln!(f, "      {side}: {:?}", node.slot)?;
            }
            for c in &world.connections {
                let [a, b] = c.ends.map(|end| end.stage);
                let fate = if c.broken { " broken" } else { "" };
                let [to_a, to_b] = &c.wire;
                writeln!(f, "      {:?}{fate} {a:?} {to_a:?} {b:?} {to_b:?}", c.id)?;
            }
        }
        Ok(())
    }
}

/// What a search found.
#[derive(Default)]
struct Report {
    states: usize,
    /// Moves on the longest of the shortest ways to a state.
    depth: usize,
    /// States in which nothing is under way.
    rests: usize,
    rows: Rows,
    finding: Option<Finding>,
    /// The search ended because it had visited as many states as it may.
    cut_short: bool,
}

/// Visited states, by the fingerprint of all that they consist of.
#[derive(Default)]
struct Seen {
    fingerprints: HashSet<u128, BuildHasherDefault<Low>>,
    bytes: Bytes,
}

impl Seen {
    /// False: the state was there already.
    fn insert(&mut self, world: &World) -> bool {
        self.bytes.0.clear();
        world.hash(&mut self.bytes);
        let half = |seed| u128::from(FixedState::with_seed(seed).hash_one(&self.bytes.0[..]));
        let fingerprint = half(1) << 64 | half(2);
        self.fingerprints.insert(fingerprint)
    }
}

/// Writes a value down instead of hashing it.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("the bytes themselves are wanted");
    }
}

/// The low half of a fingerprint, which is as good as random.
#[derive(Default)]
struct Low(u64);

impl Hasher for Low {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are hashed");
    }

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Visits every state of the scenario, nearest first, until one breaks a promise.
fn search(scenario: &Scenario, max_states: usize) -> Report {
    let mut seen = Seen::default();
    // By the order of visits: whence a state was reached first, and how.
    let mut origins: Vec<(u32, Option<Move>)> = Vec::new();
    let mut report = Report::default();
    let mut start = World::new();
    start.settle(scenario);
    seen.insert(&start);
    origins.push((0, None));
    let mut layer = vec![(0_u32, start)];
    let mut possible = Vec::new();
    'layers: loop {
        let mut next = Vec::new();
        for (index, world) in layer.drain(..) {
            moves::moves(&world, scenario, &mut possible);
            if !possible.iter().any(|event| event.is_progress()) {
                report.rests += 1;
                if let Some(violation) = world.check_rest() {
                    report.finding = Some(retrace(scenario, &way_to(&origins, index), violation));
                    break 'layers;
                }
            }
            for &event in &possible {
                let mut after = world.clone();
                Step { world: &mut after, scenario, rows: &mut report.rows }.make(event);
                if !seen.insert(&after) {
                    continue;
                }
                let reached = origins.len() as u32;
                origins.push((index, Some(event)));
                if let Some(violation) = after.check_always() {
                    report.finding = Some(retrace(scenario, &way_to(&origins, reached), violation));
                    break 'layers;
                }
                next.push((reached, after));
            }
            if origins.len() >= max_states {
                report.cut_short = true;
                break 'layers;
            }
        }
        if next.is_empty() {
            break;
        }
        report.depth += 1;
        layer = next;
    }
    report.states = origins.len();
    report
}

/// Walks at random from the start to a rest, again and again: where there are too many states to
/// visit them all. The same seed gives the same walks.
fn wander(scenario: &Scenario, seed: u64, walks: u32) -> Report {
    let mut report = Report::default();
    let mut random = seed;
    let mut possible = Vec::new();
    for _ in 0..walks {
        let mut world = World::new();
        world.settle(scenario);
        let mut events = Vec::new();
        let violation = loop {
            moves::moves(&world, scenario, &mut possible);
            if !possible.iter().any(|event| event.is_progress()) {
                report.rests += 1;
                if let Some(violation) = world.check_rest() {
                    break Some(violation);
                }
            }
            if possible.is_empty() {
                break None;
            }
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let choice = FixedState::with_seed(3).hash_one(random) % possible.len() as u64;
            let event = possible[choice as usize];
            Step { world: &mut world, scenario, rows: &mut report.rows }.make(event);
            events.push(event);
            report.states += 1;
            if let Some(violation) = world.check_always() {
                break Some(violation);
            }
        };
        report.depth = report.depth.max(events.len());
        if let Some(violation) = violation {
            report.finding = Some(retrace(scenario, &events, violation));
            break;
        }
    }
    report
}

/// The moves that first led to a state.
fn way_to(origins: &[(u32, Option<Move>)], mut index: u32) -> Vec<Move> {
    let mut events = Vec::new();
    while let (before, Some(event)) = origins[index as usize] {
        events.push(event);
        index = before;
    }
    events.reverse();
    events
}

/// Makes the moves again, and writes down what they led to.
fn retrace(scenario: &Scenario, events: &[Move], violation: Violation) -> Finding {
    let mut world = World::new();
    world.settle(scenario);
    let mut trace = Vec::new();
    for &event in events {
        let rows = &mut Rows::default();
        Step { world: &mut world, scenario, rows }.make(event);
        trace.push((event, world.clone()));
    }
    Finding { violation, trace }
}
