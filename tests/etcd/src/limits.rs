//! Bounds of this crate.

use std::time::Duration;

/// Longest wait until a member takes connections.
pub const START_WAIT: Duration = Duration::from_secs(20);

/// Pause between two looks whether it does.
pub const START_PAUSE: Duration = Duration::from_millis(20);
