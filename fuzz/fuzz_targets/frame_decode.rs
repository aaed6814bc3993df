//! Cuts frames off arbitrary bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| noise_pool::fuzzing::frame_decode(data));
