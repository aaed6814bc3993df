//! Arbitrary bytes as a key file, and as the text of a peer and its address.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| noise_pool::fuzzing::identity_parse(data));
