//! Bounds of this crate.

/// Longest wait for an answer that is not a stream, in milliseconds.
pub const ANSWER_MS: u64 = 5_000;

/// Longest wait for a connection to the warden, in milliseconds.
pub const CONNECT_MS: u64 = 2_000;

/// How often something that is waited for is looked at, in milliseconds.
pub const LOOK_EVERY_MS: u64 = 20;

/// Longest wait for the stand-in broker's socket, in milliseconds.
pub const BROKER_MS: u64 = 5_000;

/// Longest wait for everything to be down, in milliseconds. The warden gives each of three stages 3 s.
pub const DOWN_MS: u64 = 15_000;

/// Longest pause between heartbeats of the store's own etcd, in milliseconds.
pub const HEARTBEAT_MS_MAX: u32 = ELECTION_MS_MAX / HEARTBEATS_MIN;

/// Longest time without a heartbeat before the store's own etcd elects another leader, in milliseconds.
pub const ELECTION_MS_MAX: u32 = 50_000;

/// Heartbeats that have to fit into it.
pub const HEARTBEATS_MIN: u32 = 5;

/// Last bytes of the warden's log that are shown if it could not be brought up.
pub const LOG_SHOWN_BYTES: u64 = 2_000;
