//! The text form of a whole [`Config`].
//!
//! Owns its serde implementations. They check names and forms, never ranges: ranges are checked once,
//! when the pool is built. Reading arbitrary text must never panic.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::options::Config;

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Config", Self::FIELDS.len())?;
        self.write_fields(&mut out)?;
        out.end()
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("Config", Self::FIELDS, Fields)
    }
}

/// Reads the fields that are there; the others keep their defaults.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Config;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fields of a pool's configuration")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Config, A::Error> {
        let mut config = Config::default();
        let mut seen = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let Some(name) = Config::FIELDS.iter().find(|name| **name == key) else {
                return Err(A::Error::unknown_field(&key, Config::FIELDS));
            };
            if seen.contains(name) {
                return Err(A::Error::duplicate_field(name));
            }
            seen.push(*name);
            // Not every format says in its errors which field it was reading.
            config
                .read_field(name, &mut map)
                .map_err(|error| A::Error::custom(format_args!("{name}: {error}")))?;
        }
        Ok(config)
    }
}
