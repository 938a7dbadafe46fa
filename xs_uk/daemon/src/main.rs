//! The `xs_uk` binary.
#![forbid(unsafe_code)]
fn main() {}
