//! Building a pool.
//!
//! Owns the public builder: what a pool is made of, checked before anything runs.

use std::sync::Arc;

use crate::base::config::{Config, ConfigError};
use crate::base::identity::Identity;
use crate::pool::hooks::Hooks;
use crate::pool::inner::{Inner, Parts};
use crate::pool::{Owner, Pool};
use crate::session::{Inbox, SessionContext};
use crate::transport::native::Native;
use crate::transport::{Connector, TcpConnector};

/// Collects what a [`Pool`] is made of.
#[must_use = "a builder does nothing until `build`"]
pub struct PoolBuilder {
    identity: Identity,
    config: Config,
    connector: Option<Arc<dyn Connector>>,
    hooks: Option<Arc<dyn Hooks>>,
}

impl PoolBuilder {
    pub(crate) fn new(identity: Identity) -> Self {
        Self { identity, config: Config::default(), connector: None, hooks: None }
    }

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
        let (session_shared, inbox) = SessionContext::new(settings.clone());
        let connector = self.connector.unwrap_or_else(|| {
            Arc::new(TcpConnector::default().user_timeout(settings.stall_timeout))
        });
        let inner = Inner::new(Parts {
            native: Native::new(self.identity.clone(), &settings),
            peer: self.identity.peer_id(),
            settings,
            connector,
            hooks: self.hooks,
            session_shared,
        });
        inner.spawn_reaper();
        Ok((Pool { owner: Arc::new(Owner { inner }) }, inbox))
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
