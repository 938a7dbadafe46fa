//! End-to-end, crash and bad-input tests over real processes.
#![forbid(unsafe_code)]
