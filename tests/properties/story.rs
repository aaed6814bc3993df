//! What a test case is made of: how the pools are set up, and the steps that are played on them.
//!
//! Owns the choice of steps: which are possible after those before, and how often each is drawn. A case
//! reads as a story, and shrinks to a shorter one. `Machine<false>` draws from smooth networks and
//! well-behaved applications alone, `Machine<true>` from everything.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;
use proptest_state_machine::ReferenceStateMachine;

use super::model::{Denial, LeaseNo, Link, MAX_MESSAGE, Model, NAMES, NODES, Standing};
use super::support::net::{Fate, Plan};

/// How all pools of a case are configured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) max_sessions: u8,
    pub(crate) max_inbound: u8,
    pub(crate) max_leases: Option<u8>,
    /// Whether callers wait when leases or room are out.
    pub(crate) waits: bool,
    pub(crate) max_concurrent_dials: u8,
    pub(crate) max_queued_dials: u8,
    pub(crate) max_pending_handshakes: u8,
    pub(crate) max_discarding: u8,
    pub(crate) max_draining: u8,
    /// Queues and inbox hold a few messages only.
    pub(crate) small_queues: bool,
    /// Sessions expire for want of use.
    pub(crate) idles: bool,
    /// Sessions expire for age.
    pub(crate) ages: bool,
    /// Keys change after every few messages.
    pub(crate) rekeys: bool,
}

impl Setup {
    /// Whether what one pair of pools does can take room from another.
    pub(crate) fn is_tight(&self) -> bool {
        usize::from(self.max_sessions) < NAMES
    }

    /// What a caller gets who finds all leases out.
    pub(crate) fn without_lease(&self) -> Denial {
        if self.waits { Denial::Deadline } else { Denial::Leases }
    }

    /// What a caller gets who finds no room for a dial.
    pub(crate) fn without_room(&self) -> Denial {
        if self.waits { Denial::Deadline } else { Denial::Sessions }
    }

    fn any() -> impl Strategy<Value = Self> {
        let switches = any::<[bool; 5]>();
        let leases = prop::option::of(1..4_u8);
        let ample = Just((8, 6, 16, 64, 64, 16, 64));
        let tight = (1..4_u8, 1..4_u8, 1..3_u8, 0..3_u8, 1..3_u8, 0..2_u8, 1..4_u8);
        (prop_oneof![ample.boxed(), tight.boxed()], leases, switches).prop_map(
            |(room, max_leases, [waits, small_queues, idles, ages, rekeys])| Self {
                max_sessions: room.0,
                max_inbound: room.1.min(room.0),
                max_leases,
                waits,
                max_concurrent_dials: room.2,
                max_queued_dials: room.3,
                max_pending_handshakes: room.4,
                max_discarding: room.5,
                max_draining: room.6,
                small_queues,
                idles,
                ages,
                rekeys,
            },
        )
    }
}

/// What a pool's application says of a peer when it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Answer {
    #[default]
    Yes,
    No,
    /// It never answers.
    Hangs,
    Panics,
}

/// One step of a story.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// So many callers want a session at the same moment. Others who do are dropped after they have
    /// been polled so often.
    Call {
        from: usize,
        to: usize,
        callers: u8,
        quitters: Vec<u8>,
    },
    /// So many callers at both ends want a session at the same moment.
    Cross {
        one: usize,
        other: usize,
        callers: u8,
    },
    /// A caller wants all leases of a session.
    Exclusive {
        from: usize,
        to: usize,
    },
    /// Messages on a lease, one after another; the tasks of the pools may run in between.
    Send {
        lease: LeaseNo,
        count: u8,
        length: u16,
        pauses: bool,
    },
    /// Messages to a peer.
    SendTo {
        from: usize,
        to: usize,
        count: u8,
        length: u16,
    },
    /// The holder of an exclusive lease sends while others want to, and then returns it.
    Contend {
        lease: LeaseNo,
        words: u8,
        rivals: u8,
    },
    /// A lease goes back, just after the peer's last words to its holder have come, perhaps unread.
    Return {
        lease: LeaseNo,
        words: u8,
    },
    /// A lease's session is said to be broken.
    Discard {
        lease: LeaseNo,
    },
    /// A lease's session is flushed and pinged.
    Probe {
        lease: LeaseNo,
    },
    Disconnect {
        node: usize,
        peer: usize,
        now: bool,
        refuse: bool,
    },
    /// A session drains, held up by its leases, and meanwhile a caller wants another.
    Replace {
        node: usize,
        peer: usize,
    },
    /// A drain of one peer, just after messages in both directions were accepted.
    DrainPeer {
        node: usize,
        peer: usize,
        words: u8,
        answers: u8,
    },
    /// A drain of all, just after messages to each peer were accepted.
    DrainPool {
        node: usize,
        words: u8,
    },
    ClosePool {
        node: usize,
    },
    /// Less time than anything takes to expire.
    Wait {
        ms: u16,
    },
    /// More time than anything takes to expire.
    WaitLong,
    /// What the next connection meets.
    Plan {
        from: usize,
        to: usize,
        plan: Plan,
    },
    /// What a pool's application says of a peer from now on.
    Checks {
        node: usize,
        peer: usize,
        answer: Answer,
    },
    /// A pool is to keep a peer.
    Keep {
        node: usize,
        peer: usize,
    },
    /// Somebody connects, says this, and then nothing.
    Stranger {
        node: usize,
        bytes: Vec<u8>,
    },
    /// Network and applications behave again; sessions between two pools are ended, and given time.
    Mend {
        one: usize,
        other: usize,
    },
}

impl Step {
    /// At most so many seconds pass in it, unless it waits for expiry.
    pub(crate) fn takes(&self) -> u64 {
        match self {
            Self::Call { .. } | Self::Cross { .. } | Self::Exclusive { .. } => 10,
            // Each message may wait as long as its caller does, and one until a session that has taken
            // all that may be queued is given up.
            Self::SendTo { .. } => LONGEST,
            Self::Contend { .. } | Self::Replace { .. } => 15,
            // On a stream that has stalled it lasts until the session is given up.
            Self::Probe { .. } => LONGEST,
            Self::DrainPeer { .. } | Self::DrainPool { .. } => 20,
            Self::Mend { .. } => 60,
            _ => 1,
        }
    }
}

/// More than `stall_timeout`, and more than any other step takes.
const LONGEST: u64 = 200;

fn plan() -> impl Strategy<Value = Plan> {
    let at = 0..1500_u16;
    let fate = prop_oneof![
        3 => Just(Fate::Passes),
        1 => Just(Fate::Refused),
        1 => Just(Fate::Hangs),
        1 => Just(Fate::Panics),
        1 => Just(Fate::Elsewhere),
        3 => at.clone().prop_map(Fate::BreaksAt),
        3 => at.clone().prop_map(Fate::StallsAt),
        3 => at.prop_map(Fate::FlipsAt),
    ];
    let pace = prop_oneof![3 => Just((u16::MAX, 0)), 1 => Just((7, 0)), 1 => Just((40, 40)), 1 => Just((u16::MAX, 200))];
    (fate, pace, any::<bool>()).prop_map(|(fate, (piece, delay_ms), to_responder)| Plan {
        fate,
        piece,
        delay_ms,
        to_responder,
    })
}

/// Two different pools.
fn two() -> impl Strategy<Value = (usize, usize)> {
    (0..NODES, 1..NODES).prop_map(|(one, more)| (one, (one + more) % NODES))
}

fn length() -> impl Strategy<Value = u16> {
    prop_oneof![8 => 0..1500_u16, 1 => 1500..=MAX_MESSAGE, 1 => MAX_MESSAGE + 1..MAX_MESSAGE + 3]
}

/// The state machine from which stories are drawn.
#[derive(Debug)]
pub(crate) struct Machine<const ROUGH: bool>;

impl<const ROUGH: bool> ReferenceStateMachine for Machine<ROUGH> {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        Setup::any().prop_map(Model::new).boxed()
    }

    fn transitions(model: &Model) -> BoxedStrategy<Step> {
        if !model.has_time(LONGEST) {
            return Just(Step::WaitLong).boxed();
        }
        let mut steps: Vec<(u32, BoxedStrategy<Step>)> = calls();
        let leases: Vec<LeaseNo> = model.leases.keys().copied().collect();
        if !leases.is_empty() {
            steps.extend(on_leases(select(leases)));
        }
        let exclusive = model.leases.iter().filter(|(_, held)| held.exclusive);
        let exclusive: Vec<LeaseNo> = exclusive.map(|(lease, _)| *lease).collect();
        if !exclusive.is_empty() {
            let contend = (select(exclusive), 1..6_u8, 0..4_u8)
                .prop_map(|(lease, words, rivals)| Step::Contend { lease, words, rivals });
            steps.push((6, contend.boxed()));
        }
        let ways = (0..NODES).flat_map(|node| (0..NODES).map(move |peer| (node, peer)));
        let held: Vec<_> = ways.filter(|way| model.can_replace(way.0, way.1)).collect();
        if !held.is_empty() {
            let replace = select(held).prop_map(|(node, peer)| Step::Replace { node, peer });
            steps.push((5, replace.boxed()));
        }
        steps.extend(ends());
        if ROUGH {
            steps.extend(troubles());
        }
        let troubled = model.links.keys().copied().filter(|ends| model.is_troubled(ends.0, ends.1));
        let troubled: Vec<_> = troubled.collect();
        if !troubled.is_empty() {
            let mend = select(troubled).prop_map(|(one, other)| Step::Mend { one, other });
            // Without trouble by design, whatever could not be foretold is to be known again soon.
            steps.push((if ROUGH { 3 } else { 12 }, mend.boxed()));
        }
        Union::new_weighted(steps).boxed()
    }

    fn preconditions(model: &Model, step: &Step) -> bool {
        if !matches!(step, Step::WaitLong) && !model.has_time(step.takes()) {
            return false;
        }
        let shut = |node: usize| model.closed.get(node) == Some(&true);
        match step {
            // A quitter that is quick may hold one of few leases when others look, or its dial,
            // which is being stopped, may hold one of few turns.
            Step::Call { quitters, .. } => {
                let turns = usize::from(model.setup.max_queued_dials);
                quitters.is_empty() || (model.setup.max_leases.is_none() && quitters.len() <= turns)
            }
            Step::Cross { one, other, .. } => {
                !shut(*one) && !shut(*other) && !matches!(model.link(*one, *other), Link::Up(_))
            }
            Step::Send { lease, .. } | Step::Return { lease, .. } | Step::Probe { lease } => {
                model.leases.contains_key(lease)
            }
            Step::Discard { lease } => model.leases.get(lease).is_some_and(|held| !held.exclusive),
            // The rivals of one whose session has ended have nobody to contend with.
            Step::Contend { lease, .. } => {
                let held = model.leases.get(lease);
                held.is_some_and(|held| held.exclusive) && model.standing(*lease) != Standing::Stale
            }
            // Something must be left to talk to.
            Step::DrainPool { node, .. } | Step::ClosePool { node } => {
                !shut(*node) && model.closed.iter().filter(|shut| **shut).count() < NODES - 2
            }
            Step::Replace { node, peer } => model.can_replace(*node, *peer),
            Step::Mend { one, other } => model.is_troubled(*one, *other),
            Step::Exclusive { .. }
            | Step::SendTo { .. }
            | Step::Disconnect { .. }
            | Step::DrainPeer { .. }
            | Step::Wait { .. }
            | Step::WaitLong
            | Step::Plan { .. }
            | Step::Checks { .. }
            | Step::Keep { .. }
            | Step::Stranger { .. } => true,
        }
    }

    fn apply(mut model: Model, step: &Step) -> Model {
        model.play(step);
        model
    }
}

type Weighted = Vec<(u32, BoxedStrategy<Step>)>;

/// Steps that want a session.
fn calls() -> Weighted {
    let to_peer = || (two(), 1..5_u8);
    let anybody = || (0..NODES, 0..NAMES);
    let call = (to_peer(), vec(0..12_u8, 0..3))
        .prop_map(|(((from, to), callers), quitters)| Step::Call { from, to, callers, quitters });
    let call_anybody = (anybody(), 1..5_u8).prop_map(|((from, to), callers)| Step::Call {
        from,
        to,
        callers,
        quitters: Vec::new(),
    });
    let cross = to_peer().prop_map(|((one, other), callers)| Step::Cross { one, other, callers });
    let exclusive = two().prop_map(|(from, to)| Step::Exclusive { from, to });
    let send_to = (two(), 1..6_u8, length()).prop_map(|((from, to), count, length)| Step::SendTo {
        from,
        to,
        count,
        length,
    });
    vec![
        (10, call.boxed()),
        (2, call_anybody.boxed()),
        (4, cross.boxed()),
        (5, exclusive.boxed()),
        (5, send_to.boxed()),
    ]
}

/// Steps on leases that callers have.
fn on_leases(lease: impl Strategy<Value = LeaseNo> + Clone + 'static) -> Weighted {
    let send = (lease.clone(), 1..10_u8, length(), any::<bool>())
        .prop_map(|(lease, count, length, pauses)| Step::Send { lease, count, length, pauses });
    let back = (lease.clone(), 0..4_u8).prop_map(|(lease, words)| Step::Return { lease, words });
    vec![
        (12, send.boxed()),
        (8, back.boxed()),
        (3, lease.clone().prop_map(|lease| Step::Discard { lease }).boxed()),
        (2, lease.prop_map(|lease| Step::Probe { lease }).boxed()),
    ]
}

/// Steps that end sessions, or let them end.
fn ends() -> Weighted {
    let disconnect = (two(), any::<bool>(), prop::bool::weighted(0.2))
        .prop_map(|((node, peer), now, refuse)| Step::Disconnect { node, peer, now, refuse });
    let drain_peer = (two(), 0..6_u8, 0..6_u8)
        .prop_map(|((node, peer), words, answers)| Step::DrainPeer { node, peer, words, answers });
    let drain_pool = (0..NODES, 0..6_u8).prop_map(|(node, words)| Step::DrainPool { node, words });
    vec![
        (3, disconnect.boxed()),
        (3, drain_peer.boxed()),
        (1, drain_pool.boxed()),
        (1, (0..NODES).prop_map(|node| Step::ClosePool { node }).boxed()),
        (2, (1..1000_u16).prop_map(|ms| Step::Wait { ms }).boxed()),
        (1, Just(Step::WaitLong).boxed()),
    ]
}

/// Steps after which chance decides.
fn troubles() -> Weighted {
    let plan = (two(), plan()).prop_map(|((from, to), plan)| Step::Plan { from, to, plan });
    let answer = select(vec![Answer::Yes, Answer::No, Answer::Hangs, Answer::Panics]);
    let checks =
        (two(), answer).prop_map(|((node, peer), answer)| Step::Checks { node, peer, answer });
    let keep = two().prop_map(|(node, peer)| Step::Keep { node, peer });
    let stranger = (0..NODES, vec(any::<u8>(), 0..80))
        .prop_map(|(node, bytes)| Step::Stranger { node, bytes });
    vec![(12, plan.boxed()), (2, checks.boxed()), (2, keep.boxed()), (2, stranger.boxed())]
}
