//! Bounds of this crate.

/// Largest message, without its descriptors, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Most descriptors in one packet. Linux takes at most 253 (`SCM_MAX_FD`).
pub const DESCRIPTORS_MAX: usize = 128;

/// Clients in one packet.
pub const CLIENTS_BATCH: usize = 100;

/// Time between the loss of a warden and the first attempt to reach its successor, in milliseconds.
pub const SEEK_FIRST_MS: u64 = 2;

/// Longest time between two attempts to reach a new warden, in milliseconds; it doubles up to here.
pub const SEEK_MAX_MS: u64 = 32;

/// Connections that wait to be accepted.
pub const LISTEN_BACKLOG: i32 = 1_024;

/// Bytes of `/proc/PID/stat`: 52 numbers and a name of at most 64 bytes.
pub const STAT_BYTES_MAX: usize = 2048;

/// Bytes of `/proc/PID/schedstat`: three numbers.
pub const SCHEDSTAT_BYTES_MAX: usize = 128;
