//! Bounds of this crate.

use std::time::Duration;

/// Most entries in one batch.
pub const BATCH_ENTRIES_MAX: usize = 1024;

/// Most bytes of entries in one batch, unless it is a single entry. Far below etcd's request limit of 1.5 MiB.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Most entries that were submitted and not given back by `next`.
pub const QUEUE_ENTRIES_MAX: usize = 8192;

/// Most bytes of them.
pub const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// No further page is read while more bytes than this wait to be given out.
pub const READY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most batches asked for at once.
pub const PAGE_BATCHES_MAX: u32 = 32;

/// Largest answer that is taken: a page of the largest batches, and some.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of a snapshot in one key.
pub const CHUNK_BYTES: usize = 512 * 1024;

/// Largest snapshot.
pub const SNAPSHOT_BYTES_MAX: usize = 1 << 30;

/// Entries whose batches one call deletes.
pub const TRIM_ENTRIES_MAX: u64 = 16 * 1024;

/// First pause before a call that failed is repeated; it doubles each time.
pub const RETRY_MIN: Duration = Duration::from_millis(5);

/// Longest such pause.
pub const RETRY_MAX: Duration = Duration::from_millis(500);

/// Pause between the end of a watch and the next one.
pub const WATCH_PAUSE: Duration = Duration::from_millis(50);

/// Longest wait for a watch to begin, unless calls may take longer.
pub const WATCH_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest wait for one answer after the time limit doubled with each attempt, unless the first one is longer.
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(4);

/// Longest wait for a member that compacts or defragments. One that does not even answer pings is given up sooner.
pub const TEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause between two attempts to make room in an etcd whose quota is used up.
pub const TEND_PAUSE: Duration = Duration::from_secs(3);

/// Without a complaint for so long after room was made, the quota is no longer used up. A write that waits is tried more
/// often.
pub const SPACE_QUIET: Duration = Duration::from_secs(2);

/// Most bytes of a copied log that etcd does not have yet; then appends wait.
pub const LAG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// So few that appends which wait go on.
pub const LAG_BYTES_RESUME: u64 = LAG_BYTES_MAX / 8 * 7;

/// Entries that a copier moves before it lets others have their turn.
pub const COPIED_PER_TURN_MAX: usize = 256;

/// Pause before a copy that cannot be gone on with is begun anew.
pub const RENEW_PAUSE: Duration = Duration::from_secs(1);

/// Bytes of the log that are worth a batch at once.
pub const COPIED_AT_ONCE_BYTES: u64 = 128 * 1024;

/// Longest pause of a copier that is behind.
pub const COPIER_PAUSE_MAX: Duration = Duration::from_millis(100);

/// Most endpoints.
pub const ENDPOINTS_MAX: usize = 16;

/// Pieces in which the log's size is counted.
pub const USAGE_PIECE_BYTES: u64 = 64 * 1024;

const _: () = assert!(BATCH_BYTES_MAX + BATCH_ENTRIES_MAX * 4 + 1024 < 3 * 512 * 1024);
const _: () = assert!(CHUNK_BYTES + 1024 < 3 * 512 * 1024);
const _: () =
    assert!(PAGE_BATCHES_MAX as usize * (BATCH_BYTES_MAX + BATCH_ENTRIES_MAX * 4 + 1024) < ANSWER_BYTES_MAX);
const _: () = assert!(SPACE_QUIET.as_millis() > 2 * RETRY_MAX.as_millis());
const _: () = assert!(TEND_PAUSE.as_millis() > SPACE_QUIET.as_millis());
const _: () = assert!(COPIED_PER_TURN_MAX < QUEUE_ENTRIES_MAX);
