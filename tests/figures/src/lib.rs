//! Figures of measurements: medians, ratios, and the machine that they are of.
#![forbid(unsafe_code)]

mod choose;
mod figure;
pub mod limits;
mod machine;

pub use choose::{chosen, in_turn};
pub use figure::{Better, Figure, Latencies, median, number};
pub use machine::Machine;
