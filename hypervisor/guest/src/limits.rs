//! Bounds.

/// Watch events that wait to be taken; more make the connection fail, as nothing may be lost silently.
pub const EVENTS_MAX: usize = 4096;
/// Bytes of requests that wait for room in the ring: one request that was given up, and the next.
pub const OUTBOX_BYTES_MAX: usize = 2 * xs_protocol::MESSAGE_MAX;
/// How long a request waits for its reply unless told otherwise, in milliseconds.
pub const REPLY_MS: u64 = 10_000;
/// How often a transaction is tried before it is given up.
pub const TRANSACTION_TRIES_MAX: usize = 50;
/// Devices that a guest drives; more are passed over.
pub const DEVICES_MAX: usize = 64;
