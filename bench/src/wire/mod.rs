//! What talks over one connection: noise-pool, its peers and the limits, a file each, behind one seam.
//!
//! Owns the messages that are sent, their checks at the receiver, and how two ends come to be
//! connected. It must give every peer the same: messages built beforehand, loopback TCP with
//! `TCP_NODELAY`, and a receiver that hands each message to the same check.

pub mod crypto;
pub mod frames;
pub mod libp2p;
pub mod limit;
pub mod ours;
pub mod raw;
pub mod run;
pub mod snowstorm;
pub mod stream;
pub mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};

/// Bytes in front of each message: when it was sent in its lane, and its lane.
pub const MIN_MESSAGE: usize = 8 + 4;

/// Bytes of a message's length where the wire does not tell it.
pub const PREFIX: usize = 2;

/// Bytes that all messages of a lane take at most: they stay in a cache, as fresh messages would be.
const MAX_LANE: usize = 128 * 1024;

/// An ordered sequence of messages of one length, repeated for ever.
///
/// Message `at` begins with its number, so that one that is lost, doubled or out of place is seen at
/// once, and goes on with bytes that follow from number and lane.
#[derive(Clone)]
pub struct Lane(Arc<Built>);

struct Built {
    /// Each in memory of its own, as messages that came from somewhere else are.
    bodies: Vec<Bytes>,
    /// The same, each behind its length.
    prefixed: Vec<Vec<u8>>,
}

impl Lane {
    /// A lane of messages of `size` bytes, of `lanes` that are in use together.
    ///
    /// # Panics
    /// If the size is too small for number and lane, or too large for the prefix.
    pub fn new(number: u32, size: usize, lanes: usize) -> Self {
        assert!(
            (MIN_MESSAGE..=usize::from(u16::MAX)).contains(&size),
            "no message has {size} bytes"
        );
        // Not a power of two, so that no table of a peer's makes two messages meet by chance.
        let count = (MAX_LANE / size / lanes).clamp(13, 4_093);
        let bodies: Vec<Bytes> = (0..count as u64).map(|at| body(number, at, size)).collect();
        let prefixed =
            bodies.iter().map(|body| [&(size as u16).to_be_bytes()[..], body].concat()).collect();
        Self(Arc::new(Built { bodies, prefixed }))
    }

    /// `lanes` lanes for messages of `size` bytes.
    pub fn several(lanes: usize, size: usize) -> Vec<Self> {
        (0..lanes as u32).map(|number| Self::new(number, size, lanes)).collect()
    }

    /// Message `at`.
    pub fn body(&self, at: u64) -> &Bytes {
        &self.0.bodies[at as usize % self.0.bodies.len()]
    }

    /// Message `at` behind its length.
    pub fn prefixed(&self, at: u64) -> &[u8] {
        &self.0.prefixed[at as usize % self.0.prefixed.len()]
    }
}

fn body(lane: u32, at: u64, size: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(&at.to_be_bytes());
    bytes.extend_from_slice(&lane.to_be_bytes());
    // Any sequence without a short period will do.
    let mut state = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(lane);
    while bytes.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.push((state >> 56) as u8);
    }
    bytes.into()
}

/// What a receiver expects next, of one or of several lanes.
pub struct Check {
    lanes: Vec<(Lane, u64)>,
}

impl Check {
    pub fn new(lanes: &[Lane]) -> Self {
        Self { lanes: lanes.iter().map(|lane| (lane.clone(), 0)).collect() }
    }

    /// Takes one message.
    ///
    /// # Panics
    /// If it is not the next of its lane: whatever is measured is worth nothing then.
    pub fn message(&mut self, body: &[u8]) {
        let number = match &self.lanes[..] {
            [_] => 0,
            _ => lane_of(body),
        };
        let (lane, next) = &mut self.lanes[number];
        assert!(lane.body(*next) == body, "message {next} of lane {number} is not what was sent");
        *next += 1;
    }
}

fn lane_of(body: &[u8]) -> usize {
    let number = body.get(8..).and_then(|rest| rest.first_chunk()).expect("a message has a lane");
    u32::from_be_bytes(*number) as usize
}

/// An end that sends.
pub trait Sender: Send + 'static {
    /// Sends message `at` of the lane; may hold it back until the next call or `finish`.
    fn send(&mut self, lane: &Lane, at: u64) -> impl Future<Output = io::Result<()>> + Send;

    /// Lets everything out.
    fn finish(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

/// An end that receives.
pub trait Receiver: Send + 'static {
    /// Waits for messages, gives each to the check, and says how many there were: at least one.
    fn receive(&mut self, check: &mut Check) -> impl Future<Output = io::Result<u64>> + Send;
}

/// A peer: how it makes an encrypted channel of a connection.
pub trait Peer: Clone + Send + Sync + 'static {
    type End: Send + 'static;

    fn initiate(&self, stream: TcpStream) -> impl Future<Output = io::Result<Self::End>> + Send;

    fn respond(&self, stream: TcpStream) -> impl Future<Output = io::Result<Self::End>> + Send;
}

/// Both ends of a fresh connection: the initiator's, and the responder's.
pub async fn pair<P: Peer>(peer: &P) -> io::Result<(P::End, P::End)> {
    let listener = listener().await?;
    let address = listener.local_addr()?;
    let ours = async { peer.initiate(dial(address).await?).await };
    let theirs = async { peer.respond(accept(&listener).await?).await };
    tokio::try_join!(ours, theirs)
}

pub async fn listener() -> io::Result<TcpListener> {
    TcpListener::bind("127.0.0.1:0").await
}

pub async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A peer's error as one of I/O.
pub fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// The stream has ended where a message was due.
pub fn ended() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(lanes: &[Lane], bodies: &[&[u8]]) -> bool {
        let mut check = Check::new(lanes);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            bodies.iter().for_each(|body| check.message(body));
        }))
        .is_err()
    }

    #[test]
    fn a_check_sees_what_is_lost_doubled_changed_or_cut() {
        let lanes = Lane::several(1, 64);
        let (a, b) = (&lanes[0].body(0)[..], &lanes[0].body(1)[..]);
        let mut changed = a.to_vec();
        changed[63] ^= 1;
        assert!(!seen(&lanes, &[a, b]));
        for wrong in [&[b][..], &[a, a], &[&changed], &[&a[..63]]] {
            assert!(seen(&lanes, wrong));
        }
    }

    #[test]
    fn lanes_are_checked_apart() {
        let lanes = Lane::several(2, 64);
        let [a, b] = [0, 1].map(|lane: usize| lanes[lane].body(0).to_vec());
        assert_ne!(a, b);
        assert!(!seen(&lanes, &[&b, &a, lanes[1].body(1)]));
        assert!(seen(&lanes, &[&b, &b]));
    }
}
