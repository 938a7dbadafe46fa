//! The `ppvmm` binary.
#![forbid(unsafe_code)]
fn main() {}
