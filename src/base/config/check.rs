//! The three checks of a value: within its range, not below another field, not too long.
//!
//! Owns how a check names what is wrong. It must know no field by name.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::{ConfigError, ConfigValue};

/// A value that has a range.
pub(super) trait Ranged {
    type Value;

    fn check(
        &self,
        field: &'static str,
        range: RangeInclusive<Self::Value>,
    ) -> Result<(), ConfigError>;
}

macro_rules! ranged {
    ($($ty:ty),*) => {$(
        impl Ranged for $ty {
            type Value = $ty;

            fn check(&self, field: &'static str, range: RangeInclusive<$ty>) -> Result<(), ConfigError> {
                if range.contains(self) {
                    return Ok(());
                }
                Err(ConfigError::OutOfRange {
                    field,
                    value: (*self).into(),
                    min: (*range.start()).into(),
                    max: (*range.end()).into(),
                })
            }
        }
    )*};
}

ranged!(u32, u64, usize, Duration);

impl<T: Ranged> Ranged for Option<T> {
    type Value = T::Value;

    fn check(
        &self,
        field: &'static str,
        range: RangeInclusive<T::Value>,
    ) -> Result<(), ConfigError> {
        self.as_ref().map_or(Ok(()), |value| value.check(field, range))
    }
}

/// Refuses `value` below what another field asks for.
pub(super) fn at_least<T: PartialOrd + Into<ConfigValue>>(
    field: &'static str,
    value: T,
    (other, min): (&'static str, T),
) -> Result<(), ConfigError> {
    if value >= min {
        return Ok(());
    }
    Err(ConfigError::Contradiction { field, value: value.into(), other, min: min.into() })
}

/// Refuses bytes that are too long.
pub(super) fn at_most(field: &'static str, length: usize, max: usize) -> Result<(), ConfigError> {
    if length <= max {
        return Ok(());
    }
    Err(ConfigError::TooLong { field, length, max })
}
