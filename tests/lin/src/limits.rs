//! Bounds of this crate.

/// Configurations (operations done, state) that one check looks at before it says that it cannot decide.
pub const CONFIGURATIONS_MAX: usize = 1_000_000;
