//! Arbitrary messages 2 to an initiator, from a peer with true keys or from a stranger.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| noise_pool::fuzzing::handshake_initiator(data));
