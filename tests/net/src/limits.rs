//! Bounds of the stand.

use std::time::Duration;

/// Slots of an endpoint's own lane in each direction.
pub const SLOTS: u32 = 8192;

/// Frames that an endpoint puts on its way before it looks at what came.
pub const BATCH: u64 = 64;

/// Longest sleep of an endpoint: it looks at its orders at least this often.
pub const SLEEP_MAX: Duration = Duration::from_millis(5);

/// How long a frame that was sent and did not come back counts as under way.
pub const ECHO_WAIT: Duration = Duration::from_millis(500);

/// How long an answer of the keeper or of a guest may take.
pub const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Events of the keeper that are remembered.
pub const EVENTS_MAX: usize = 4096;

/// Length of an interface's transmit queue: nothing is to be lost there.
pub const QUEUE_FRAMES: &str = "10000";
