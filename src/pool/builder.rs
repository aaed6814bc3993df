//! Building a pool.
//!
//! Owns the public builder: what a pool is made of, checked before anything runs.

use std::sync::Arc;

use crate::base::config::{Config, ConfigError};
use crate::base::identity::Identity;
use crate::pool::handle::Pool;
use crate::pool::hooks::Hooks;
use crate::pool::state::{PoolParts, PoolState};
use crate::session::{Inbox, SessionContext};
use crate::transport::native::Native;
use crate::transport::{AnyTransport, Connector, TcpConnector};
#[cfg(any(test, noise_pool_plain_wire))]
use crate::verify::plain::transport::Plain;

impl Pool {
    /// Begins to build a pool that speaks as `identity`.
    pub fn builder(identity: Identity) -> PoolBuilder {
        PoolBuilder {
            identity,
            config: Config::default(),
            connector: None,
            hooks: None,
            #[cfg(any(test, noise_pool_plain_wire))]
            plain_wire: cfg!(noise_pool_plain_wire),
        }
    }
}

/// Collects what a [`Pool`] is made of.
#[must_use = "a builder does nothing until `build`"]
pub struct PoolBuilder {
    identity: Identity,
    config: Config,
    connector: Option<Arc<dyn Connector>>,
    hooks: Option<Arc<dyn Hooks>>,
    /// It speaks the wire of tests, which lacks what a wire may lack.
    #[cfg(any(test, noise_pool_plain_wire))]
    pub(crate) plain_wire: bool,
}

impl PoolBuilder {
    /// The configuration; the default one otherwise.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// How peers are resolved and streams opened; otherwise TCP, which resolves no peer, so that
    /// every target needs an address.
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.connector = Some(Arc::new(connector));
        self
    }

    /// The application's checks; otherwise everybody is welcome.
    pub fn hooks(mut self, hooks: impl Hooks) -> Self {
        self.hooks = Some(Arc::new(hooks));
        self
    }

    /// Builds the pool and the inbox in which its messages arrive.
    ///
    /// # Errors
    /// The first value of the configuration that is out of bounds; [`ConfigError::NoRuntime`] outside
    /// a tokio runtime.
    ///
    /// # Panics
    /// In a runtime whose timers are disabled.
    pub fn build(self) -> Result<(Pool, Inbox), ConfigError> {
        tokio::runtime::Handle::try_current().map_err(|_| ConfigError::NoRuntime)?;
        let settings = Arc::new(self.config.validate()?);
        let (shared, inbox) = SessionContext::new(settings.clone());
        let connector = self.connector.unwrap_or_else(|| Arc::new(TcpConnector::default()));
        let transport = AnyTransport::Native(Native::new(self.identity.clone(), &settings));
        let peer = self.identity.peer_id();
        #[cfg(any(test, noise_pool_plain_wire))]
        let transport = match self.plain_wire {
            true => AnyTransport::Plain(Plain::new(peer, &settings)),
            false => transport,
        };
        let pool = Pool::new(PoolState::new(PoolParts {
            transport,
            peer,
            settings,
            connector,
            hooks: self.hooks,
            shared,
        }));
        Ok((pool, inbox))
    }
}

impl std::fmt::Debug for PoolBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("identity", &self.identity)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_a_runtime_the_error_says_so() {
        let built = Pool::builder(Identity::generate()).build();
        assert_eq!(built.err(), Some(ConfigError::NoRuntime));
    }
}
