//! A network that keeps the death of a machine to itself.
//!
//! When a process is killed, its kernel closes its connections, and the other end hears of it at once.
//! A machine that loses its power, or a NAT that forgets, tells nobody: the other end holds a session
//! that is dead, and whatever it writes goes nowhere. This relay makes that of a killed process.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Relays connections to one address; their ends never pass. Dropping it cuts all of them.
pub(crate) struct Silence {
    /// Where to connect instead.
    pub(crate) address: SocketAddr,
    _accepts: JoinSet<()>,
}

impl Silence {
    /// A relay to `target`.
    pub(crate) async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let mut accepts = JoinSet::new();
        accepts.spawn(async move {
            let mut relays = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                relays.spawn(relay(near, target));
            }
        });
        Self { address, _accepts: accepts }
    }
}

async fn relay(near: TcpStream, target: SocketAddr) {
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    let (near_reads, near_writes) = near.into_split();
    let (far_reads, far_writes) = far.into_split();
    tokio::join!(one_way(near_reads, far_writes), one_way(far_reads, near_writes));
}

/// Both halves stay open for as long as the task lives, whatever happens to the other side.
async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut bytes = vec![0; 16 << 10];
    // What nobody is there to take is swallowed.
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        let _ = to.write_all(&bytes[..n]).await;
    }
    std::future::pending().await
}
