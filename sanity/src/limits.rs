//! Bounds of this crate.

/// Most replicas that vote.
pub const REPLICAS_MAX: usize = 9;
/// Most log indices of which [`crate::history::History`] keeps roots.
pub const HISTORY_MAX: usize = 4096;
/// Most scrubbing that may be made up for after a pause, in milliseconds.
pub const PACE_ARREARS_MAX_MS: u64 = 1000;
