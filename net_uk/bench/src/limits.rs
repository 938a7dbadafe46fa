//! Bounds and sizes of the measurements.

use std::time::Duration;

/// Rounds at most.
pub const ROUNDS_MAX: u32 = 1000;

/// How long a line is measured.
pub const TIME: Duration = Duration::from_millis(1500);

/// The same with `--quick`, and where only a rate is looked for.
pub const TIME_QUICK: Duration = Duration::from_millis(300);

/// How long traffic runs before it is measured.
pub const WARM_UP: Duration = Duration::from_millis(200);

/// How long everything may take to be connected.
pub const START_WAIT: Duration = Duration::from_secs(20);

/// How long frames may take to arrive once nobody sends any more.
pub const DRAIN_MAX: Duration = Duration::from_secs(2);

/// So long nothing came: nothing is under way.
pub const DRAINED: Duration = Duration::from_millis(150);

/// Frames that wait in the far end's socket.
pub const PEER_SLOTS: u32 = 16_384;

/// How often an end that only counts or sends at a rate looks: in between frames gather, as with a network card that
/// moderates its interrupts.
pub const PEER_LOOK: Duration = Duration::from_micros(100);

/// Frames under way where a line has many.
pub const WINDOW: u64 = 32;
