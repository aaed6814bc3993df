//! Plain TCP: the default [`Connector`], the listener, and the options that both set on a stream.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, lookup_host};

use super::connector::Connector;
use crate::base::address::Address;
use crate::base::io::{BoxFuture, BoxedStream, TargetData};

/// As long as a session's default `stall_timeout`: nothing in this crate waits longer for a write.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects by TCP.
///
/// Sets `TCP_NODELAY`, since the session already sends together what belongs together, and
/// `TCP_USER_TIMEOUT` where it exists, so that a vanished peer is noticed by the system as well.
/// An [`Address::Host`] is looked up with the system's resolver, and what it finds is tried in
/// order. It resolves no peer by itself: targets must bring their addresses.
#[derive(Clone, Debug)]
pub struct TcpConnector {
    user_timeout: Duration,
}

impl Default for TcpConnector {
    fn default() -> Self {
        Self { user_timeout: USER_TIMEOUT }
    }
}

impl TcpConnector {
    /// How long written bytes may stay unacknowledged before the system gives the connection up
    /// (`TCP_USER_TIMEOUT`, RFC 5482). The default is 30 s.
    #[must_use]
    pub fn user_timeout(mut self, timeout: Duration) -> Self {
        self.user_timeout = timeout;
        self
    }
}

impl Connector for TcpConnector {
    fn connect<'a>(
        &'a self,
        address: &'a Address,
        _data: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move {
            let stream = match address {
                Address::Socket(socket) => TcpStream::connect(socket).await?,
                Address::Host { host, port } => connect_host(host, *port).await?,
            };
            configure(&stream, self.user_timeout)?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }
}

async fn connect_host(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for socket in lookup_host((host, port)).await? {
        match TcpStream::connect(socket).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Accepts TCP connections.
pub(crate) struct Listener {
    listener: TcpListener,
    user_timeout: Duration,
}

impl Listener {
    /// Listens on `address`; port 0 picks one. `user_timeout` is as for [`TcpConnector`].
    pub(crate) async fn bind(address: SocketAddr, user_timeout: Duration) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, user_timeout })
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

    /// Sets the options of a connection that is let in: one that is turned away costs no system call.
    pub(crate) fn configure(&self, stream: &TcpStream) -> io::Result<()> {
        configure(stream, self.user_timeout)
    }
}

/// Sets what every TCP stream of the pool has set, dialled or accepted.
fn configure(stream: &TcpStream, user_timeout: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(user_timeout))?;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = user_timeout;
    Ok(())
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

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_options_are_set() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        configure(&stream, Duration::from_secs(12)).unwrap();
        assert!(stream.nodelay().unwrap());
        let socket = socket2::SockRef::from(&stream);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(12)));
    }

    #[tokio::test]
    async fn it_resolves_nobody() {
        let peer = crate::base::id::PeerId::from_bytes([7; 32]);
        let found = TcpConnector::default().resolve(&peer, None).await.unwrap();
        assert!(found.is_empty());
    }
}
