//! One pool with many real sessions, over streams in memory, to peers that are silent.

use std::sync::Arc;
use std::time::Duration;

use noise_pool::{Config, Identity, Inbox, PeerId, Pool, Role, SessionId};
use tokio::io::DuplexStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::raw;
use crate::pools::Connection;

/// Handshakes at one time.
const AT_ONCE: usize = 32;
/// Bytes on their way: a frame of a handshake fits.
const STREAM: usize = 1024;

/// A pool and its sessions.
pub struct Crowd {
    pub pool: Pool,
    /// In the order in which they came.
    pub members: Vec<Member>,
    _inbox: Inbox,
    next: u64,
}

/// A peer with its session.
pub struct Member {
    pub peer: PeerId,
    pub session: SessionId,
    /// Made with the session, and so as far from those of others as sessions are in memory.
    pub beside: Arc<Connection>,
    /// Held, so that the session lives.
    _far: DuplexStream,
}

/// A runtime as an application has it, on two threads.
pub fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads are to be had")
}

/// A configuration with room for `sessions`, in which nothing happens that a measurement does not ask
/// for.
pub fn quiet(sessions: usize) -> Config {
    const HOUR: Duration = Duration::from_secs(3600);
    Config::default()
        .max_sessions(sessions)
        .max_inbound(sessions)
        .max_idle(None)
        .max_age(None)
        .ping_after(HOUR)
        .keepalive(HOUR)
        .stall_timeout(HOUR)
}

impl Crowd {
    /// A pool without sessions.
    pub async fn new(config: Config) -> Self {
        let (pool, _inbox) =
            Pool::builder(Identity::generate()).config(config).build().expect("the bounds hold");
        Self { pool, members: Vec::new(), _inbox, next: 0 }
    }

    /// A pool with so many sessions.
    pub async fn of(sessions: usize, config: Config) -> Self {
        let mut crowd = Self::new(config).await;
        crowd.grow(sessions).await;
        crowd
    }

    /// So many more sessions.
    pub async fn grow(&mut self, by: usize) {
        let wanted = self.members.len() + by;
        self.members.reserve_exact(by);
        let mut tasks = JoinSet::new();
        let mut begun = self.members.len();
        while self.members.len() < wanted {
            while begun < wanted && tasks.len() < AT_ONCE {
                begun += 1;
                self.next += 1;
                tasks.spawn(meet(self.pool.clone(), raw::secret(self.next)));
            }
            let member = tasks.join_next().await.expect("one is under way");
            self.members.push(member.expect("a handshake does not panic"));
        }
    }
}

async fn meet(pool: Pool, secret: [u8; 32]) -> Member {
    let (near, mut far) = tokio::io::duplex(STREAM);
    let id = pool.id();
    let (lease, dialled) =
        tokio::join!(pool.adopt(near, Role::Responder), raw::dial(&mut far, &secret, &id));
    let lease = lease.expect("the pool accepts");
    dialled.expect("the peer is accepted");
    let beside = Arc::new(Connection(0));
    Member { peer: lease.peer(), session: lease.session_id(), beside, _far: far }
}
