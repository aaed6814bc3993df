//! The configuration of a pool.
//!
//! A table of contents: `options` is the table of what can be set, `validate` checks it once.

mod check;
mod choice;
mod error;
#[cfg(feature = "serde")]
mod field;
mod options;
#[cfg(feature = "serde")]
mod text;
mod validate;

pub use choice::{Loopback, WhenFull};
pub use error::{ConfigError, ConfigValue};
pub use options::Config;
pub(crate) use options::{MESSAGE_OVERHEAD, Settings, message_cost};
pub(crate) use validate::{MAX_APPLICATION_PAYLOAD, check_application_payload};
