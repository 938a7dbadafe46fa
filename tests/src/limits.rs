//! Bounds of the tests' waits.

use std::time::Duration;

/// How long the store may take to serve after its start.
pub const START_WAIT: Duration = Duration::from_secs(20);

/// How long one answer may take, with kills going on.
pub const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// How long processes get to end when they are asked to.
pub const STOP_WAIT: Duration = Duration::from_secs(10);
