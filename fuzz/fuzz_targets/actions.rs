//! libFuzzer drives the target `actions`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::actions(data));
