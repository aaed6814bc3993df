//! The pool's races, walked by loom: the real pool over the locks of [`crate::base::sync`].
//!
//! Owns the models, one per race. Nothing is copied: callers, verdicts, inbound connections,
//! eviction and the pool's end are the pool's own methods, called from threads of loom. The tasks
//! that the pool spawns never run, for no runtime is driven; the models call what these tasks would.
//! `LOOM_MAX_PREEMPTIONS` walks deeper than [`PREEMPTIONS`].

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::FutureExt as _;
use loom::sync::Condvar;
use loom::thread::{self, JoinHandle};
use tokio::time::Duration;

use crate::base::config::Config;
use crate::base::error::{DialError, RejectReason};
use crate::base::id::PeerId;
use crate::base::identity::Identity;
use crate::base::suite::Suite;
use crate::base::sync::{Mutex, SetOnce, lock};
use crate::base::timer::Timer;
use crate::pool::acquire::{DialWaiter, Heed, Lookup};
use crate::pool::dial::{Dial, DialSlot, DialTask, Settled, StreamSource};
use crate::pool::inbound::DriverTask;
use crate::pool::limits::Evict;
use crate::pool::target::Target;
use crate::pool::{Pool, shutdown};
use crate::proto::HandshakeRole;
use crate::proto::backoff::Outcome;
use crate::proto::dial_policy::{Failed, Reopened};
use crate::proto::native::connection::NativeConnection;
use crate::proto::native::handshake::Finished;
use crate::proto::slot::{Claim, View};
use crate::session::{Availability, Lease, LeaseHandle};
use crate::transport::seam::{Accepted, Established};
use crate::transport::{AnyProposed, AnyTransport};
use crate::verify::pair::{params, transports};

/// How often a thread is interrupted where it could go on. Nearly all races show with two.
const PREEMPTIONS: usize = 3;
/// Steps of one run; the runs end by themselves long before.
const BRANCHES: usize = 20_000;
/// Machine words; loom's own stacks are too small for a pool.
const STACK: usize = 1 << 17;

const OURS: [u8; 32] = [1; 32];

/// Walks the interleavings of a model.
fn explore(model: fn(&Pool)) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
    builder.max_branches = BRANCHES;
    let ours = Identity::from_secret(OURS);
    builder.check(move || {
        let ours = ours.clone();
        let run = move || {
            // Tasks are spawned here and dropped with it.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let runtime = runtime.unwrap();
            let entered = runtime.enter();
            let (pool, inbox) = Pool::builder(ours).config(Config::default()).build().unwrap();
            model(&pool);
            drop((pool, inbox, entered));
        };
        thread::Builder::new().stack_size(STACK).spawn(run).unwrap().join().unwrap();
    });
}

fn spawn<R: Send + 'static>(
    pool: &Pool,
    work: impl FnOnce(Pool) -> R + Send + 'static,
) -> JoinHandle<R> {
    let pool = pool.clone();
    thread::Builder::new().stack_size(STACK).spawn(move || work(pool)).unwrap()
}

/// Rung by a waker.
struct Bell(Mutex<bool>, Condvar);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *lock(&self.0) = true;
        self.1.notify_one();
    }
}

/// Runs a future on a thread of loom, which finds out if it is never woken.
fn block_on<F: Future>(work: F) -> F::Output {
    let bell = Arc::new(Bell(Mutex::new(false), Condvar::new()));
    let waker = Waker::from(bell.clone());
    let mut work = pin!(work);
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done;
        }
        let mut rung = lock(&bell.0);
        while !*rung {
            rung = bell.1.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// A peer whose key is larger than ours, or smaller.
fn peer(larger: bool) -> PeerId {
    let ours = Identity::from_secret(OURS).peer_id();
    let mut keys = (2..).map(|n| Identity::from_secret([n; 32]).peer_id());
    keys.find(|key| (*key > ours) == larger).unwrap()
}

/// The peer's first connection, and later ones.
fn claim(n: u64) -> Claim {
    Claim::stamped(9, n, n)
}

fn finished(role: HandshakeRole) -> Finished {
    let (initiator, responder) = transports(Suite::default());
    let transport = if role == HandshakeRole::Initiator { initiator } else { responder };
    Finished { transport, handshake_hash: [0; 32] }
}

fn established() -> Established {
    let role = HandshakeRole::Initiator;
    Established {
        stream: Box::new(tokio::io::duplex(1).0),
        timer: Timer::default(),
        connection: NativeConnection::new(finished(role).transport, params(role)).into(),
        leftover: Vec::new(),
        handshake_hash: [0; 32],
        peer_max_message: 1 << 20,
    }
}

/// A caller's dial, up to the point where its task would run, and what the caller waits for.
fn begin(pool: &Pool, peer: PeerId) -> (Arc<Dial>, Arc<SetOnce<Settled>>, DialSlot) {
    match pool.state().acquirer.enter(&Target::new(peer), Heed::Failures).unwrap() {
        Lookup::Begun(DialWaiter { dial, outcome }, place) => (dial, outcome, place),
        _ => panic!("the slot was vacant"),
    }
}

fn task(pool: &Pool, dial: &Arc<Dial>) -> DialTask {
    pool.state().dialer.task(dial.clone())
}

fn accept(pool: &Pool, dial: &Arc<Dial>, claim: Claim) {
    let accepted = Accepted {
        established: Box::new(established()),
        claim,
        observed: String::new(),
        application_payload: Bytes::new(),
    };
    let driver = task(pool, dial).accepted(accepted, None, 0);
    pool.state().lifecycle.spawn_session(driver);
}

/// A session in its slot, brought by a dial of ours that nobody waits for any more.
fn install(pool: &Pool, peer: PeerId) -> Arc<crate::session::Session> {
    let (dial, _outcome, _place) = begin(pool, peer);
    assert!(task(&pool, &dial).stamp_of_commit().is_some());
    accept(pool, &dial, claim(1));
    at_rest(pool, peer).unwrap().session().clone()
}

/// The peer's `n`th connection has authenticated.
fn inbound(pool: &Pool, peer: PeerId, n: u64) -> Result<LeaseHandle, RejectReason> {
    let responder = &pool.state().responder;
    let permit = responder.enter().unwrap();
    let AnyTransport::Native(native) = &pool.state().transport else {
        panic!("a pool speaks the native wire")
    };
    let proposed = native.modelled(finished(HandshakeRole::Responder), peer, n);
    let began = tokio::time::Instant::now();
    let decider = responder.decider(None, began, permit, DriverTask::Own);
    let decided = block_on(decider.decide(AnyProposed::Native(proposed)));
    decided.map(|accepted| accepted.leases)
}

fn obtain(pool: &Pool, peer: PeerId) -> Result<Lease, DialError> {
    let target = Target::new(peer);
    let source = StreamSource::Connector(None);
    block_on(pool.state().acquirer.lease(target, source))
}

/// The session in the peer's slot, if any; a slot without one is vacant.
fn at_rest(pool: &Pool, peer: PeerId) -> Option<LeaseHandle> {
    let held = pool.state().sessions.slots.read(&peer, |slot| {
        assert_eq!(slot.superseded().len(), 0, "a verdict came, and its dial is still listed");
        assert!(!matches!(slot.view(), View::Dialing { .. }), "a dial is over and in its slot");
        slot.session().map(|pooled| LeaseHandle::clone(&pooled.leases))
    })?;
    assert!(held.is_some(), "a vacant slot has an entry");
    held
}

/// A committed or aborted dial meets an inbound connection of its peer: one session stands at the
/// end, and the waiter has it or the one that it replaced.
fn commit_against_inbound(pool: &Pool, larger: bool) {
    let peer = peer(larger);
    let (dial, outcome, _place) = begin(pool, peer);
    let task = {
        let dial = dial.clone();
        spawn(pool, move |pool| {
            let committed = task(&pool, &dial).stamp_of_commit().is_some();
            match committed {
                true => accept(&pool, &dial, claim(2)),
                false => task(&pool, &dial).displaced(),
            }
            committed
        })
    };
    let accepted = spawn(pool, move |pool| inbound(&pool, peer, 1));
    let got = block_on(outcome.wait()).clone().expect("nothing broke");
    let committed = task.join().unwrap();
    let accepted = accepted.join().unwrap();

    assert_eq!(committed, !dial.stop.is_aborted(), "aborted, or committed, not both");
    assert!(committed || accepted.is_ok(), "nobody has won");
    let stands = at_rest(pool, peer).expect("one of them stands");
    assert_eq!(stands.session().availability(), Availability::Ready);
    if !committed {
        assert!(LeaseHandle::ptr_eq(&stands, accepted.as_ref().unwrap()));
    }
    match &accepted {
        Ok(core) if !LeaseHandle::ptr_eq(core, &stands) => {
            assert_eq!(core.session().availability(), Availability::Retired)
        }
        _ => {}
    }
    let ours = LeaseHandle::ptr_eq(&got, &stands);
    assert!(
        ours || got.session().availability() == Availability::Retired,
        "the waiter has a session of its own"
    );
    let session = stands.session().clone();
    drop((outcome, got, stands, accepted));
    assert_eq!(session.leases_out(), 0, "a dial that is over is still a user of the session");
    assert_eq!(pool.state().capacity.held().0.held, 1, "the room of whatever lost is back");
}

#[test]
fn loom_commit_against_inbound_abort_of_the_larger_key() {
    explore(|pool| commit_against_inbound(pool, true));
}

#[test]
fn loom_commit_against_inbound_abort_of_the_smaller_key() {
    explore(|pool| commit_against_inbound(pool, false));
}

/// A parked connection is judged again when the dial that parked it comes to nothing, and serves
/// its waiters.
#[test]
fn loom_a_parked_connection_takes_the_slot_of_a_lost_dial() {
    explore(|pool| {
        let peer = peer(false);
        let (dial, outcome, _place) = begin(pool, peer);
        assert!(task(&pool, &dial).stamp_of_commit().is_some());
        let accepted = spawn(pool, move |pool| inbound(&pool, peer, 1));
        let reopened = task(pool, &dial).reopen() != Reopened::No;
        assert!(reopened || dial.outcome.settled().is_some());
        let got = block_on(outcome.wait()).clone().expect("the inbound session is the waiter's");
        let core = accepted.join().unwrap().expect("nothing stood against it");
        assert!(LeaseHandle::ptr_eq(&got, &core));
        assert!(LeaseHandle::ptr_eq(&got, &at_rest(pool, peer).unwrap()));
    });
}

/// Callers come while a dial's outcome is published: each gets it, or what followed from it.
#[test]
fn loom_publish_against_subscribe() {
    explore(|pool| {
        let peer = peer(true);
        let (dial, outcome, _place) = begin(pool, peer);
        assert!(task(&pool, &dial).stamp_of_commit().is_some());
        let caller = spawn(pool, move |pool| obtain(&pool, peer).map(|lease| lease.session_id()));
        let task = {
            let dial = dial.clone();
            spawn(pool, move |pool| accept(&pool, &dial, claim(1)))
        };
        let first = block_on(outcome.wait()).clone().unwrap().session().id();
        let stands = at_rest(pool, peer).expect("first the map, then the waiters");
        assert_eq!(stands.session().id(), first);
        drop(stands);
        assert_eq!(caller.join().unwrap().unwrap(), first);
        task.join().unwrap();
    });
}

/// As above, with a failure: a latecomer hears of it too, and does not dial again.
#[test]
fn loom_publish_of_a_failure_against_subscribe() {
    explore(|pool| {
        let peer = peer(true);
        let (dial, outcome, _place) = begin(pool, peer);
        let caller = spawn(pool, move |pool| obtain(&pool, peer).map(drop));
        let task = {
            let dial = dial.clone();
            spawn(pool, move |pool| {
                task(&pool, &dial).failed(Failed {
                    error: DialError::TimedOut,
                    outcome: Some(Outcome::Unreachable),
                });
            })
        };
        assert!(matches!(block_on(outcome.wait()).clone(), Err(DialError::Backoff { .. })));
        assert_eq!(pool.state().sessions.slots.len(), 0, "first the map, then the waiters");
        assert!(matches!(caller.join().unwrap(), Err(DialError::Backoff { .. })));
        task.join().unwrap();
    });
}

/// The pool closes while a session is installed and another caller asks: nothing survives the sweep,
/// and every caller has one outcome.
#[test]
fn loom_close_against_install_against_get() {
    explore(|pool| {
        let peer = peer(true);
        let (dial, outcome, _place) = begin(pool, peer);
        assert!(task(&pool, &dial).stamp_of_commit().is_some());
        let task = {
            let dial = dial.clone();
            spawn(pool, move |pool| accept(&pool, &dial, claim(1)))
        };
        let caller = spawn(pool, move |pool| obtain(&pool, peer));
        shutdown::shut_down(pool.state());
        let first = block_on(outcome.wait()).clone();
        let second = caller.join().unwrap();
        task.join().unwrap();
        assert_eq!(pool.state().sessions.slots.len(), 0, "something survived the sweep");
        if let Ok(core) = &first {
            assert_eq!(core.session().availability(), Availability::Retired);
        }
        match second {
            Ok(lease) => assert!(lease.is_retired()),
            Err(error) => {
                let closed = matches!(error, DialError::PoolClosed | DialError::SessionEnded(_));
                assert!(closed, "{error}");
            }
        }
        drop(first);
        assert_eq!(pool.state().capacity.held().0.held, 0, "room was lost");
    });
}

/// The pool drains while an inbound connection is installed in the slot of a dial.
#[test]
fn loom_shutdown_against_install() {
    explore(|pool| {
        let peer = peer(true);
        let (dial, outcome, _place) = begin(pool, peer);
        let accepted = spawn(pool, move |pool| inbound(&pool, peer, 1));
        // Up to where it waits for what has been swept.
        assert!(pool.drain(Duration::from_secs(1)).now_or_never().is_none());
        let outcome = block_on(outcome.wait()).clone();
        match (accepted.join().unwrap(), outcome) {
            (Ok(core), Ok(got)) => {
                assert!(LeaseHandle::ptr_eq(&core, &got));
                assert_eq!(
                    core.session().availability(),
                    Availability::Retired,
                    "it came before the sweep"
                );
            }
            (Err(RejectReason::Draining), Err(DialError::PoolClosed)) => {}
            // Swept with its dial, then refused: or the other way round, which must not be.
            (accepted, outcome) => panic!("{:?}, {:?}", accepted.err(), outcome.err()),
        }
        assert!(dial.stop.is_aborted(), "the dial was open");
        assert_eq!(pool.state().sessions.slots.len(), 0, "something survived the sweep");
    });
}

/// A session is evicted only if nobody has a lease on it: a hit takes no slot's lock, so the count
/// of leases must decide. While it is decided nobody misses the session that stays.
#[test]
fn loom_evict_against_lease() {
    explore(|pool| {
        let peer = peer(true);
        let session = install(pool, peer);
        let evicting = spawn(pool, |pool| pool.state().sessions.evict(Evict::Any));
        let lease = pool.state().sessions.hit(&peer);
        let again = pool.state().sessions.hit(&peer);
        assert!(lease.is_none() || again.is_some(), "a session that is leased was not found");
        drop(again);
        let evicted = evicting.join().unwrap();
        assert_ne!(evicted, lease.is_some(), "evicted, or leased, never both");
        assert_eq!(evicted, session.availability() == Availability::Retired);
        assert_eq!(at_rest(pool, peer).is_none(), evicted);
    });
}

/// The last waiter leaves as another comes: the newcomer has a dial that is alive.
#[test]
fn loom_the_last_waiter_leaves_as_another_joins() {
    explore(|pool| {
        let peer = peer(true);
        let (dial, _outcome, _place) = begin(pool, peer);
        let leaving = {
            let dial = dial.clone();
            spawn(pool, move |pool| drop(pool.state().acquirer.leave_guard(&dial)))
        };
        let found = pool.state().acquirer.enter(&Target::new(peer), Heed::Failures).unwrap();
        leaving.join().unwrap();
        let (now, begun, _place) = match found {
            Lookup::Joined(joined) => (joined.dial, false, None),
            Lookup::Begun(new, place) => (new.dial, true, Some(place)),
            Lookup::Session(_) => panic!("no dial has succeeded"),
        };
        assert!(!now.stop.is_aborted(), "a newcomer waits for a dial that was stopped");
        assert_eq!(dial.stop.is_aborted(), begun, "the dial that nobody wants is stopped");
        let waiters = pool.state().sessions.slots.read(&peer, |slot| match slot.view() {
            View::Dialing { dial, waiters, .. } if Arc::ptr_eq(dial, &now) => waiters,
            _ => 0,
        });
        assert_eq!(waiters, Some(1));
    });
}

/// The last waiter leaves as the dial commits: it is stopped, or it goes on, and knows which.
#[test]
fn loom_the_last_waiter_leaves_as_the_dial_commits() {
    explore(|pool| {
        let peer = peer(true);
        let (dial, _outcome, _place) = begin(pool, peer);
        let leaving = {
            let dial = dial.clone();
            spawn(pool, move |pool| drop(pool.state().acquirer.leave_guard(&dial)))
        };
        let committed = task(&pool, &dial).stamp_of_commit().is_some();
        leaving.join().unwrap();
        assert_ne!(committed, dial.stop.is_aborted(), "a committed dial is never cut");
        assert_eq!(pool.state().sessions.slots.len(), usize::from(committed));
    });
}
