//! A router at one end of a link: it sends, reads, pings, and reports what it saw.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use noise_pool::event::PoolEvent;
use noise_pool::{Config, Identity, Inbox, PeerId, Pool, SendOptions, Target};
use serde_json::{Value, json};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, sleep_until};

use crate::figures::{LINGERS, SIZE, Times, now, report};
use crate::load::Load;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The number of its identity.
    me: u8,
    #[command(flatten)]
    load: Load,
    /// Whom it sends to: the number of an identity, and an address.
    #[arg(long, value_parser = target)]
    to: Vec<(u8, SocketAddr)>,
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
    /// Messages that came behind a later one, or twice.
    disordered: u64,
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
    let built = Pool::builder(identity(options.me)).config(config).build();
    let (pool, inbox) = built.expect("a pool");
    if let Some(address) = options.load.listen {
        pool.listen(address).await.expect("the address is free");
    }
    let mut events = pool.subscribe();
    let ends = seen.clone();
    spawn_local(async move {
        while let Some(Ok(event)) = events.recv().await {
            if let PoolEvent::Closed { reason, report, .. } = event {
                let mut seen = ends.borrow_mut();
                *seen
                    .closed
                    .entry(format!("{reason:?}, {} unknown", report.unknown))
                    .or_default() += 1;
            }
        }
    });
    spawn_local(read(inbox, began + Duration::from_secs(options.reads_from), seen.clone()));
    for &(number, address) in &options.to {
        let target = Target::from((identity(number).peer_id(), address));
        spawn_local(send(pool.clone(), target.clone(), began, options.load.clone(), seen.clone()));
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
        let mut seen = seen.borrow_mut();
        seen.received += 1;
        seen.ages.add(Duration::from_micros(now().saturating_sub(offered)));
        let next = seen.next.entry(message.peer).or_default();
        let (missed, is_late) = (number.saturating_sub(*next), number < *next);
        *next = (*next).max(number + 1);
        seen.gaps += missed;
        seen.disordered += u64::from(is_late);
    }
}

/// Takes a lease for each message, as a router does.
async fn send(pool: Pool, target: Target, began: Instant, load: Load, seen: Shared) {
    // The other end listens by then.
    sleep(Duration::from_secs(1)).await;
    let mut number = 0_u64;
    let mut offers = load.offers(began);
    while offers.next().await {
        let mut body = vec![0; SIZE];
        body[..8].copy_from_slice(&number.to_be_bytes());
        body[8..16].copy_from_slice(&now().to_be_bytes());
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
