//! Bounds of this crate's waits.

use std::time::Duration;

/// How long a daemon may take until it takes clients.
pub const START_WAIT: Duration = Duration::from_secs(20);

/// How long a daemon gets to end when it is asked to, before it is killed.
pub const STOP_WAIT: Duration = Duration::from_secs(10);

/// How long a notice to a daemon may wait for room in its FIFO.
pub const NOTICE_WAIT: Duration = Duration::from_secs(5);
