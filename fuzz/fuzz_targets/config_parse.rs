//! Arbitrary text as a configuration in TOML and in JSON.

#![no_main]

use noise_pool::fuzzing::{Format, config_parse};

const TOML: Format =
    Format { read: |text| toml::from_str(text).ok(), write: |config| toml::to_string(config).ok() };
const JSON: Format = Format {
    read: |text| serde_json::from_str(text).ok(),
    write: |config| serde_json::to_string(config).ok(),
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    config_parse(data, TOML);
    config_parse(data, JSON);
});
