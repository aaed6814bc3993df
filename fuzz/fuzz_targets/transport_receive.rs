//! Arbitrary plaintext from an authenticated peer, or arbitrary bytes from a stranger.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| noise_pool::fuzzing::transport_receive(data));
