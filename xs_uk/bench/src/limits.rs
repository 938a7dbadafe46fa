//! Bounds and sizes of the measurements.

use std::time::Duration;

/// Rounds at most.
pub const ROUNDS_MAX: u32 = 1000;

/// How long one answer may take: the C daemon needs many seconds for the removal of a large directory.
pub const ANSWER_WAIT: Duration = Duration::from_secs(120);

/// How long the nodes that a measurement needs may take to be created. Some stock daemons need hours for a million.
pub const FILL_WAIT: Duration = Duration::from_secs(120);

/// Bytes that a client receives at once.
pub const INBOX_BYTES: usize = 64 * 1024;

/// Requests in one write of a pipelined client. All answers fit in the socket's buffers.
pub const PIPELINE: usize = 32;

/// How often a transaction is tried anew before the measurement fails.
pub const TRIES_MAX: u32 = 10_000;

/// What a bare put to etcd stores: as many bytes as a WRITE of a device's state has with its envelope.
pub const BARE_VALUE: [u8; 160] = [7; 160];

/// The socket of our store's own etcd, in its run directory.
pub const ETCD_SOCKET: &str = "etcd/localhost:1000";

/// What is stored where a value is needed.
pub const VALUE: &[u8] = b"0123456789abcdef";
