//! Decodes records and verdicts from arbitrary bytes, and encodes them again.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| noise_pool::fuzzing::record_decode(data));
