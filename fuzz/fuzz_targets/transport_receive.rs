//! Arbitrary plaintext from an authenticated peer, or arbitrary bytes from a stranger.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| noise_pool::fuzzing::transport_receive(data));
