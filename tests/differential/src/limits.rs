//! Bounds.

use std::time::Duration;

/// How long an answer may take.
pub const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// How long a failing sequence is shortened.
pub const SHRINK_WAIT: Duration = Duration::from_secs(90);

/// Nodes in the comparison of the trees at the end.
pub const DUMP_NODES_MAX: usize = 2000;
