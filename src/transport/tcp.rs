//! Plain TCP: the default [`Connector`], and the listener.
//!
//! Owns how TCP connections are made. How they are used afterwards is in [`tcp_stream`](super::tcp_stream).

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::time::timeout;
use tracing::debug;

use super::connector::Connector;
use super::tcp_stream::PacedStream;
use crate::base::address::Address;
use crate::base::io::{BoxFuture, BoxedStream, TargetData};

/// After this time without an answer a SYN counts as lost.
const RENEW_AFTER: Duration = Duration::from_secs(1);

/// Connects by TCP.
///
/// Sets `TCP_NODELAY`, since the session already sends together what belongs together, and
/// `TCP_NOTSENT_LOWAT` where it exists, so that messages wait in the session, where they have deadlines
/// and control records pass them, and not in the kernel. It sets no time-out of the kernel's: those
/// count the time in which a peer reads nothing, though it says that it is alive. The session finds a
/// vanished peer itself.
///
/// While an address does not answer, it is tried anew each second, so that a link that comes back is used
/// at once.
///
/// An [`Address::Host`] is looked up with the system's resolver, and what it finds is tried in
/// order. It resolves no peer by itself: targets must bring their addresses.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TcpConnector {}

impl Connector for TcpConnector {
    fn connect<'a>(
        &'a self,
        address: &'a Address,
        _data: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move {
            let stream = match address {
                Address::Socket(socket) => connect_socket(*socket).await?,
                Address::Host { host, port } => connect_host(host, *port).await?,
            };
            let (stream, set) = PacedStream::new(stream);
            set?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }
}

async fn connect_host(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for socket in lookup_host((host, port)).await? {
        match connect_socket(socket).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Connects, whatever the system makes of the SYN: it sends one that was lost again after 1, 3 and 7 s, so
/// that a link which is back would be found late. The first attempt has all the time that the caller gives
/// it, since its way may be long; beside it another begins each second, in the place of the one before.
async fn connect_socket(socket: SocketAddr) -> io::Result<TcpStream> {
    let mut first = pin!(TcpStream::connect(socket));
    if let Ok(connected) = timeout(RENEW_AFTER, first.as_mut()).await {
        return connected;
    }
    loop {
        let renewed = timeout(RENEW_AFTER, TcpStream::connect(socket));
        tokio::select! {
            biased;
            connected = &mut first => return connected,
            renewed = renewed => if let Ok(connected) = renewed {
                return connected;
            },
        }
    }
}

/// Accepts TCP connections.
pub(crate) struct Listener {
    listener: TcpListener,
}

impl Listener {
    /// Listens on `address`; port 0 picks one.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// The address that is really listened on.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection, and where it comes from.
    ///
    /// # Cancel safety
    /// Safe: a connection that was not returned stays with the system.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.listener.accept().await
    }

    /// A connection that is let in, as its handshake gets it: one that is turned away costs no system
    /// call.
    pub(crate) fn open(stream: TcpStream) -> BoxedStream {
        let (stream, set) = PacedStream::new(stream);
        if let Err(error) = set {
            debug!(%error, "socket options refused");
        }
        Box::new(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn sockets_and_names_are_connected() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connector = TcpConnector::default();
        for text in [format!("127.0.0.1:{port}"), format!("localhost:{port}")] {
            let address: Address = text.parse().unwrap();
            let mut ours = connector.connect(&address, None).await.unwrap();
            let (mut theirs, _) = listener.accept().await.unwrap();
            ours.write_all(b"x").await.unwrap();
            assert_eq!(theirs.read_u8().await.unwrap(), b'x');
        }
    }

    #[tokio::test]
    async fn a_closed_port_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Socket(listener.local_addr().unwrap());
        drop(listener);
        let error = TcpConnector::default().connect(&address, None).await.err();
        assert_eq!(error.unwrap().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn it_resolves_nobody() {
        let peer = crate::base::id::PeerId::from_bytes([7; 32]);
        let found = TcpConnector::default().resolve(&peer, None).await.unwrap();
        assert!(found.is_empty());
    }
}
