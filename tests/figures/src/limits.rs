//! Bounds.

/// Latencies that one client notes in a measurement; further ones are counted only.
pub const LATENCIES_MAX: usize = 4 << 20;
