//! What finds, out-votes and plans the repair of damaged memory. Pure functions of state, input and time.
//!
//! [`digest`] and [`chain`] make damage visible, [`vote`] and [`history`] say whose copy is damaged, [`plan`] what
//! is to be done about it, and [`pace`] how fast a scrubber may look for more.
#![forbid(unsafe_code)]

pub mod chain;
pub mod digest;
pub mod history;
pub mod limits;
pub mod pace;
pub mod plan;
pub mod vote;

pub use digest::{Digest, Sum};
