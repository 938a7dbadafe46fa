//! Bounds of one run of a target, so that one input cannot take for ever.

/// Steps of one input that are executed.
pub const STEPS_MAX: usize = 400;

/// Steps between two looks at the store's accounts.
pub const STEPS_PER_CHECK: usize = 16;
