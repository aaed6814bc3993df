//! Arbitrary operations on three pools, over a network whose behaviour is part of the input.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime can be had");
    runtime.block_on(noise_pool::fuzzing::pool_ops(data));
});
