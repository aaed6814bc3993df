//! Arbitrary operations on both ends of a session, over a stream that is cut anywhere.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| noise_pool::fuzzing::session_pair(data));
