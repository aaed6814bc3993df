//! A plain socket at one end of a link, used as well as one can by hand: what a pool is measured beside.
//!
//! Messages wait in a queue of its own, out of which those that have become worthless are dropped, and of
//! which the kernel holds few (`TCP_NOTSENT_LOWAT`). A ping passes all of them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, sleep_until};

use crate::figures::{LINGERS, SIZE, Times, now, report};
use crate::load::{Load, Offers};

/// As a pool sets it.
const UNSENT: u32 = 4_096;

/// Messages that wait for the socket, where nothing else bounds them.
const QUEUE: usize = 64;

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    load: Load,
    /// Whom it sends to.
    #[arg(long)]
    to: Vec<SocketAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message = 0,
    Ping = 1,
    Pong = 2,
}

#[derive(Default)]
struct Seen {
    received: u64,
    ages: Times,
    pings: Times,
}

type Shared = Rc<RefCell<Seen>>;

/// What waits for one socket.
#[derive(Default)]
struct Queue {
    /// A ping or its answer, with the time at which it was asked.
    urgent: RefCell<VecDeque<(Kind, u64)>>,
    /// When each message was offered, and when it becomes worthless.
    messages: RefCell<VecDeque<(u64, Option<Instant>)>>,
    changed: Notify,
    taken: Notify,
}

pub(crate) async fn run(options: Options) {
    let seen = Shared::default();
    LocalSet::new().run_until(work(options, seen)).await;
}

async fn work(options: Options, seen: Shared) {
    let began = Instant::now();
    if let Some(address) = options.load.listen {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let seen = seen.clone();
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connected(stream, seen.clone());
            }
        });
    }
    sleep(Duration::from_secs(1)).await;
    for &address in &options.to {
        let queue = connected(TcpStream::connect(address).await.expect("it listens"), seen.clone());
        spawn_local(offer(queue.clone(), options.load.offers(began), options.load.worth()));
        if let Some(every) = options.load.pings_every() {
            spawn_local(async move {
                loop {
                    sleep(every).await;
                    queue.urgent.borrow_mut().push_back((Kind::Ping, now()));
                    queue.changed.notify_one();
                }
            });
        }
    }
    sleep_until(options.load.ends(began)).await;
    {
        let mut seen = seen.borrow_mut();
        let (ages, pings) = (seen.ages.report(), seen.pings.report());
        report(&json!({ "received": seen.received, "ages": ages, "pings": pings }));
    }
    sleep(LINGERS).await;
}

fn connected(stream: TcpStream, seen: Shared) -> Rc<Queue> {
    stream.set_nodelay(true).expect("an option");
    socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT).expect("an option");
    let (read, write) = stream.into_split();
    let queue = Rc::new(Queue::default());
    spawn_local(send(write, queue.clone()));
    spawn_local(receive(read, queue.clone(), seen));
    queue
}

/// Offers messages at a rate, or as many as are taken.
async fn offer(queue: Rc<Queue>, mut offers: Offers, worth: Option<Duration>) {
    while offers.next().await {
        while offers.is_unbounded() && queue.messages.borrow().len() >= QUEUE {
            queue.taken.notified().await;
        }
        let worthless = worth.map(|worth| Instant::now() + worth);
        queue.messages.borrow_mut().push_back((now(), worthless));
        queue.changed.notify_one();
    }
}

impl Queue {
    /// What goes out next.
    fn next(&self) -> Option<(Kind, u64)> {
        if let Some(urgent) = self.urgent.borrow_mut().pop_front() {
            return Some(urgent);
        }
        let mut messages = self.messages.borrow_mut();
        let now = Instant::now();
        while let Some((offered, worthless)) = messages.pop_front() {
            self.taken.notify_one();
            if worthless.is_none_or(|at| now < at) {
                return Some((Kind::Message, offered));
            }
        }
        None
    }
}

async fn send(mut write: OwnedWriteHalf, queue: Rc<Queue>) {
    loop {
        // Not before the kernel takes something: until then, what is more urgent may come.
        if write.writable().await.is_err() {
            return;
        }
        let Some((kind, time)) = queue.next() else {
            queue.changed.notified().await;
            continue;
        };
        let mut bytes = vec![0; if kind == Kind::Message { SIZE } else { 9 }];
        bytes[0] = kind as u8;
        bytes[1..9].copy_from_slice(&time.to_be_bytes());
        if write.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn receive(mut read: OwnedReadHalf, queue: Rc<Queue>, seen: Shared) {
    let mut head = [0; 9];
    let mut rest = vec![0; SIZE - head.len()];
    while read.read_exact(&mut head).await.is_ok() {
        let time = u64::from_be_bytes(head[1..].try_into().expect("eight"));
        let passed = || Duration::from_micros(now().saturating_sub(time));
        if head[0] == Kind::Message as u8 {
            if read.read_exact(&mut rest).await.is_err() {
                return;
            }
            let mut seen = seen.borrow_mut();
            seen.received += 1;
            seen.ages.add(passed());
        } else if head[0] == Kind::Ping as u8 {
            queue.urgent.borrow_mut().push_back((Kind::Pong, time));
            queue.changed.notify_one();
        } else {
            seen.borrow_mut().pings.add(passed());
        }
    }
}
