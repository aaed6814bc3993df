//! The listeners, and what a connection passes before its handshake.
//!
//! Owns the sockets that are listened on and the rate of handshakes per source. A connection that is
//! turned away here costs no cryptography.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tracing::{Instrument as _, warn};

use crate::base::address::Address;
use crate::base::error::{Limit, ListenError};
use crate::base::sync::{Mutex, lock};
use crate::pool::checks::Checks;
use crate::pool::context::Context;
use crate::pool::lifecycle::Lifecycle;
use crate::proto::rate_limit::RateLimiter;
use crate::session::Driver;
use crate::transport::Listener;

use super::decide::{AcceptedSession, DriverTask};
use super::handshake::Responder;
use super::pending::HandshakePermit;

/// How long a listener rests after the system refused it a connection for want of descriptors or
/// memory: long enough not to spin, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// See the module.
pub(crate) struct Listeners {
    ctx: Arc<Context>,
    lifecycle: Arc<Lifecycle>,
    checks: Arc<Checks>,
    responder: Arc<Responder>,
    sources: Mutex<RateLimiter>,
    addresses: Mutex<Vec<SocketAddr>>,
}

impl Listeners {
    pub(crate) fn new(
        ctx: Arc<Context>,
        lifecycle: Arc<Lifecycle>,
        checks: Arc<Checks>,
        responder: Arc<Responder>,
    ) -> Arc<Self> {
        let settings = &ctx.settings;
        let sources = RateLimiter::new(
            settings.source_burst,
            settings.source_rate,
            settings.source_table,
            settings.limit_loopback,
        );
        let (sources, addresses) = (Mutex::new(sources), Mutex::default());
        Arc::new(Self { ctx, lifecycle, checks, responder, sources, addresses })
    }

    /// The addresses that are listened on.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        lock(&self.addresses).clone()
    }

    /// Opens a listener and accepts on it until the pool drains or closes.
    pub(crate) async fn listen(
        self: &Arc<Self>,
        address: SocketAddr,
    ) -> Result<SocketAddr, ListenError> {
        if !self.lifecycle.is_open() {
            return Err(ListenError::PoolClosed);
        }
        let failed = |source| ListenError::Bind { address, source };
        let listener = Listener::bind(address).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        lock(&self.addresses).push(local);
        let listeners = self.clone();
        self.lifecycle.spawn_service(async move {
            tokio::select! {
                biased;
                () = listeners.lifecycle.accepting().cancelled() => {}
                () = listeners.accept_on(listener) => {}
            }
            // The socket is closed by now: an address that is not listed can be bound again.
            lock(&listeners.addresses).retain(|a| *a != local);
        });
        Ok(local)
    }

    async fn accept_on(self: &Arc<Self>, listener: Listener) {
        loop {
            match listener.accept().await {
                Ok((stream, source)) => {
                    if let Some(permit) = self.let_in(source) {
                        self.spawn(stream, source, permit);
                    }
                }
                Err(error) => {
                    // A connection that was reset before we took it, or no descriptors.
                    warn!(%error, "accepting failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// A place among the pending handshakes, if the source has not had too many.
    fn let_in(&self, source: SocketAddr) -> Option<HandshakePermit> {
        if !lock(&self.sources).admit(source.ip(), Instant::now().into_std()) {
            self.ctx.counters.handshake_failures.source_limited.one();
            self.ctx.limit_hit(Limit::SourceRate);
            return None;
        }
        self.responder.enter()
    }

    fn spawn(self: &Arc<Self>, stream: TcpStream, source: SocketAddr, permit: HandshakePermit) {
        let span = tracing::info_span!("accept", remote = %source, role = "responder");
        let listeners = self.clone();
        let stop = permit.stop().clone();
        let opening = async move {
            tokio::select! {
                biased;
                () = stop.killed() => None,
                driver = listeners.admit(stream, source, permit) => driver,
            }
        };
        self.lifecycle.spawn_connection(opening.instrument(span));
    }

    /// Asks the application about the source, then runs the handshake: up to a session or to none.
    async fn admit(
        &self,
        stream: TcpStream,
        source: SocketAddr,
        permit: HandshakePermit,
    ) -> Option<Driver> {
        if self.checks.asks_about_addresses() {
            let admitted = tokio::select! {
                biased;
                () = permit.stop().aborted() => return None,
                admitted = self.checks.admit(&source) => admitted,
            };
            if admitted.is_err() {
                if permit.failed() {
                    self.ctx.counters.handshake_failures.not_admitted.one();
                }
                return None;
            }
        }
        let remote = Some(Address::from(source));
        // A failure is counted and reported where it is decided.
        let responding =
            self.responder.respond(Listener::open(stream), remote, permit, DriverTask::Acceptor);
        let AcceptedSession { leases, driver } = responding.await.ok()?;
        self.responder.release(leases);
        driver
    }
}
