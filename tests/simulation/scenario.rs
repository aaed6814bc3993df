//! One run: routers, a network, and what befalls them, all drawn from one seed.
//!
//! First a storm of dials, messages, partings and (in most runs) faults; then the network is healed,
//! and everybody talks to its neighbours once more. Then the run is judged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use noise_pool::snapshot::Stats;
use noise_pool::{CloseMode, Config, PeerId};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use turmoil::Sim;

use crate::book::Book;
use crate::line::Mishap;
use crate::router::{Order, Seat, Talk, identity, name};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// How long the storm lasts.
const STORM: Duration = ms(8_000);
/// After the storm: longer than the longest fault, and then than any timer of [`config`], so that
/// every dead session has been noticed and every backoff is over.
const HEALING: Duration = ms(10_000);
/// How long everybody may take to find everybody in a whole network.
const SETTLING: Duration = ms(8_000);

/// What a run did.
pub(crate) struct Run {
    /// Names the run: equal for the same seed.
    pub(crate) hash: u64,
    pub(crate) routers: usize,
    pub(crate) messages: usize,
    pub(crate) reasons: BTreeMap<String, u64>,
    pub(crate) stats: Vec<Stats>,
}

/// The character of a run.
#[derive(Clone, Copy, Debug)]
struct Plan {
    routers: usize,
    tick: Duration,
    /// Connections break, routers crash.
    faults: bool,
    /// Fewer places than neighbours.
    scarce: bool,
    brief_idle: bool,
    brief_age: bool,
    /// Segments that a socket holds, and connections that a listener does: turmoil panics beyond.
    tcp_capacity: usize,
    two_ports: bool,
    latency: Duration,
}

impl Plan {
    fn new(seed: u64, random: &mut StdRng) -> Self {
        // One run in 25 is a crowd.
        let routers = match seed % 25 {
            24 => random.random_range(30..=50),
            n if n % 4 == 3 => random.random_range(6..=10),
            _ => random.random_range(3..=5),
        };
        Self {
            routers,
            tick: ms(if routers > 10 { 10 } else { 2 }),
            faults: !seed.is_multiple_of(4),
            scarce: seed % 5 == 3,
            brief_idle: random.random_bool(0.5),
            brief_age: random.random_bool(0.5),
            tcp_capacity: if random.random_bool(0.5) { 64 } else { 24 },
            two_ports: random.random_bool(0.3),
            latency: ms([2, 20, 100][random.random_range(0..3)]),
        }
    }

    /// The neighbours of each router, the smaller number first: all if they are few, otherwise a
    /// ring with chords.
    fn links(&self) -> Vec<(usize, usize)> {
        let n = self.routers;
        if n <= 10 {
            return (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b))).collect();
        }
        let mut links: Vec<_> = [1, 7]
            .iter()
            .flat_map(|step| (0..n).map(move |a| (a, (a + step) % n)))
            .map(|(a, b)| (a.min(b), a.max(b)))
            .collect();
        links.sort_unstable();
        links.dedup();
        links
    }

    /// Times of a small world: every one of them runs out in a run.
    fn config(&self) -> Config {
        let config = Config::default()
            .connect_timeout(ms(2_000))
            .dial_timeout(ms(4_000))
            .message1_timeout(ms(1_500))
            .handshake_timeout(ms(3_000))
            .verdict_timeout(ms(2_000))
            .ping_after(ms(400))
            .ping_timeout(ms(1_500))
            .keepalive(ms(4_000))
            .stall_timeout(ms(2_000))
            .drain_timeout(ms(3_000))
            .retire_timeout(ms(2_000))
            .initial_backoff(ms(200))
            .max_backoff(ms(1_000))
            .max_refusal(ms(1_000))
            .rekey_after_bytes(20_000)
            .max_message_size(200_000)
            .event_capacity(65_536)
            .max_idle(self.brief_idle.then_some(ms(700)))
            .max_age(self.brief_age.then_some(ms(1_500)));
        if !self.scarce {
            return config;
        }
        let config = config.max_sessions(2.max(self.routers.min(5) / 2)).max_inbound(2);
        if self.faults { config.max_draining(1) } else { config }
    }
}

/// Something to be undone.
#[derive(Clone, Copy, Debug)]
enum Undo {
    /// The link of these two is whole again.
    Repair(usize, usize),
    Release(usize, usize),
    /// The router starts again, and is reachable again.
    Start(usize),
    Read(usize),
    Healthy(usize),
}

struct World<'a> {
    plan: Plan,
    random: StdRng,
    sim: Sim<'a>,
    seats: Vec<Arc<Seat>>,
    links: Vec<(usize, usize)>,
    book: Book,
    undo: Vec<(Duration, Undo)>,
    stats: Vec<Stats>,
}

/// Runs one seed to its end and judges it.
pub(crate) fn run(seed: u64) -> Run {
    let mut random = StdRng::seed_from_u64(seed);
    let plan = Plan::new(seed, &mut random);
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(random.random())
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000))
        .simulation_duration(Duration::from_secs(3_600))
        .tick_duration(plan.tick)
        .tcp_capacity(plan.tcp_capacity)
        .min_message_latency(ms(1))
        .max_message_latency(plan.latency)
        .enable_random_order();
    let mut sim = builder.build();
    let book = Book::default();
    let peers: Arc<[PeerId]> = (0..plan.routers).map(|n| identity(n).peer_id()).collect();
    let seats: Vec<_> = (0..plan.routers)
        .map(|n| Seat::new(n, random.random(), &book, plan.config(), plan.two_ports, peers.clone()))
        .collect();
    for seat in &seats {
        let seat = seat.clone();
        sim.host(name(seat.number), move || seat.clone().live());
    }
    let links = plan.links();
    let mut world =
        World { plan, random, sim, seats, links, book, undo: Vec::new(), stats: Vec::new() };
    world.storm();
    world.heal();
    world.settle();
    world.judge(seed)
}

impl World<'_> {
    fn storm(&mut self) {
        while self.sim.elapsed() < STORM {
            for _ in 0..1 + self.plan.routers / 10 {
                self.act();
            }
            let pause = [2, 10, 40, 150][self.random.random_range(0..4)];
            self.pass(ms(pause));
        }
    }

    /// Lets time pass, and undoes what is due.
    fn pass(&mut self, time: Duration) {
        let until = self.sim.elapsed() + time;
        while self.sim.elapsed() < until {
            self.sim.step().unwrap();
            let now = self.sim.elapsed();
            let (due, later) = self.undo.drain(..).partition(|(at, _)| *at <= now);
            self.undo = later;
            let due: Vec<_> = due;
            due.into_iter().for_each(|(_, undo)| self.undo(undo));
        }
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Repair(a, b) => self.sim.repair(name(a), name(b)),
            Undo::Release(a, b) => self.sim.release(name(a), name(b)),
            Undo::Start(router) => {
                for other in (0..self.plan.routers).filter(|other| *other != router) {
                    self.sim.repair(name(router), name(other));
                }
                self.sim.bounce(name(router));
            }
            Undo::Read(router) => drop(self.seats[router].reading.send_replace(true)),
            Undo::Healthy(router) => self.seats[router].healthy.store(true, Ordering::Relaxed),
        }
    }

    fn later(&mut self, max: u64, undo: Undo) {
        let time = ms(self.random.random_range(50..=max));
        self.undo.push((self.sim.elapsed() + time, undo));
    }

    /// Two neighbours, in either order.
    fn pair(&mut self) -> (usize, usize) {
        let (a, b) = self.links[self.random.random_range(0..self.links.len())];
        if self.random.random_bool(0.5) { (a, b) } else { (b, a) }
    }

    /// Whether something that will be undone concerns these two.
    fn is_disrupted(&self, a: usize, b: usize) -> bool {
        self.undo.iter().any(|(_, undo)| match undo {
            Undo::Repair(c, d) | Undo::Release(c, d) => (*c, *d) == (a, b) || (*c, *d) == (b, a),
            Undo::Start(c) => *c == a || *c == b,
            Undo::Read(_) | Undo::Healthy(_) => false,
        })
    }

    fn act(&mut self) {
        let (a, b) = self.pair();
        let dice = self.random.random_range(0..100);
        match dice {
            0..25 => self.cross(a, b),
            25..45 => self.talk(a, b),
            45..49 => self.everybody_dials(a),
            49..58 => self.seats[a].tell(Order::Part { to: b, mode: CloseMode::Drain }),
            58..61 => self.seats[a].tell(Order::Drain),
            61..64 => {
                self.seats[a].reading.send_replace(false);
                self.later(1_000, Undo::Read(a));
            }
            64..68 => {
                let max = ms(self.random.random_range(1..=200));
                self.sim.set_link_max_message_latency(name(a), name(b), max);
            }
            68..71 if !self.is_disrupted(a, b) => {
                // Held so briefly that no timer runs out.
                self.sim.hold(name(a), name(b));
                self.later(250, Undo::Release(a, b));
            }
            71.. if self.plan.faults && !self.is_disrupted(a, b) => self.fault(a, b),
            _ => self.talk(a, b),
        }
    }

    fn talk(&mut self, a: usize, b: usize) {
        let random = &mut self.random;
        let talk = Talk {
            to: b,
            messages: random.random_range(0..6),
            size: [8, 1_028, 1_028, 5_000, 150_000][random.random_range(0..5)],
            gap: ms(random.random_range(0..50)),
            patience: ms([20, 400, 20_000, 20_000][random.random_range(0..4)]),
            hold: ms([0, 0, 100, 4_000][random.random_range(0..4)]),
        };
        self.seats[a].tell(Order::Talk(talk));
    }

    /// Both dial each other, not quite at the same moment.
    fn cross(&mut self, a: usize, b: usize) {
        self.talk(a, b);
        let lead = ms([0, 0, 4, 20][self.random.random_range(0..4)]);
        if lead > Duration::ZERO {
            self.pass(lead);
        }
        self.talk(b, a);
    }

    fn everybody_dials(&mut self, a: usize) {
        for (b, c) in self.links.clone() {
            if b == a {
                self.talk(c, a);
            } else if c == a {
                self.talk(b, a);
            }
        }
    }

    fn disturb_all(&mut self, a: usize) {
        (0..self.plan.routers).filter(|b| *b != a).for_each(|b| self.book.disturb(a, b));
    }

    fn fault(&mut self, a: usize, b: usize) {
        let dice = self.random.random_range(0..20);
        if dice >= 14 {
            return if dice < 18 { self.crossing_accident(a, b) } else { self.stall(a, b) };
        }
        // What is under way when it happens: anything, a handshake, or a drain.
        match self.random.random_range(0..3) {
            0 => {}
            1 => self.cross(a, b),
            _ => self.seats[a].tell(Order::Part { to: b, mode: CloseMode::Drain }),
        }
        let lead = self.random.random_range(0..=3 * self.plan.latency.as_millis() as u64);
        self.pass(ms(lead));
        if self.is_disrupted(a, b) {
            return;
        }
        self.book.disturb(a, b);
        match dice {
            0..3 => {
                self.sim.partition(name(a), name(b));
                self.later(7_000, Undo::Repair(a, b));
            }
            3..6 => {
                self.sim.partition_oneway(name(a), name(b));
                self.later(7_000, Undo::Repair(a, b));
            }
            6 => {
                self.sim.hold(name(a), name(b));
                self.later(5_000, Undo::Release(a, b));
            }
            7 => self.crash(a, false),
            8 => self.crash(a, true),
            9 => self.seats[a].tell(Order::Part { to: b, mode: CloseMode::Now }),
            10 => self.seats[a].tell(Order::Discard { to: b }),
            11 => {
                self.disturb_all(a);
                self.seats[a].tell(Order::Close);
            }
            12 => {
                self.disturb_all(a);
                self.seats[a].healthy.store(false, Ordering::Relaxed);
                self.later(2_000, Undo::Healthy(a));
            }
            _ => {
                self.disturb_all(a);
                self.seats[a].flip.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Both dial each other; the connection that both would keep breaks before its verdict, the verdict
    /// on the other is late, and meanwhile its initiator may dial again. What it makes of the late
    /// accept is the second table.
    fn crossing_accident(&mut self, a: usize, b: usize) {
        let peers = &self.seats[a].peers;
        let (small, large) = if peers[a] < peers[b] { (a, b) } else { (b, a) };
        self.book.disturb(a, b);
        self.seats[small].tell(Order::Part { to: large, mode: CloseMode::Now });
        self.pass(self.plan.latency * 2);
        let lag = ms([0, 50, 150, 400, 800, 1_500][self.random.random_range(0..6)]);
        self.seats[small].mishaps.lock().unwrap().insert(large, Mishap::Lags(lag));
        self.seats[large].mishaps.lock().unwrap().insert(small, Mishap::Breaks);
        self.cross(small, large);
        for _ in 0..self.random.random_range(2..10) {
            let pause = self.random.random_range(0..=2 * self.plan.latency.as_millis() as u64);
            self.pass(ms(pause));
            self.talk(small, large);
        }
    }

    /// A connection takes nothing more of what its initiator writes, as one whose window stays shut.
    fn stall(&mut self, a: usize, b: usize) {
        self.book.disturb(a, b);
        self.seats[a].tell(Order::Part { to: b, mode: CloseMode::Now });
        self.pass(self.plan.latency * 2);
        self.seats[a].mishaps.lock().unwrap().insert(b, Mishap::Stalls);
        self.talk(a, b);
    }

    /// The router is gone, with or without its sockets' farewell, and comes back with the same key.
    fn crash(&mut self, a: usize, silent: bool) {
        if (0..self.plan.routers).any(|b| b != a && self.is_disrupted(a, b)) {
            return;
        }
        self.disturb_all(a);
        if silent {
            for b in (0..self.plan.routers).filter(|b| *b != a) {
                self.sim.partition(name(a), name(b));
            }
        }
        self.seats[a].note_stats();
        if !*self.seats[a].reading.borrow() {
            self.book.crashed_unread(a);
        }
        self.sim.crash(name(a));
        self.later(3_000, Undo::Start(a));
    }

    fn heal(&mut self) {
        self.pass(HEALING);
        assert!(self.undo.is_empty(), "faults outlast the healing: {:?}", self.undo);
        for seat in &self.seats {
            seat.flip.store(false, Ordering::Relaxed);
            seat.mishaps.lock().unwrap().clear();
        }
    }

    /// Everybody calls its neighbours, and at rest each two hold the same one session.
    fn settle(&mut self) {
        for (a, b) in self.links.clone() {
            for (from, to) in [(a, b), (b, a)] {
                self.seats[from].tell(Order::Talk(Talk {
                    to,
                    messages: 1,
                    size: 1_028,
                    gap: Duration::ZERO,
                    patience: SETTLING,
                    hold: SETTLING * 2,
                }));
            }
        }
        let by = self.sim.elapsed() + SETTLING;
        loop {
            self.seats.iter().for_each(|seat| seat.tell(Order::Look));
            self.pass(ms(20));
            match self.agree() {
                Ok(()) => break,
                Err(wrong) => {
                    assert!(self.sim.elapsed() < by, "no agreement in a whole network: {wrong}");
                }
            }
        }
        // The last messages are on their way.
        self.pass(SETTLING / 2);
    }

    /// Whether everybody is at rest, and both ends of each link have the same session, or (where
    /// room is scarce) both have none.
    fn agree(&self) -> Result<(), String> {
        let seen: Option<Vec<_>> = self.seats.iter().map(|seat| seat.seen()).collect();
        let seen = seen.ok_or("somebody does not look")?;
        if let Some(router) = seen.iter().position(|seen| !seen.at_rest) {
            return Err(format!("r{router} is not at rest: {:?}", seen[router]));
        }
        for &(a, b) in &self.links {
            let (ours, theirs) = (seen[a].sessions.get(&b), seen[b].sessions.get(&a));
            let lacks = ours.is_none_or(|hash| hash.is_none());
            if ours != theirs || (lacks && !self.plan.scarce) {
                return Err(format!("r{a} and r{b} hold {ours:?} and {theirs:?}"));
            }
        }
        Ok(())
    }

    fn judge(mut self, seed: u64) -> Run {
        for seat in &self.seats {
            seat.note_stats();
            self.stats.extend(seat.stats());
        }
        let faults = self.book.faults();
        assert!(faults.is_empty(), "seed {seed}, {:?}: {faults:#?}", self.plan);
        Run {
            hash: self.book.hash(),
            routers: self.plan.routers,
            messages: self.book.messages(),
            reasons: self.book.reasons(),
            stats: self.stats,
        }
    }
}
