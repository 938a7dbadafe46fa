//! Bounds of this crate.

/// Largest entry in bytes. A request of 4112 bytes with its envelope fits many times.
pub const ENTRY_BYTES_MAX: usize = 64 * 1024;

/// Size of the embedded engine's memory: two copies of the log with their headers. Pages that hold no live entry
/// take no memory.
pub const LOG_BYTES: usize = 2 * (64 * 1024 * 1024 + LOG_HEADER_BYTES);

/// Header of one copy of the embedded engine's log.
pub const LOG_HEADER_BYTES: usize = 4096;
