//! What is wrong with a configuration.
//!
//! Owns [`ConfigError`]: it names the field, what is wrong with its value, and what to do. It never
//! shows the value of a field that holds bytes.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use thiserror::Error;

/// Why a [`Config`](crate::Config) is not usable; found once, when the pool is built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value is zero, too small or too large.
    #[error("{field} is {value}: choose a value from {min} to {max}")]
    OutOfRange {
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: ConfigValue,
        /// The least that is allowed.
        min: ConfigValue,
        /// The most that is allowed.
        max: ConfigValue,
    },
    /// A field that holds bytes is too long.
    #[error("{field} is {length} bytes long: shorten it to at most {max}")]
    TooLong {
        /// The field's name.
        field: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The greatest length in bytes.
        max: usize,
    },
    /// A value is below what another field asks for.
    #[error(
        "{field} is {value}, but {other} asks for at least {min}: raise {field} or lower {other}"
    )]
    Contradiction {
        /// The field that is too small.
        field: &'static str,
        /// Its value.
        value: ConfigValue,
        /// The field that asks for more.
        other: &'static str,
        /// The least that is allowed with it.
        min: ConfigValue,
    },
    /// A pool was built outside a tokio runtime, where it cannot start its tasks.
    #[error("no tokio runtime: build the pool inside one")]
    NoRuntime,
}

impl ConfigError {
    /// The name of the field to change, if it is a field.
    pub const fn field(&self) -> Option<&'static str> {
        match self {
            Self::OutOfRange { field, .. }
            | Self::TooLong { field, .. }
            | Self::Contradiction { field, .. } => Some(field),
            Self::NoRuntime => None,
        }
    }
}

/// A value in a [`ConfigError`], in the unit of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[non_exhaustive]
pub enum ConfigValue {
    /// A count, or a number of bytes.
    Number(u64),
    /// A length of time.
    Time(Duration),
}

impl fmt::Display for ConfigValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => fmt::Display::fmt(number, f),
            Self::Time(time) => fmt::Debug::fmt(time, f),
        }
    }
}

impl From<u32> for ConfigValue {
    fn from(number: u32) -> Self {
        Self::Number(u64::from(number))
    }
}

impl From<u64> for ConfigValue {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for ConfigValue {
    fn from(number: usize) -> Self {
        // No platform has a usize of more than 64 bits.
        Self::Number(number as u64)
    }
}

impl From<NonZeroU32> for ConfigValue {
    fn from(number: NonZeroU32) -> Self {
        number.get().into()
    }
}

impl From<Duration> for ConfigValue {
    fn from(time: Duration) -> Self {
        Self::Time(time)
    }
}
