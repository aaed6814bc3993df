//! Plays a story's steps on the pools, and compares what they come to with what was foretold.
//!
//! Owns the post-conditions of single steps, of those that send in `messages`; what holds between steps
//! is in `laws`.

mod messages;

use std::sync::Arc;
use std::time::Duration;

use noise_pool::error::{DialError, Limit, RejectReason};
use noise_pool::{CloseMode, Disconnect, DrainReport, Lease, Pool, Role, SessionId, Target};
use tokio::io::AsyncWriteExt as _;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

use super::laws;
use super::model::{Denial, Forecast, LeaseNo, Model, SessionNo, pair};
use super::story::{Answer, Step};
use super::support::cancelled_after;
use super::support::net::Plan;
use super::world::{DRAIN, Grip, LONG, PATIENCE, World, name};

/// What a caller got.
type Outcome = Result<Grip, DialError>;

/// What a drain may take beyond its deadline: `drain_timeout`, `verdict_timeout` and a parting.
const AFTER_DRAIN: Duration = Duration::from_secs(10 + 3 + 2);
/// In three times this, after the sessions were cut, whatever a faulty network left has run out:
/// `handshake_timeout`, `dial_timeout` and the longest wait after a failure.
const MENDING: Duration = Duration::from_secs(15);

impl World {
    /// Plays a step. The model has played it already.
    pub(crate) async fn play(&mut self, model: &Model, step: Step) {
        match step {
            Step::Call { from, to, callers, quitters } => {
                self.call(model, from, to, callers, quitters).await;
            }
            Step::Cross { one, other, callers } => self.cross(model, one, other, callers).await,
            Step::Exclusive { from, to } => self.exclusive(model, from, to).await,
            Step::Send { lease, count, length, pauses } => {
                self.send(model, lease, count, length, pauses).await;
            }
            Step::SendTo { from, to, count, length } => {
                self.send_to(model, from, to, count, length).await;
            }
            Step::Contend { lease, words, rivals } => {
                self.contend(model, lease, words, rivals).await;
            }
            Step::Return { lease, words } => self.give_back(lease, words).await,
            Step::Discard { lease } => {
                if let Some(grip) = self.let_go(lease) {
                    self.discarded.insert(grip.lease().session_id());
                    grip.discard();
                }
            }
            Step::Probe { lease } => self.probe(model, lease).await,
            Step::Disconnect { node, peer, now, refuse } => {
                let mode = if now { CloseMode::Now } else { CloseMode::Drain };
                let mut what = Disconnect::new(mode);
                if refuse {
                    what = what.refuse_for(Duration::from_secs(10));
                }
                let found = self.pool(node).disconnect(&name(peer), what);
                if let Forecast::Found(foretold) = model.forecast {
                    assert_eq!(found, foretold, "whether there was something to disconnect");
                }
            }
            Step::Replace { node, peer } => self.replace(model, node, peer).await,
            Step::DrainPeer { node, peer, words, answers } => {
                self.last_words(node, peer, words);
                self.last_words(peer, node, answers);
                let pool = self.pool(node);
                let peer = name(peer);
                let draining = async move { pool.drain_peer(&peer, DRAIN).await };
                let report = self.meanwhile("a drain of one peer", draining).await;
                self.drained(model, report);
            }
            Step::DrainPool { node, words } => {
                (0..super::model::NODES).for_each(|peer| self.last_words(node, peer, words));
                let pool = self.pool(node);
                let draining = async move { pool.drain(DRAIN).await };
                let report = self.meanwhile("a drain", draining).await;
                self.drained(model, report);
            }
            Step::ClosePool { node } => {
                let pool = self.pool(node);
                self.meanwhile("a close", async move { pool.close().await }).await;
            }
            Step::Wait { ms } => {
                self.meanwhile("a wait", sleep(Duration::from_millis(ms.into()))).await;
            }
            Step::WaitLong => self.wait(LONG).await,
            Step::Plan { from, to, plan } => self.net.plan(name(from), name(to), plan),
            Step::Checks { node, peer, answer } => self.nodes[node].checks.set(name(peer), answer),
            Step::Keep { node, peer } => self.pool(node).keep(name(peer)),
            Step::Stranger { node, bytes } => self.stranger(node, bytes),
            Step::Mend { one, other } => self.mend(model, one, other).await,
        }
        let wanted = |lease| model.leases.contains_key(&lease);
        self.drop_leases(wanted);
    }

    // ---- calls for a session -------------------------------------------------------------------

    async fn call(
        &mut self,
        model: &Model,
        from: usize,
        to: usize,
        callers: u8,
        quitters: Vec<u8>,
    ) {
        let before = Dialled::now(self, from, to);
        // Some of those who give up come before those who wait, some behind them.
        let given_up = quitters.len() as u64;
        let (early, late): (Vec<u8>, Vec<u8>) = quitters.iter().partition(|polls| *polls % 2 == 1);
        early.into_iter().for_each(|polls| self.quitter(from, to, polls));
        let calls = callers_of(&self.pool(from), from, to, callers);
        late.into_iter().for_each(|polls| self.quitter(from, to, polls));
        match &model.forecast {
            Forecast::Calls { session, leases, denial, connects } => {
                let outcomes = self.meanwhile("a call", all(calls)).await;
                laws::one_outcome(&outcomes);
                let granted = self.share_out(from, leases, outcomes, *denial);
                assert_eq!(granted.len(), leases.len(), "how many callers get a lease");
                self.recognise(model, from, *session, &granted);
                let begun = before.until(Dialled::now(self, from, to));
                laws::single_flight(begun, connects, session.map(|_| given_up));
            }
            Forecast::Loose([leases, _]) => self.collect(from, to, leases.clone(), calls),
            other => panic!("a call, and {other:?}"),
        }
    }

    /// A caller who is dropped after having been polled so often.
    fn quitter(&mut self, from: usize, to: usize, polls: u8) {
        // One that nobody wakes is dropped by its own deadline, before the others are by theirs.
        let (pool, target) = (self.pool(from), Target::new(name(to)).timeout(PATIENCE / 2));
        let call = tokio::spawn(async move {
            drop(cancelled_after(polls.into(), pool.get_or_dial(target)).await);
        });
        self.leave(pair(from, to), false, call);
    }

    async fn cross(&mut self, model: &Model, one: usize, other: usize, callers: u8) {
        let (one, other) = pair(one, other);
        let calls = [(one, other), (other, one)]
            .map(|(from, to)| callers_of(&self.pool(from), from, to, callers));
        match &model.forecast {
            Forecast::Crossed { session, leases, denial } => {
                for (from, (leases, calls)) in
                    [one, other].into_iter().zip(leases.iter().zip(calls))
                {
                    let outcomes = self.meanwhile("a crossing call", all(calls)).await;
                    laws::one_outcome(&outcomes);
                    let granted = self.share_out(from, leases, outcomes, *denial);
                    assert_eq!(granted.len(), leases.len(), "how many callers get a lease");
                    self.recognise(model, from, Some(*session), &granted);
                }
            }
            Forecast::Loose(leases) => {
                let ways = [(one, other), (other, one)];
                for ((from, to), (leases, calls)) in ways.into_iter().zip(leases.iter().zip(calls))
                {
                    self.collect(from, to, leases.clone(), calls);
                }
            }
            other => panic!("a crossing, and {other:?}"),
        }
    }

    async fn exclusive(&mut self, model: &Model, from: usize, to: usize) {
        let before = Dialled::now(self, from, to);
        let (pool, target) = (self.pool(from), Target::new(name(to)).timeout(PATIENCE));
        let call = tokio::spawn(async move {
            pool.get_exclusive(target).await.map(|lease| Grip::exclusive(from, lease))
        });
        match &model.forecast {
            Forecast::Calls { session, leases, denial, connects } => {
                let outcomes = self.meanwhile("an exclusive call", all(vec![call])).await;
                let granted = self.share_out(from, leases, outcomes, *denial);
                assert_eq!(granted.len(), leases.len(), "whether an exclusive lease is given");
                self.recognise(model, from, *session, &granted);
                let begun = before.until(Dialled::now(self, from, to));
                laws::single_flight(begun, connects, session.map(|_| 0));
            }
            Forecast::Loose([leases, _]) => self.collect(from, to, leases.clone(), vec![call]),
            other => panic!("an exclusive call, and {other:?}"),
        }
    }

    /// Keeps the leases that callers got; the others must have been denied one as foretold. Which
    /// sessions they are of.
    fn share_out(
        &self,
        from: usize,
        leases: &[LeaseNo],
        outcomes: Vec<Outcome>,
        denial: Denial,
    ) -> Vec<SessionId> {
        let mut numbers = leases.iter();
        let mut granted = Vec::new();
        for outcome in outcomes {
            match outcome {
                Ok(grip) => {
                    granted.push(grip.lease().session_id());
                    let number = numbers.next().expect("no more leases than foretold");
                    assert_eq!(grip.node, from);
                    self.shared.leases.lock().unwrap().insert(*number, grip);
                }
                Err(error) => {
                    assert!(is_denied(denial, &error), "{denial:?} was foretold, not {error:?}");
                }
            }
        }
        granted
    }

    /// All leases of a known session are of the one session that this end knows by that number.
    fn recognise(
        &mut self,
        model: &Model,
        node: usize,
        number: Option<SessionNo>,
        ids: &[SessionId],
    ) {
        let Some(number) = number else { return };
        for id in ids {
            let known = *self.known.entry((node, number)).or_insert(*id);
            let ends = model.sessions[&number].ends;
            assert_eq!(*id, known, "all leases are of the one session between {ends:?}");
        }
    }

    /// Leaves callers to themselves. Their leases are kept when they come.
    fn collect(
        &mut self,
        from: usize,
        to: usize,
        leases: Vec<LeaseNo>,
        calls: Vec<JoinHandle<Outcome>>,
    ) {
        let aborts: Vec<_> = calls.iter().map(JoinHandle::abort_handle).collect();
        let (pool, shared) = (self.pool(from), Arc::clone(&self.shared));
        let work = tokio::spawn(async move {
            let _cut = CutAll(aborts);
            let before = pool.stats();
            let outcomes = all(calls).await;
            let after = pool.stats();
            // Where a session ended before all had their turn, the others went on to another dial.
            let ended = |grip: &Grip| grip.lease().is_retired();
            let lasting = after.closed == before.closed
                && !outcomes.iter().any(|outcome| outcome.as_ref().is_ok_and(ended));
            if lasting && after.dials <= before.dials + 1 && after.opened <= before.opened + 1 {
                laws::one_outcome(&outcomes);
            }
            let granted = outcomes.into_iter().filter_map(Result::ok);
            shared.leases.lock().unwrap().extend(leases.into_iter().zip(granted));
        });
        self.leave(pair(from, to), false, work);
    }

    /// PROMISE "closing an old session never touches its successor": the old one ends while the new one
    /// is there, whose lease must be good; that it stays is seen with the rest.
    async fn replace(&mut self, model: &Model, node: usize, peer: usize) {
        let Forecast::Replaced { old, session, lease } = model.forecast else {
            panic!("it can be replaced")
        };
        let before = Dialled::now(self, node, peer);
        let (pool, to) = (self.pool(node), name(peer));
        let draining = tokio::spawn(async move { pool.drain_peer(&to, 2 * DRAIN).await });
        yield_now().await;
        assert!(!draining.is_finished(), "a drain waits for leases");
        assert!(!self.nodes[node].pool.contains(&to), "what drains is not handed out");
        let calls = callers_of(&self.pool(node), node, peer, 1);
        let outcomes = self.meanwhile("a call", all(calls)).await;
        let granted = self.share_out(node, &[lease], outcomes, Denial::Any);
        assert_eq!(granted.len(), 1, "a caller gets the successor");
        self.recognise(model, node, Some(session), &granted);
        let begun = before.until(Dialled::now(self, node, peer));
        laws::single_flight(begun, &(1..=1), Some(0));
        let report = self.meanwhile("a drain of one peer", draining).await.unwrap();
        laws::adds_up(report.messages);
        assert_eq!((report.sessions, report.leases_remaining), (1, 0), "the peer let it end");
        self.all_delivered(node, &[old], report.messages);
    }

    // ---- the rest ------------------------------------------------------------------------------

    fn let_go(&self, lease: LeaseNo) -> Option<Grip> {
        self.shared.leases.lock().unwrap().remove(&lease)
    }

    /// PROMISE "exactly-once on graceful paths", as the drain reports it: all that both ends accepted
    /// was delivered.
    fn drained(&self, model: &Model, report: DrainReport) {
        laws::adds_up(report.messages);
        assert!(report.elapsed <= DRAIN + AFTER_DRAIN, "a drain took {:?}", report.elapsed);
        let Forecast::Drained { node, sessions, leases_remaining } = &model.forecast else {
            return;
        };
        assert_eq!(report.sessions, sessions.len(), "sessions drained");
        assert_eq!(report.leases_remaining, *leases_remaining, "leases that were out");
        self.all_delivered(*node, sessions, report.messages);
    }

    async fn wait(&mut self, time: Duration) {
        // In parts: events must not be lost, and no call may take so long.
        for _ in 0..32 {
            self.meanwhile("a wait", sleep(time / 32)).await;
            self.listen();
        }
    }

    fn stranger(&mut self, node: usize, bytes: Vec<u8>) {
        let (mut near, far) = self.net.pipe(Plan::SMOOTH);
        let pool = self.pool(node);
        let adopting = tokio::spawn(async move { drop(pool.adopt(far, Role::Responder).await) });
        let talking = tokio::spawn(async move {
            let _ = near.write_all(&bytes).await;
            sleep(Duration::from_secs(60)).await;
        });
        self.leave((node, node), false, adopting);
        self.leave((node, node), false, talking);
    }

    /// The network is smooth again, the applications say yes, nobody calls: all sessions between these
    /// pools are cut, and what had begun gets time to end.
    async fn mend(&mut self, model: &Model, one: usize, other: usize) {
        let pairs = model.mended(one, other);
        for (one, other) in pairs.iter().copied() {
            self.net.mend(name(one), name(other));
            for (node, peer) in [(one, other), (other, one)] {
                self.nodes[node].checks.set(name(peer), Answer::Yes);
                self.nodes[node].pool.unkeep(&name(peer));
            }
        }
        self.recall_cuttable(&pairs).await;
        self.drop_leases(|lease| model.leases.contains_key(&lease));
        for round in 0..3 {
            if round > 0 {
                self.wait(MENDING).await;
            }
            for (one, other) in pairs.iter().copied() {
                for (node, peer) in [(one, other), (other, one)] {
                    let now = Disconnect::now();
                    self.nodes[node].pool.disconnect(&name(peer), now);
                }
            }
        }
        self.recall(|ends| pairs.contains(&ends) || ends.0 == ends.1).await;
        self.wait(MENDING).await;
    }
}

/// Callers who want a session at the same moment.
fn callers_of(pool: &Pool, from: usize, to: usize, callers: u8) -> Vec<JoinHandle<Outcome>> {
    let calls = (0..callers).map(|_| {
        let (pool, target) = (pool.clone(), Target::new(name(to)).timeout(PATIENCE));
        tokio::spawn(async move {
            pool.get_or_dial(target).await.map(|lease: Lease| Grip::shared(from, lease))
        })
    });
    calls.collect()
}

async fn all(calls: Vec<JoinHandle<Outcome>>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(call.await.expect("a call panicked"));
    }
    outcomes
}

/// Ends calls when the one who waits for them is ended.
struct CutAll(Vec<tokio::task::AbortHandle>);

impl Drop for CutAll {
    fn drop(&mut self) {
        self.0.iter().for_each(|call| call.abort());
    }
}

/// How often one pool has dialled another, and connected to it.
#[derive(Clone, Copy)]
pub(crate) struct Dialled {
    pub(crate) dials: u64,
    pub(crate) connects: u64,
}

impl Dialled {
    fn now(world: &mut World, from: usize, to: usize) -> Self {
        // Calls to others may go on meanwhile, so that the pool's own count says too much.
        world.listen();
        let dials = world.nodes[from].told.dials_to.get(&name(to)).copied().unwrap_or_default();
        Self { dials, connects: world.net.connects_between(name(from), name(to)) }
    }

    fn until(self, now: Self) -> Self {
        Self { dials: now.dials - self.dials, connects: now.connects - self.connects }
    }
}

/// Whether this is the error of one who was denied a lease for this reason.
fn is_denied(denial: Denial, error: &DialError) -> bool {
    let cause = error.cause();
    match denial {
        Denial::OwnIdentity => matches!(cause, DialError::OwnIdentity),
        Denial::PoolClosed => matches!(cause, DialError::PoolClosed),
        Denial::Connect => matches!(cause, DialError::Connect { .. }),
        Denial::Full => matches!(cause, DialError::Rejected { reason: RejectReason::Full }),
        Denial::Sessions => matches!(cause, DialError::Limit(Limit::Sessions)),
        Denial::Leases => matches!(cause, DialError::Limit(Limit::Leases)),
        Denial::Deadline => matches!(cause, DialError::Deadline),
        Denial::Any => true,
    }
}
