//! The pool's state: its parts, and how they hang together.
//!
//! Owns no rule. Each part has its methods in its own file; a part knows those that stand above it here.

use std::sync::Arc;

use crate::base::config::Settings;
use crate::base::id::PeerId;
use crate::pool::acquire::Acquirer;
use crate::pool::checks::Checks;
use crate::pool::context::Context;
use crate::pool::dial::{Dialer, RaceParts};
use crate::pool::hooks::Hooks;
use crate::pool::inbound::{DecisionParts, Listeners, Responder};
use crate::pool::lifecycle::Lifecycle;
use crate::pool::limits::Capacity;
use crate::pool::persistent::PersistentPeers;
use crate::pool::reaper::Reaper;
use crate::pool::sessions::SessionTable;
use crate::pool::suspend::SuspendWatch;
use crate::session;
use crate::transport::seam::Transport as _;
use crate::transport::{AnyTransport, Connector};

/// See the module.
pub(crate) struct PoolState {
    /// Settings, counters, events.
    pub(crate) ctx: Arc<Context>,
    /// How far the pool's life is, and its tasks.
    pub(crate) lifecycle: Arc<Lifecycle>,
    /// What all handshakes share.
    pub(crate) transport: AnyTransport,
    /// The slots, and what drains.
    pub(crate) sessions: Arc<SessionTable>,
    /// Room for sessions.
    pub(crate) capacity: Arc<Capacity>,
    /// Dials.
    pub(crate) dialer: Arc<Dialer>,
    /// How leases are had.
    pub(crate) acquirer: Arc<Acquirer>,
    /// Handshakes of inbound connections.
    pub(crate) responder: Arc<Responder>,
    /// The sockets that inbound connections come from.
    pub(crate) listeners: Arc<Listeners>,
    /// Peers that are dialled again whenever their session is lost.
    pub(crate) persistent: PersistentPeers,
}

/// What a pool is made of.
pub(crate) struct PoolParts {
    pub(crate) settings: Arc<Settings>,
    pub(crate) transport: AnyTransport,
    pub(crate) peer: PeerId,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) hooks: Option<Arc<dyn Hooks>>,
    pub(crate) shared: Arc<session::SessionContext>,
}

impl PoolState {
    /// A pool whose expiry runs.
    pub(crate) fn new(parts: PoolParts) -> Self {
        let PoolParts { settings, transport, peer, connector, hooks, shared } = parts;
        let ctx = Context::new(settings, peer);
        let lifecycle = Arc::new(Lifecycle::new());
        let checks = Checks::new(ctx.clone(), hooks);
        let sessions = SessionTable::new(
            ctx.clone(),
            lifecycle.clone(),
            checks.clone(),
            shared,
            transport.abilities(),
        );
        let capacity = Capacity::new(ctx.clone(), sessions.clone());
        let race_parts = RaceParts {
            ctx: ctx.clone(),
            checks: checks.clone(),
            connector,
            transport: transport.clone(),
        };
        let dialer = Dialer::new(lifecycle.clone(), sessions.clone(), capacity.clone(), race_parts);
        let acquirer = Acquirer::new(ctx.clone(), sessions.clone(), dialer.clone());
        let responder = Responder::new(DecisionParts {
            ctx: ctx.clone(),
            lifecycle: lifecycle.clone(),
            checks: checks.clone(),
            sessions: sessions.clone(),
            capacity: capacity.clone(),
            transport: transport.clone(),
        });
        Reaper::new(ctx.clone(), lifecycle.clone(), sessions.clone()).spawn();
        sessions.carry_over.clone().spawn(&lifecycle);
        SuspendWatch::new(ctx.clone(), sessions.clone()).spawn(&lifecycle);
        Self {
            listeners: Listeners::new(ctx.clone(), lifecycle.clone(), checks, responder.clone()),
            persistent: PersistentPeers::new(
                ctx.clone(),
                lifecycle.clone(),
                sessions.clone(),
                acquirer.clone(),
            ),
            ctx,
            lifecycle,
            transport,
            sessions,
            capacity,
            dialer,
            acquirer,
            responder,
        }
    }
}
