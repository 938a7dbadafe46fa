//! Bounds of this crate.

/// Largest message, without its descriptors, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Most descriptors in one packet. Linux takes at most 253 (`SCM_MAX_FD`).
pub const DESCRIPTORS_MAX: usize = 128;
