//! Cuts frames off arbitrary bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| noise_pool::fuzzing::frame_decode(data));
