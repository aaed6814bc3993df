//! From `Config` to `Settings`: every bound is checked here, once, when the pool is built.
//!
//! Owns the bounds between fields, and the lengths of fields that hold bytes. Ranges stand in the
//! table of options.

use super::check::{at_least, at_most};
use super::error::ConfigError;
use super::options::{Config, Settings, message_cost};

/// Bytes of a network id: one length byte describes it in the prologue.
const MAX_NETWORK_ID: usize = 255;
/// Most bytes of an application payload, in a verdict as in handshake message 3: with the fixed fields
/// it must fit a handshake message.
pub(crate) const MAX_APPLICATION_PAYLOAD: usize = 16 * 1024;

impl Config {
    /// Whether a pool could be built with it: for a router that checks its file before it uses it.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first field that is not usable, what is wrong with it, and what to do.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.clone().validate().map(drop)
    }

    /// Checks every bound, once.
    pub(crate) fn validate(self) -> Result<Settings, ConfigError> {
        self.check_ranges()?;
        at_most("network_id", self.network_id.len(), MAX_NETWORK_ID)?;
        check_application_payload(&self.application_payload)?;

        // One message of the greatest size must fit wherever messages wait, or it would wait for ever.
        let message = ("max_message_size", message_cost(self.max_message_size));
        at_least("max_queue", self.max_queue, message)?;
        at_least("max_buffered_bytes", self.max_buffered_bytes, message)?;
        at_least("max_undelivered", self.max_undelivered, message)?;
        at_least("inbox_bytes", self.inbox_bytes, ("max_undelivered", self.max_undelivered))?;
        at_least("max_queue", self.max_queue, ("min_queue", self.min_queue))?;

        let connect = ("connect_timeout", self.connect_timeout);
        at_least("dial_timeout", self.dial_timeout, connect)?;
        let message1 = ("message1_timeout", self.message1_timeout);
        at_least("handshake_timeout", self.handshake_timeout, message1)?;
        at_least("stall_timeout", self.stall_timeout, ("keepalive", self.keepalive / 2))?;
        at_least("max_backoff", self.max_backoff, ("initial_backoff", self.initial_backoff))?;
        if let (Some(age), Some(idle)) = (self.max_age, self.max_idle) {
            at_least("max_age", age, ("max_idle", idle))?;
        }

        let max_inbound = self.max_inbound.unwrap_or(self.max_sessions - self.max_sessions / 4);
        at_least("max_sessions", self.max_sessions, ("max_inbound", max_inbound))?;
        Ok(Settings::new(self, max_inbound))
    }
}

/// Refuses an application payload that does not fit a handshake message.
pub(crate) fn check_application_payload(payload: &[u8]) -> Result<(), ConfigError> {
    at_most("application_payload", payload.len(), MAX_APPLICATION_PAYLOAD)
}

#[cfg(test)]
impl Settings {
    /// The defaults.
    pub(crate) fn for_tests() -> Self {
        Config::default().validate().unwrap()
    }
}

#[cfg(test)]
#[path = "../../verify/base/config/validate.rs"]
mod tests;
