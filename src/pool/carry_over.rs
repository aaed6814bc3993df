//! What sessions that have ended had not sent, until their peers have other sessions.
//!
//! Owns those messages, for `carry_over` each, for at most as many peers as may have sessions; and what
//! becomes of them when no session comes. Nothing here dials. Messages are the application's memory:
//! they must be dropped where no lock is held, so that what is not kept is handed back.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::base::error::CloseReason;
use crate::base::event::PoolEvent;
use crate::base::id::PeerId;
use crate::base::sync::{Mutex, lock};
use crate::pool::context::Context;
use crate::pool::lifecycle::Lifecycle;
use crate::session::Unsent;

/// See the module.
pub(crate) struct CarryOver {
    ctx: Arc<Context>,
    table: Mutex<Table>,
    /// Notified when there is something to watch.
    appeared: Notify,
}

#[derive(Default)]
struct Table {
    held: HashMap<PeerId, Held>,
    /// When each is given up.
    order: BTreeSet<(Instant, PeerId)>,
    /// Those that are, until somebody says so who holds no lock.
    given_up: Vec<(PeerId, Unsent)>,
}

struct Held {
    until: Instant,
    unsent: Unsent,
}

impl Table {
    fn take(&mut self, peer: &PeerId) -> Option<Unsent> {
        let Held { until, unsent } = self.held.remove(peer)?;
        self.order.remove(&(until, *peer));
        Some(unsent)
    }

    fn give_up(&mut self, peer: PeerId, unsent: Option<Unsent>) {
        self.given_up.extend(unsent.map(|unsent| (peer, unsent)));
    }

    /// Gives up what has been kept longest.
    fn give_up_first(&mut self) {
        if let Some((_, peer)) = self.order.first().copied() {
            let unsent = self.take(&peer);
            self.give_up(peer, unsent);
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.order.first().map(|(until, _)| *until)
    }
}

impl CarryOver {
    pub(crate) fn new(ctx: Arc<Context>) -> Arc<Self> {
        Arc::new(Self { ctx, table: Mutex::default(), appeared: Notify::new() })
    }

    /// Whether the peer's next session sends what a session has left that was retired for this reason.
    pub(crate) fn applies(&self, retired: CloseReason) -> bool {
        let application_ended_it = matches!(
            retired,
            CloseReason::Disconnected | CloseReason::Drained | CloseReason::PoolClosed
        );
        self.ctx.settings.carry_over.is_some() && !application_ended_it
    }

    /// Keeps messages for the peer's next session, behind those that are kept for it already. Called
    /// under the lock of the peer's slot, which has no session.
    pub(crate) fn keep(&self, peer: PeerId, unsent: Unsent) {
        let mut table = lock(&self.table);
        let Some(time) = self.ctx.settings.carry_over else {
            return table.give_up(peer, Some(unsent));
        };
        let unsent = match table.take(&peer) {
            Some(mut earlier) => {
                earlier.append(unsent);
                earlier
            }
            None => unsent,
        };
        if table.held.len() >= self.ctx.settings.max_sessions {
            table.give_up_first();
        }
        let until = Instant::now() + time;
        table.order.insert((until, peer));
        table.held.insert(peer, Held { until, unsent });
        drop(table);
        self.appeared.notify_one();
    }

    /// Takes what is kept for a peer.
    pub(crate) fn take(&self, peer: &PeerId) -> Option<Unsent> {
        lock(&self.table).take(peer)
    }

    /// Nobody sends these. May be called under a lock; [`report`](Self::report) is to follow.
    pub(crate) fn give_up(&self, peer: PeerId, unsent: Unsent) {
        lock(&self.table).give_up(peer, Some(unsent));
    }

    /// Gives up what is kept for a peer, and says so.
    pub(crate) fn forget(&self, peer: &PeerId) {
        let mut table = lock(&self.table);
        let unsent = table.take(peer);
        table.give_up(*peer, unsent);
        drop(table);
        self.report();
    }

    /// Gives up all that is kept, and says so.
    pub(crate) fn clear(&self) {
        let mut table = lock(&self.table);
        while table.next_due().is_some() {
            table.give_up_first();
        }
        drop(table);
        self.report();
    }

    /// Says what is given up, and drops it. Not to be called under a lock.
    pub(crate) fn report(&self) {
        let given_up = std::mem::take(&mut lock(&self.table).given_up);
        for (peer, unsent) in given_up {
            let messages = unsent.messages();
            debug!(peer = %peer.short(), messages, "messages were not sent");
            self.ctx.counters.messages_unsent.add(messages);
            self.ctx.events.publish(|| PoolEvent::Unsent { peer, messages });
        }
    }

    /// Starts the watch that gives up what has waited for long enough.
    pub(crate) fn spawn(self: Arc<Self>, lifecycle: &Lifecycle) {
        if self.ctx.settings.carry_over.is_none() {
            return;
        }
        lifecycle.spawn_watch(async move { self.watch().await });
    }

    async fn watch(&self) {
        loop {
            let appeared = self.appeared.notified();
            let now = Instant::now();
            let next = {
                let mut table = lock(&self.table);
                while table.next_due().is_some_and(|due| due <= now) {
                    table.give_up_first();
                }
                table.next_due()
            };
            self.report();
            match next {
                Some(next) => sleep_until(next).await,
                None => appeared.await,
            }
        }
    }
}
