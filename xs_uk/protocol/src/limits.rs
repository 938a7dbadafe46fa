//! Bounds of the protocol (`xs_wire.h`) and of this crate.

/// Most payload bytes of a message, in both directions (`XENSTORE_PAYLOAD_MAX`).
pub const PAYLOAD_MAX: usize = 4096;
/// Most bytes of a whole message.
pub const MESSAGE_MAX: usize = PAYLOAD_MAX + crate::HEADER_BYTES;
/// Most bytes of an absolute path (`XENSTORE_ABS_PATH_MAX`).
pub const ABS_PATH_MAX: usize = 3072;
/// Most bytes of a path below its domain's own directory (`XENSTORE_REL_PATH_MAX`).
pub const REL_PATH_MAX: usize = 2048;
/// Most components of a path: each takes a slash and a character.
pub const DEPTH_MAX: usize = ABS_PATH_MAX / 2;
/// Most permission entries that fit in a SET_PERMS payload: `r0` and a nul each.
pub const PERMS_MAX: usize = PAYLOAD_MAX / 3;
