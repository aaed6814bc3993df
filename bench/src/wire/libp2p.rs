//! libp2p's Noise channel, alone and under yamux, as a libp2p transport stacks them.

use std::future::poll_fn;
use std::io;

use futures::{AsyncRead, AsyncWrite, StreamExt as _, stream};
use libp2p_core::upgrade::{InboundConnectionUpgrade as _, OutboundConnectionUpgrade as _};
use libp2p_identity::Keypair;
use libp2p_noise::{Config, Output};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};
use yamux::{Connection, Mode};

use super::stream::{Flush, Messages};
use super::{Check, Lane, Peer, Receiver, Sender, other};

/// Noise XX with Ed25519 identities.
#[derive(Clone)]
pub struct Noise {
    initiator: Config,
    responder: Config,
    flush: Flush,
}

type Channel = Output<Compat<TcpStream>>;

impl Noise {
    pub fn new(flush: Flush) -> Self {
        let config = || Config::new(&Keypair::generate_ed25519()).expect("a fresh key is good");
        Self { initiator: config(), responder: config(), flush }
    }

    async fn dialled(&self, stream: TcpStream) -> io::Result<Channel> {
        let upgrade = self.initiator.clone().upgrade_outbound(stream.compat(), "/noise");
        Ok(upgrade.await.map_err(other)?.1)
    }

    async fn accepted(&self, stream: TcpStream) -> io::Result<Channel> {
        let upgrade = self.responder.clone().upgrade_inbound(stream.compat(), "/noise");
        Ok(upgrade.await.map_err(other)?.1)
    }
}

impl Peer for Noise {
    type End = Messages<Compat<Channel>>;

    async fn initiate(&self, stream: TcpStream) -> io::Result<Self::End> {
        Ok(Messages::new(self.dialled(stream).await?.compat(), self.flush))
    }

    async fn respond(&self, stream: TcpStream) -> io::Result<Self::End> {
        Ok(Messages::new(self.accepted(stream).await?.compat(), self.flush))
    }
}

/// The same under yamux: some streams, each flushed after each message (which costs it nothing).
#[derive(Clone)]
pub struct Yamux {
    noise: Noise,
    streams: usize,
}

/// One end's streams, and the task that drives their connection.
pub struct Streams {
    pub all: Vec<Stream>,
    _driver: Driver,
}

pub type Stream = Messages<Compat<yamux::Stream>>;

/// Ends its task with itself.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Yamux {
    pub fn new(streams: usize) -> Self {
        Self { noise: Noise::new(Flush::Each), streams }
    }
}

impl Peer for Yamux {
    type End = Streams;

    async fn initiate(&self, stream: TcpStream) -> io::Result<Streams> {
        let channel = self.noise.dialled(stream).await?;
        let mut connection = Connection::new(channel, yamux::Config::default(), Mode::Client);
        let mut all = Vec::new();
        for number in 0..self.streams {
            let stream = poll_fn(|cx| connection.poll_new_outbound(cx)).await.map_err(other)?;
            let mut stream = wrap(stream);
            // A stream exists for the other side with its first bytes; they tell which it is.
            let hello = Lane::new(number as u32, super::MIN_MESSAGE, 1);
            stream.send(&hello, 0).await?;
            all.push(stream);
        }
        Ok(Streams { all, _driver: drive(connection) })
    }

    async fn respond(&self, stream: TcpStream) -> io::Result<Streams> {
        let channel = self.noise.accepted(stream).await?;
        let mut connection = Connection::new(channel, yamux::Config::default(), Mode::Server);
        let mut inbound = Vec::new();
        while inbound.len() < self.streams {
            let next = poll_fn(|cx| connection.poll_next_inbound(cx)).await;
            inbound.push(wrap(next.ok_or_else(super::ended)?.map_err(other)?));
        }
        let driver = drive(connection);
        // Streams come in the order in which they were opened.
        for (number, stream) in inbound.iter_mut().enumerate() {
            let hello = Lane::new(number as u32, super::MIN_MESSAGE, 1);
            stream.receive(&mut Check::new(&[hello])).await?;
        }
        Ok(Streams { all: inbound, _driver: driver })
    }
}

fn wrap(stream: yamux::Stream) -> Stream {
    Messages::new(stream.compat(), Flush::Each)
}

/// A connection moves only while it is polled for inbound streams.
fn drive<T>(mut connection: Connection<T>) -> Driver
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    Driver(tokio::spawn(async move {
        let mut inbound = stream::poll_fn(|cx| connection.poll_next_inbound(cx));
        while let Some(Ok(_)) = inbound.next().await {}
    }))
}

impl Sender for Streams {
    async fn send(&mut self, lane: &Lane, at: u64) -> io::Result<()> {
        self.all[0].send(lane, at).await
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.all[0].finish().await
    }
}

impl Receiver for Streams {
    async fn receive(&mut self, check: &mut Check) -> io::Result<u64> {
        self.all[0].receive(check).await
    }
}
