//! A network that holds what comes until it is told to let it through.
//!
//! Whoever dials through it is connected at once, and hears nothing before the release: so two can be
//! made to dial each other with neither having heard of the other's dial.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Relays connections to one address, once it is released. Dropping it cuts all of them.
pub(crate) struct Hold {
    /// Where to connect instead.
    pub(crate) address: SocketAddr,
    released: watch::Sender<bool>,
    /// Connections accepted.
    dials: watch::Receiver<usize>,
    _accepts: JoinSet<()>,
}

impl Hold {
    /// A relay to `target`.
    pub(crate) async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (released, release) = watch::channel(false);
        let (count, dials) = watch::channel(0);
        let mut accepts = JoinSet::new();
        accepts.spawn(async move {
            let mut relays = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                count.send_modify(|dials| *dials += 1);
                relays.spawn(relay(near, target, release.clone()));
            }
        });
        Self { address, released, dials, _accepts: accepts }
    }

    /// Waits until somebody has dialled.
    pub(crate) async fn dialled(&self) {
        self.dials.clone().wait_for(|dials| *dials > 0).await.expect("it accepts");
    }

    /// Lets everything through from now on.
    pub(crate) fn release(&self) {
        self.released.send_replace(true);
    }
}

async fn relay(mut near: TcpStream, target: SocketAddr, mut release: watch::Receiver<bool>) {
    if release.wait_for(|released| *released).await.is_err() {
        return;
    }
    if let Ok(mut far) = TcpStream::connect(target).await {
        // It ends when both sides have, or when one is cut: nobody is here to be told.
        let _ = copy_bidirectional(&mut near, &mut far).await;
    }
}
