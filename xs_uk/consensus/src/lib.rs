//! The replicated log: the trait and the embedded engine.
#![forbid(unsafe_code)]
