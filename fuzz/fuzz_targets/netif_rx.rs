//! libFuzzer drives the target `netif_rx`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::netif_rx(data));
