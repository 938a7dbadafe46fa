//! Bounds of this crate; those of etcd 3.4 where it has them.

/// Most comparisons, and most operations of one branch, in a transaction (`--max-txn-ops`).
pub const TXN_OPS_MAX: usize = 128;

/// Largest request in bytes (`--max-request-bytes`).
pub const REQUEST_BYTES_MAX: usize = 3 * 512 * 1024;

/// Nested transactions deeper than this are refused; etcd has no such bound, its clients none such need.
pub const TXN_DEPTH_MAX: usize = 16;

/// Watchers of one stream. A further one is refused.
pub const WATCHERS_MAX: usize = 64;

/// Watch responses that wait for one client. Its stream is ended with an error when there are more.
pub const WATCH_RESPONSES_MAX: usize = 1024;

/// Events in one watch response; the rest of a revision's events follows in the next one only between revisions.
pub const EVENTS_PER_RESPONSE_MAX: usize = 1000;

/// Members of a cluster.
pub const MEMBERS_MAX: usize = 7;

/// Proposals that wait at a leader without a majority. Further ones are refused.
pub const STRANDED_MAX: usize = 256;
