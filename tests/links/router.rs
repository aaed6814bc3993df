//! A router at one end of a link: it sends, reads, pings, and reports what it saw.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use noise_pool::config::{SystemWallClock, WallClock};
use noise_pool::event::PoolEvent;
use noise_pool::io::{BoxFuture, BoxedStream, TargetData};
use noise_pool::{
    Address, Config, Connector, Identity, Inbox, PeerId, Pool, SendOptions, SessionId, Target,
    TcpConnector,
};
use serde_json::{Value, json};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, sleep_until};

use crate::figures::{LINGERS, SIZE, Times, now, report};
use crate::load::Load;

/// A silence is longer, in microseconds.
const SILENCE: u64 = 300_000;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The number of its identity.
    me: u8,
    #[command(flatten)]
    load: Load,
    /// Whom it sends to: the number of an identity, and an address.
    #[arg(long, value_parser = target)]
    to: Vec<(u8, SocketAddr)>,
    /// Whether it hands messages to the pool, without a lease.
    #[arg(long)]
    by_pool: bool,
    /// Whether it keeps a session to each of them.
    #[arg(long)]
    keeps: bool,
    /// From when on its own peers have another address, in milliseconds: `MOMENT:ADDRESS`.
    #[arg(long, value_parser = moved)]
    moves: Option<(u64, SocketAddr)>,
    /// From when on its clock is two hours ahead, in milliseconds.
    #[arg(long)]
    ahead_from: Option<u64>,
    /// Until when it reads nothing, in seconds.
    #[arg(long, default_value_t = 0)]
    reads_from: u64,
    /// Options of the pool, in TOML; a semicolon ends a line.
    #[arg(long, default_value = "")]
    config: String,
}

fn target(text: &str) -> Result<(u8, SocketAddr), String> {
    let (number, address) = text.split_once('@').ok_or("NUMBER@ADDRESS")?;
    let number = number.parse().map_err(|error| format!("{error}"))?;
    Ok((number, address.parse().map_err(|error| format!("{error}"))?))
}

fn moved(text: &str) -> Result<(u64, SocketAddr), String> {
    let (moment, address) = text.split_once(':').ok_or("MOMENT:ADDRESS")?;
    let moment = moment.parse().map_err(|error| format!("{error}"))?;
    Ok((moment, address.parse().map_err(|error| format!("{error}"))?))
}

/// Knows where a peer is that moves.
struct Moving {
    began: Instant,
    first: SocketAddr,
    moves: (u64, SocketAddr),
    tcp: TcpConnector,
}

impl Connector for Moving {
    fn resolve<'a>(
        &'a self,
        _: &'a PeerId,
        _: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<Vec<Address>>> {
        let (moment, then) = self.moves;
        let has_moved = self.began.elapsed() >= Duration::from_millis(moment);
        let address = if has_moved { then } else { self.first };
        Box::pin(std::future::ready(Ok(vec![Address::Socket(address)])))
    }

    fn connect<'a>(
        &'a self,
        address: &'a Address,
        data: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<BoxedStream>> {
        self.tcp.connect(address, data)
    }
}

/// The system's clock, two hours ahead from some moment on.
struct Ahead {
    began: Instant,
    from: Duration,
}

impl WallClock for Ahead {
    fn unix_seconds(&self) -> u64 {
        let hours = if self.began.elapsed() >= self.from { 2 } else { 0 };
        SystemWallClock.unix_seconds() + hours * 3_600
    }
}

fn identity(number: u8) -> Identity {
    Identity::from_secret([number; 32])
}

#[derive(Default)]
struct Seen {
    accepted: u64,
    refused: u64,
    errors: BTreeMap<String, u64>,
    received: u64,
    /// Of each peer: the next number that is expected.
    next: BTreeMap<PeerId, u64>,
    /// Numbers that were passed over.
    gaps: u64,
    /// Of each session: the next number that is possible.
    next_on: BTreeMap<SessionId, u64>,
    /// Messages that came behind a later one of the same session, or twice.
    disordered: u64,
    numbers: HashSet<(PeerId, u64)>,
    /// Messages that came twice.
    twice: u64,
    last_at: Option<u64>,
    /// From when to when nothing came for long, in microseconds of the wall clock.
    silences: Vec<(u64, u64)>,
    /// What became of the messages of sessions that have ended.
    unknown: u64,
    unsent: u64,
    ages: Times,
    pings: Times,
    checkouts: Times,
    closed: BTreeMap<String, u64>,
}

impl Seen {
    fn refused(&mut self, why: String) {
        self.refused += 1;
        *self.errors.entry(why).or_default() += 1;
    }

    fn report(&mut self, pool: &Pool) -> Value {
        let stats = pool.stats();
        let (ages, pings) = (self.ages.report(), self.pings.report());
        json!({
            "accepted": self.accepted, "refused": self.refused, "errors": self.errors,
            "received": self.received, "gaps": self.gaps, "disordered": self.disordered,
            "ages": ages, "pings": pings, "checkouts": self.checkouts.report(),
            "closed": self.closed, "opened": stats.opened, "ended": stats.closed,
            "ping_failed": stats.ping_failed, "expired": stats.messages_expired,
            "twice": self.twice, "silences": self.silences,
            "unknown": self.unknown, "unsent": self.unsent,
            "crossed": stats.simultaneous_opens,
            "carried": stats.messages_carried, "given_up": stats.messages_unsent,
        })
    }
}

type Shared = Rc<RefCell<Seen>>;

pub(crate) async fn run(options: Options) {
    let seen = Shared::default();
    LocalSet::new().run_until(work(options, seen)).await;
}

async fn work(options: Options, seen: Shared) {
    let began = Instant::now();
    let config: Config =
        toml::from_str(&options.config.replace(';', "\n")).expect("options of the pool");
    let mut builder = Pool::builder(identity(options.me));
    if let Some(moves) = options.moves {
        let first = options.to[0].1;
        builder = builder.connector(Moving { began, first, moves, tcp: TcpConnector::default() });
    }
    let config = match options.ahead_from {
        Some(from) => config.wall_clock(Ahead { began, from: Duration::from_millis(from) }),
        None => config,
    };
    let (pool, inbox) = builder.config(config).build().expect("a pool");
    if let Some(address) = options.load.listen {
        pool.listen(address).await.expect("the address is free");
    }
    let mut events = pool.subscribe();
    let ends = seen.clone();
    spawn_local(async move {
        while let Some(Ok(event)) = events.recv().await {
            if let PoolEvent::Closed { reason, report, .. } = event {
                let mut seen = ends.borrow_mut();
                seen.unknown += report.unknown;
                seen.unsent += report.unsent;
                *seen
                    .closed
                    .entry(format!("{reason:?}, {} unknown", report.unknown))
                    .or_default() += 1;
            }
        }
    });
    spawn_local(read(inbox, began + Duration::from_secs(options.reads_from), seen.clone()));
    for &(number, address) in &options.to {
        let target = match options.moves {
            // The connector knows.
            Some(_) => Target::from(identity(number).peer_id()),
            None => Target::from((identity(number).peer_id(), address)),
        };
        if options.keeps {
            pool.keep(target.clone());
        }
        let (load, by_pool) = (options.load.clone(), options.by_pool);
        spawn_local(send(pool.clone(), target.clone(), began, load, by_pool, seen.clone()));
        if let Some(every) = options.load.pings_every() {
            spawn_local(ping(pool.clone(), target, every, seen.clone()));
        }
    }
    sleep_until(options.load.ends(began)).await;
    report(&seen.borrow_mut().report(&pool));
    sleep(LINGERS).await;
}

/// Reads all that comes.
async fn read(mut inbox: Inbox, from: Instant, seen: Shared) {
    sleep_until(from).await;
    while let Some(message) = inbox.recv().await {
        let word =
            |at: usize| u64::from_be_bytes(message.body[at..at + 8].try_into().expect("eight"));
        let (number, offered) = (word(0), word(8));
        let (mut seen, now) = (seen.borrow_mut(), now());
        seen.received += 1;
        seen.ages.add(Duration::from_micros(now.saturating_sub(offered)));
        if let Some(last) = seen.last_at.replace(now).filter(|last| now - last > SILENCE) {
            seen.silences.push((last, now));
        }
        seen.twice += u64::from(!seen.numbers.insert((message.peer, number)));
        let next = seen.next.entry(message.peer).or_default();
        let missed = number.saturating_sub(*next);
        *next = (*next).max(number + 1);
        seen.gaps += missed;
        let next = seen.next_on.entry(message.session).or_default();
        let is_late = number < *next;
        *next = (*next).max(number + 1);
        seen.disordered += u64::from(is_late);
    }
}

/// Takes a lease for each message, as a router does.
async fn send(pool: Pool, target: Target, began: Instant, load: Load, by_pool: bool, seen: Shared) {
    // The other end listens by then.
    sleep_until(began + Duration::from_secs(1)).await;
    let mut number = 0_u64;
    let mut offers = load.offers(began);
    while offers.next().await {
        let mut body = vec![0; SIZE];
        body[..8].copy_from_slice(&number.to_be_bytes());
        body[8..16].copy_from_slice(&now().to_be_bytes());
        if by_pool {
            match pool.send(target.clone(), body.into()).await {
                Ok(()) => {
                    seen.borrow_mut().accepted += 1;
                    number += 1;
                }
                Err(error) => seen.borrow_mut().refused(format!("{error:?}")),
            }
            continue;
        }
        let asked = Instant::now();
        let lease = match pool.get_or_dial(target.clone()).await {
            Ok(lease) => lease,
            Err(error) => {
                seen.borrow_mut().refused(error.to_string());
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        seen.borrow_mut().checkouts.add(asked.elapsed());
        let mut options = SendOptions::default();
        if let Some(worth) = load.worth() {
            options = options.deadline(std::time::Instant::now() + worth);
        }
        match lease.send_with(Bytes::from(body), options).await {
            Ok(()) => {
                seen.borrow_mut().accepted += 1;
                number += 1;
            }
            Err(error) => {
                seen.borrow_mut().refused(format!("{:?}", error.kind));
            }
        }
    }
}

async fn ping(pool: Pool, target: Target, every: Duration, seen: Shared) {
    loop {
        sleep(every).await;
        if let Some(lease) = pool.get(&target.peer()) {
            let asked = Instant::now();
            match lease.ping().await {
                Ok(_) => seen.borrow_mut().pings.add(asked.elapsed()),
                Err(error) => {
                    let mut seen = seen.borrow_mut();
                    *seen.errors.entry(format!("ping: {error}")).or_default() += 1;
                }
            }
        }
    }
}
