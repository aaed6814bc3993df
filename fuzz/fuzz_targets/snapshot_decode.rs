//! Arbitrary bytes as the binary form of a snapshot.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| noise_pool::fuzzing::snapshot_decode(data));
