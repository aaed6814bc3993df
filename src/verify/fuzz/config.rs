//! Entry function for fuzzing the text form of a configuration.
//!
//! The formats belong to the caller: the crate itself depends on none.

use crate::Config;

/// One text format: how it is read and written.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Reads a configuration; none if the text is not one.
    pub read: fn(&str) -> Option<Config>,
    /// Writes one; none if the format cannot express it.
    pub write: fn(&Config) -> Option<String>,
}

/// Reads `data` in the format, checks it, and writes it: what was read must come back as it was.
pub fn config_parse(data: &[u8], format: Format) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Some(config) = (format.read)(text) else { return };
    // Only a range check: nothing of the size that a hostile file asks for is made.
    let sound = config.check();
    let Some(written) = (format.write)(&config) else {
        // No format has numbers beyond 64 bits; TOML ends at 63. Such a value is out of every range.
        assert!(sound.is_err(), "what is within its ranges can be written");
        return;
    };
    let Some(again) = (format.read)(&written) else {
        panic!("what was written is not read: {written}");
    };
    assert_eq!(again.check().is_ok(), sound.is_ok());
    assert_eq!((format.write)(&again), Some(written));
}
