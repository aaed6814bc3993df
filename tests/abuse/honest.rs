//! Honest peers: eight that send as fast as they can, and newcomers that dial at a steady pace.
//!
//! Owns a process of its own, which does what its standard input says. Each comes from its own
//! loopback address, as peers have addresses of their own.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use noise_pool::{Identity, Lease, PeerId, Pool, Target};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

/// Peers that send at full rate.
pub(crate) const PEERS: u8 = 8;

/// What they send: a router's tunnel message.
const MESSAGE: usize = 1_028;

/// Between two newcomers.
const PACE: Duration = Duration::from_millis(40);

/// Addresses that newcomers come from, in turn: none of them dials too often.
const NEWCOMERS_FROM: u16 = 200;

/// The process: connects its peers, and answers each line on its standard input, which
/// is a number of milliseconds, by what became of the newcomers who dialled meanwhile.
pub(crate) async fn run(peer: PeerId, target: SocketAddr) {
    // Newcomers do not wait for the busy ones, as on machines of their own.
    let busy = super::runtime();
    let mut peers = JoinSet::new();
    for n in 0..PEERS {
        peers.spawn_on(send_for_ever(peer, target, Ipv4Addr::new(127, 0, 1, n + 1)), busy.handle());
    }
    let (mut lines, mut came) = (BufReader::new(tokio::io::stdin()).lines(), 0);
    loop {
        let line = tokio::select! {
            biased;
            ended = peers.join_next() => panic!("an honest peer has lost its session: {ended:?}"),
            line = lines.next_line() => line.expect("a line"),
        };
        let Some(line) = line else { return busy.shutdown_background() };
        let over = Duration::from_millis(line.parse().expect("milliseconds"));
        println!("{}", dial(peer, target, over, &mut came).await);
    }
}

/// What became of newcomers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dials {
    pub(crate) tried: u64,
    pub(crate) failed: u64,
    pub(crate) slowest: Duration,
}

impl std::ops::AddAssign for Dials {
    fn add_assign(&mut self, other: Self) {
        self.tried += other.tried;
        self.failed += other.failed;
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// One line of numbers, for another process.
impl fmt::Display for Dials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.tried, self.failed, self.slowest.as_micros())
    }
}

impl FromStr for Dials {
    type Err = std::num::ParseIntError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let slowest = Duration::from_micros(numbers[2]);
        Ok(Self { tried: numbers[0], failed: numbers[1], slowest })
    }
}

/// Newcomers dial for so long, each with an identity and a pool of its own.
async fn dial(peer: PeerId, target: SocketAddr, over: Duration, came: &mut u16) -> Dials {
    let until = Instant::now() + over;
    let mut pace = interval(PACE);
    let mut dials = JoinSet::new();
    while Instant::now() < until {
        pace.tick().await;
        *came += 1;
        let from = Ipv4Addr::new(127, 0, 2, (*came % NEWCOMERS_FROM) as u8);
        dials.spawn(async move {
            let began = Instant::now();
            let (pool, lease) = newcomer(peer, target, from).await;
            let took = began.elapsed();
            if let Err(error) = &lease {
                eprintln!("a newcomer failed after {took:?}: {error}");
            }
            let failed = lease.is_err();
            drop(lease);
            pool.close().await;
            Dials { tried: 1, failed: u64::from(failed), slowest: took }
        });
    }
    let mut all = Dials::default();
    while let Some(one) = dials.join_next().await {
        all += one.expect("a newcomer's task");
    }
    all
}

/// A pool with a fresh identity, and its dial.
async fn newcomer(
    peer: PeerId,
    target: SocketAddr,
    from: Ipv4Addr,
) -> (Pool, Result<Lease, noise_pool::error::DialError>) {
    let (pool, _inbox) = Pool::builder(Identity::generate()).build().expect("a pool");
    let open = move || async move {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((from, 0)))?;
        let stream: TcpStream = socket.connect(target).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    let lease = pool.get_or_dial_with(Target::new(peer), open).await;
    (pool, lease)
}

async fn send_for_ever(peer: PeerId, target: SocketAddr, from: Ipv4Addr) {
    let (_pool, lease) = newcomer(peer, target, from).await;
    let lease = lease.expect("a peer connects");
    let message = Bytes::from(vec![0x5a; MESSAGE]);
    while lease.send(message.clone()).await.is_ok() {}
}
