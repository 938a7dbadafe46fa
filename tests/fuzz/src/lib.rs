//! Fuzz targets: functions of arbitrary bytes that panic when a promise is broken.
//!
//! They run in two ways: under libFuzzer (`tests/fuzz/run TARGET MINUTES`), and on every `cargo test`,
//! which replays the committed corpus and mutates it for a short while (`tests/replay.rs`).
#![forbid(unsafe_code)]

mod actions;
mod bytes;
pub mod limits;
mod log;
mod netif_rx;
mod netif_tx;
mod ring;
mod shell;
mod wire;

pub use actions::actions;
pub use log::log;
pub use netif_rx::netif_rx;
pub use netif_tx::netif_tx;
pub use ring::ring;
pub use wire::wire;

/// A target: its name, and what it is fed to.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 6] = [
    ("wire", wire),
    ("ring", ring),
    ("log", log),
    ("actions", actions),
    ("netif_tx", netif_tx),
    ("netif_rx", netif_rx),
];
