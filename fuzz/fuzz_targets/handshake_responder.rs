//! Arbitrary messages 1 and 3 to a responder, from a peer with true keys or from a stranger.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| noise_pool::fuzzing::handshake_responder(data));
