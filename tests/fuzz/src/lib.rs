//! Fuzz targets: functions of arbitrary bytes that panic when a promise is broken.
//!
//! They run in two ways: under libFuzzer (`tests/fuzz/run TARGET MINUTES`), and on every `cargo test`,
//! which replays the committed corpus and mutates it for a short while (`tests/replay.rs`).
#![forbid(unsafe_code)]

mod actions;
mod bytes;
pub mod limits;
mod log;
mod ring;
mod shell;
mod wire;

pub use actions::actions;
pub use log::log;
pub use ring::ring;
pub use wire::wire;

/// A target: its name, and what it is fed to.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 4] = [("wire", wire), ("ring", ring), ("log", log), ("actions", actions)];
