//! Bounds and sizes of the simulated world.

/// How far time goes between two looks at the world, in milliseconds.
pub const TICK_MS: u64 = 1;

/// Size of the embedded engine's memory: the smallest that it takes, so that the log wraps around and snapshots are
/// needed.
pub const LOG_BYTES: usize = 2 * (4096 + 2 * xs_consensus::limits::ENTRY_BYTES_MAX);

/// How long the gateway waits for the end of a former leader that lives. The daemon's waits far longer; here it is to be
/// seen what comes of it.
pub const HEIR_WAIT_MS: u64 = 3;

/// Clients of one world.
pub const CLIENTS_MAX: usize = 16;

/// Requests that the leader answers on one connection in one turn.
pub const REQUESTS_PER_TURN_MAX: usize = 8;

/// Entries that a follower applies in one turn.
pub const FOLLOW_BATCH: usize = 64;

/// Lines that a trace keeps when it is to be shown.
pub const TRACE_LINES_MAX: usize = 200_000;

/// Findings that a report names.
pub const FINDINGS_MAX: usize = 20;

/// Configurations that the check of a history looks at: a second or two of work.
pub const CONFIGURATIONS_MAX: usize = 200_000;
