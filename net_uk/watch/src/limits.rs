//! Bounds of this crate. Times are in nanoseconds of a process's available time unless they say otherwise.

/// One millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// Shortest standstill with work that is taken for a hang. With a sample each millisecond and a timer tick of 4 ms a hang
/// is found within 30 ms.
pub const STILL_FLOOR_NS: u64 = 16 * MS;

/// Longest standstill with work that is ever borne, whatever was learned.
pub const STILL_CEILING_NS: u64 = 250 * MS;

/// A hang is a standstill so many times longer than all but one in [`STILL_RARE`] of those that ended well.
pub const STILL_TAIL_FACTOR: u64 = 4;

/// See [`STILL_TAIL_FACTOR`].
pub const STILL_RARE: u64 = 1_000;

/// Standstills after which all counts are halved, so that the present load weighs most.
pub const STILLS_KEPT_MAX: u64 = 8_192;

/// Time in which the longest standstill that ended well is half forgotten.
pub const STILL_PEAK_HALF_LIFE_NS: u64 = 10_000 * MS;

/// Most time that one sample may add to a standstill, so that no verdict rests on a few samples. A process that spins has
/// its run time updated by the timer tick alone, which comes each 4 ms on most kernels.
pub const CREDIT_MAX_NS: u64 = 5 * MS;

/// Where it is not known how long a process waited for a processor, the bounds grow by so many times the observer's own
/// lateness.
pub const LATENESS_FACTOR: u64 = 4;

/// Where it is known, the bounds grow by so many times what the observer's own waits do not explain of its lateness, beyond
/// [`STOLEN_USUAL_NS`].
pub const STOLEN_FACTOR: u64 = 3;

/// Such lateness is usual everywhere: a timer tick is late, an interrupt takes long. [`STILL_FLOOR_NS`] bears it.
pub const STOLEN_USUAL_NS: u64 = 5 * MS;

/// Longest time that a process may stand still because it gets no processor, in real time. What starves for longer sits in
/// a frozen or throttled group, which another process need not do.
pub const STARVED_MAX_NS: u64 = 2_000 * MS;

/// How long a process may be stopped (SIGSTOP), in real time.
pub const STOPPED_GRACE_NS: u64 = 10 * MS;

/// Longest time from the start of a process to its first heartbeat.
pub const START_BOUND_NS: u64 = 1_000 * MS;

/// A heartbeat is missed after so many of the promised periods.
pub const HEARTBEATS_MISSED_MAX: u64 = 4;

/// How long a process may claim trouble of a device that is known to be fine.
pub const CONTRADICTION_MAX_NS: u64 = 250 * MS;

/// Length of a window in which a rate is taken.
pub const RATE_WINDOW_NS: u64 = 50 * MS;

/// Windows before a rate counts as learned.
pub const RATE_WINDOWS_MIN: u32 = 4;

/// A rate below one part in so many of the learned one is a slow-down.
pub const SLOW_RATIO: u64 = 50;

/// Slow windows in a row that make a verdict.
pub const SLOW_WINDOWS: u32 = 2;

/// A slow-down to a hundredth is found within this time: the window in which it begins, and [`SLOW_WINDOWS`].
pub const SLOW_BOUND_NS: u64 = (SLOW_WINDOWS as u64 + 1) * RATE_WINDOW_NS + 2 * CREDIT_MAX_NS;

/// A unit of work may cost so many times more than another; beyond it a change of load looks like a slow-down.
pub const UNIT_COST_RATIO_MAX: u64 = 16;

/// Part of the distance to a lower rate by which the learned rate falls with each window.
pub const RATE_FORGET_DIVISOR: u64 = 256;

/// Least rate in units per second that is judged: below it the slow rate is less than a unit in a window, and the
/// standstills tell it.
pub const RATE_JUDGED_MIN_PER_S: u64 = 1_000;

/// Most NICs of one ladder.
pub const NICS_MAX: usize = 16;

/// An incarnation that runs for so long without a complaint is a success, in real time.
pub const SUCCESS_NS: u64 = 100 * MS;

/// Failures in a row that are followed by a start at once.
pub const STRIKES_FREE: u32 = 4;

/// First delay before a start; it doubles with each further failure in a row.
pub const BACKOFF_FIRST_NS: u64 = 5 * MS;

/// Longest delay before a start.
pub const BACKOFF_MAX_NS: u64 = 5_000 * MS;

/// Failures in a row before the device is reset (or, for the shadow, everything is started again).
pub const RESTART_STRIKES_MAX: u32 = 8;

/// Failures in a row behind a device reset before everything is started again.
pub const RESET_STRIKES_MAX: u32 = 2;

/// Failures in a row behind a start of everything before one is given up.
pub const ALL_STRIKES_MAX: u32 = 2;

/// Nothing is given up within this time after a success.
pub const RECENT_SUCCESS_NS: u64 = 10_000 * MS;

/// First time from giving up to a probe; it doubles with each probe that fails.
pub const PROBE_FIRST_NS: u64 = 10_000 * MS;

/// Longest time between two probes.
pub const PROBE_MAX_NS: u64 = 300_000 * MS;

/// Longest time from a start to readiness, real time. The detector judges a process that runs; this is for one that never
/// tells.
pub const READY_BOUND_NS: u64 = 2_000 * MS;

/// Most that it grows to: it doubles with each failure in a row.
pub const READY_BOUND_MAX_NS: u64 = 30_000 * MS;

/// Time after which a kill is repeated; it doubles with each repetition.
pub const KILL_AGAIN_NS: u64 = 100 * MS;

/// Longest time between two kills of one process.
pub const KILL_AGAIN_MAX_NS: u64 = 5_000 * MS;

/// Kills after which it is told that a process does not end.
pub const KILLS_REPORTED: u32 = 5;

/// How long a device reset may take before it is told that it is stuck.
pub const RESET_BOUND_NS: u64 = 10_000 * MS;

/// How long the ends of all processes are waited for when everything starts again; then those that ended start.
pub const ALL_FENCE_BOUND_NS: u64 = 2_000 * MS;

/// Least time between two starts of everything.
pub const ALL_SPACING_NS: u64 = 1_000 * MS;

/// How long a NIC's ring may be full before something is done.
pub const RING_FULL_BOUND_NS: u64 = 500 * MS;

/// How long a link may be down before something is done. Negotiation takes some seconds.
pub const LINK_DOWN_BOUND_NS: u64 = 5_000 * MS;

/// Device trouble is forgotten when there was none for so long.
pub const TROUBLE_FORGET_NS: u64 = 60_000 * MS;

/// Most numbers in the window of a sequence check.
pub const SEQUENCE_WINDOW_MAX: u64 = 1 << 20;
