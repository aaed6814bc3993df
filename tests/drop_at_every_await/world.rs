//! The world of a case: two pools, and what a case needs besides.
//!
//! Owns what must hold of it when the future is gone: nothing is held, it works, and its end releases
//! everything.

use std::time::Duration;

use bytes::Bytes;
use noise_pool::error::SendErrorKind;
use noise_pool::event::{Events, PoolEvent};
use noise_pool::snapshot::LimitUse;
use noise_pool::{Config, ExclusiveLease, Inbox, Lease, Pool};

use super::support::net::{Line, Net, address};
use super::support::{self, identity, soon, until};

/// Two pools, and whatever a case needs besides.
pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) a: Pool,
    pub(crate) a_inbox: Inbox,
    pub(crate) b: Pool,
    pub(crate) b_inbox: Inbox,
    pub(crate) lease: Option<Lease>,
    pub(crate) exclusive: Option<ExclusiveLease>,
    pub(crate) events: Option<Events>,
    /// What the future under test received, in order.
    pub(crate) heard: Vec<Bytes>,
    pub(crate) told: Vec<PoolEvent>,
    /// What A's callers were told is accepted for B, in order.
    pub(crate) accepted: Vec<Bytes>,
    /// What may have travelled with a handshake when its caller went.
    pub(crate) under_way: Option<Bytes>,
    /// What B sent to A, in order.
    pub(crate) to_a: Vec<Bytes>,
    /// A was closed, and what it had accepted may be lost.
    pub(crate) cut: bool,
    /// Tasks before the future began.
    pub(crate) tasks: usize,
    pub(crate) next: u8,
}

/// Connecting to this identity never ends.
pub(crate) const SILENT: u8 = 3;

/// Messages of the greatest size fill a queue by twos.
const MESSAGE: usize = 64;

fn config() -> Config {
    Config::default()
        .max_message_size(MESSAGE)
        .min_queue(256)
        .max_queue(256)
        .max_undelivered(256)
        .inbox_bytes(256)
}

impl World {
    pub(crate) fn new() -> Self {
        let net = Net::new(Line::ByByte);
        net.line(&address(identity(SILENT).peer_id(), 1), Line::SILENT);
        let (a, a_inbox) = net.pool(identity(1), config());
        let (b, b_inbox) = net.pool(identity(2), config());
        Self {
            net,
            a,
            a_inbox,
            b,
            b_inbox,
            lease: None,
            exclusive: None,
            events: None,
            heard: Vec::new(),
            told: Vec::new(),
            accepted: Vec::new(),
            under_way: None,
            to_a: Vec::new(),
            cut: false,
            tasks: 0,
            next: 0,
        }
    }

    /// A message that was not sent before.
    pub(crate) fn message(&mut self) -> Bytes {
        self.next += 1;
        Bytes::from(vec![self.next; MESSAGE])
    }

    pub(crate) async fn connect(&mut self) {
        self.lease = Some(soon("a lease", self.a.get_or_dial(self.b.id())).await.unwrap());
        until("B has it too", || self.b.contains(&self.a.id())).await;
    }

    pub(crate) async fn connect_exclusively(&mut self) {
        let taken = soon("all leases", self.a.get_exclusive(self.b.id())).await.unwrap();
        self.exclusive = Some(taken);
        until("B has it too", || self.b.contains(&self.a.id())).await;
    }

    /// Sends a message if the queue has room.
    pub(crate) fn offer(&mut self) -> Result<(), SendErrorKind> {
        let message = self.message();
        let sent = self.lease.as_ref().unwrap().try_send(message.clone());
        sent.map_err(|error| error.kind)?;
        self.accepted.push(message);
        Ok(())
    }

    /// Sends until B's inbox, the stream and our queue take no more.
    pub(crate) async fn fill(&mut self) {
        self.connect().await;
        let mut full = 0;
        while full < 2 {
            match self.offer() {
                Ok(()) => full = 0,
                Err(kind) => {
                    assert_eq!(kind, SendErrorKind::Full);
                    full += 1;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }

    /// Ends A and starts it again, with the same identity.
    pub(crate) async fn restart(&mut self) {
        soon("A closes", self.a.close()).await;
        all_released(&self.a, &mut self.a_inbox).await;
        self.net.remove(self.a.id());
        until("B has noticed", || !self.b.contains(&self.a.id())).await;
        (self.a, self.a_inbox) = self.net.pool(identity(1), config());
    }

    /// A fresh call, messages and their way back, and all leases at once. What came to B before it.
    pub(crate) async fn works(&mut self) -> Vec<Bytes> {
        let fresh = Bytes::from_static(b"fresh");
        let lease = soon("a fresh lease", self.a.get_or_dial(self.b.id())).await.unwrap();
        let (sent, came) = soon("a round trip", async {
            tokio::join!(lease.send(fresh.clone()), read_up_to(&mut self.b_inbox, &fresh))
        })
        .await;
        sent.unwrap();
        // No caller that has gone still stands in the line for room.
        soon("a flush", lease.flush()).await.unwrap();
        lease.try_send(fresh.clone()).unwrap();
        assert_eq!(soon("no wait", read_up_to(&mut self.b_inbox, &fresh)).await, [] as [Bytes; 0]);
        let back = self.b.get(&self.a.id()).expect("the other end of the session");
        back.send(fresh.clone()).await.unwrap();
        drop(back);
        self.heard.extend(soon("the answer", read_up_to(&mut self.a_inbox, &fresh)).await);
        drop(lease);
        drop(soon("all leases", self.a.get_exclusive(self.b.id())).await.unwrap());
        came
    }
}

async fn read_up_to(inbox: &mut Inbox, last: &Bytes) -> Vec<Bytes> {
    let mut came = Vec::new();
    loop {
        match inbox.recv().await.expect("the pool lives").body {
            body if body == last => return came,
            body => came.push(body),
        }
    }
}

/// Every permit of a pool that has ended is back, once its inbox was read out.
pub(crate) async fn all_released(pool: &Pool, inbox: &mut Inbox) {
    while soon("the inbox ends", inbox.recv()).await.is_some() {}
    let snapshot = pool.snapshot();
    let l = &snapshot.limits;
    let uses = [
        ("sessions", &l.sessions),
        ("inbound", &l.inbound),
        ("draining", &l.draining),
        ("dials", &l.dials),
        ("queued dials", &l.queued_dials),
        ("pending handshakes", &l.pending_handshakes),
        ("discarding", &l.discarding),
        ("buffered bytes", &l.buffered_bytes),
        ("inbox bytes", &l.inbox_bytes),
    ];
    let held: Vec<(&str, &LimitUse)> = uses.into_iter().filter(|(_, u)| u.held > 0).collect();
    assert_eq!(held, [], "released by the end");
    assert_eq!((snapshot.sessions.len(), snapshot.dials.len()), (0, 0));
    assert_eq!(support::slots(pool), 0);
}
