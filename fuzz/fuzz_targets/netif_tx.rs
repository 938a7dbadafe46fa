//! libFuzzer drives the target `netif_tx`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::netif_tx(data));
