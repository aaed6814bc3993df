//! Arbitrary events on one slot, beside a second account of them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| noise_pool::fuzzing::slot_model(data));
