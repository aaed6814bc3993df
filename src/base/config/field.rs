//! The text form of each type of configuration field: how serde reads and writes it.
//!
//! Owns the forms ("90s", "none", names, bytes as text). It checks form, never range: ranges are
//! checked once, when the pool is built. Reading arbitrary text must never panic.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use serde::de::value::{I64Deserializer, StrDeserializer, U64Deserializer};
use serde::de::{DeserializeSeed, Deserializer, Error, IntoDeserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::choice::{Loopback, WhenFull};
use crate::base::suite::Suite;

/// A type of field that has a text form.
pub(super) trait Field: Sized {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
}

/// Reads one field's value.
pub(super) struct Reading<T>(pub(super) PhantomData<T>);

impl<'de, T: Field> DeserializeSeed<'de> for Reading<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::read(deserializer)
    }
}

/// Writes one field's value.
pub(super) struct Writing<'a, T>(pub(super) &'a T);

impl<T: Field> Serialize for Writing<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }
}

macro_rules! by_serde {
    ($($ty:ty),*) => {$(
        impl Field for $ty {
            fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                serde::Deserialize::deserialize(deserializer)
            }

            fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.serialize(serializer)
            }
        }
    )*};
}

by_serde!(u32, u64, usize, NonZeroU32, Suite, WhenFull, Loopback);

impl Field for Duration {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time such as \"90s\" or \"5min\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
                humantime::parse_duration(text).map_err(|error| {
                    E::custom(format_args!(
                        "{text:?} is no length of time such as \"90s\" or \"5min\": {error}"
                    ))
                })
            }
        }

        deserializer.deserialize_str(Text)
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*self))
    }
}

/// `"none"`, or the inner form. A null is taken for `"none"` where the format has one.
impl<T: Field> Field for Option<T> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Optional<T>(PhantomData<T>);

        impl<'de, T: Field> Visitor<'de> for Optional<T> {
            type Value = Option<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or \"none\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Option<T>, E> {
                match text {
                    "none" => Ok(None),
                    text => {
                        let inner: StrDeserializer<'_, E> = text.into_deserializer();
                        T::read(inner).map(Some)
                    }
                }
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Option<T>, E> {
                let inner: U64Deserializer<E> = number.into_deserializer();
                T::read(inner).map(Some)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Option<T>, E> {
                let inner: I64Deserializer<E> = number.into_deserializer();
                T::read(inner).map(Some)
            }

            fn visit_unit<E: Error>(self) -> Result<Option<T>, E> {
                Ok(None)
            }
        }

        deserializer.deserialize_any(Optional(PhantomData))
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Some(value) => value.write(serializer),
            None => serializer.serialize_str("none"),
        }
    }
}

/// Text, or an array of numbers for bytes that are not UTF-8.
impl Field for Vec<u8> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrNumbers;

        impl<'de> Visitor<'de> for TextOrNumbers {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, or an array of bytes")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
                Ok(text.as_bytes().to_vec())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
                // The announced length is not believed: the vector grows with what is there.
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }

        deserializer.deserialize_any(TextOrNumbers)
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_bytes(self, serializer)
    }
}

impl Field for Bytes {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <Vec<u8>>::read(deserializer).map(Bytes::from)
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_bytes(self, serializer)
    }
}

fn write_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serializer.serialize_str(text),
        Err(_) => serializer.collect_seq(bytes),
    }
}
