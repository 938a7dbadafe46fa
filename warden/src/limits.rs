//! Bounds of this crate.

/// Most replicas of one group; the board has a row for each.
pub const REPLICAS_MAX: u32 = xs_shm::limits::REPLICAS_MAX;

/// Longest time from a service's start to its report that it is ready, in milliseconds. It may replay a long log.
pub const START_BOUND_MS: u64 = 30_000;

/// Longest time from the order to lead to the report that the replica leads, in milliseconds.
pub const TAKEOVER_BOUND_MS: u64 = 2_000;

/// How long the restart of a dead leader may be put off so that it does not compete with the takeover for the
/// processor, in milliseconds.
pub const RESTART_DEFER_MS: u64 = 10;

/// How long the gateway or the leader may be stopped (SIGSTOP) before it is killed, in milliseconds.
pub const STOPPED_GRACE_MS: u64 = 10;

/// How long a follower may be stopped before it is killed, in milliseconds.
pub const STOPPED_FOLLOWER_GRACE_MS: u64 = 1_000;

/// How long a service may live on after it closed its link, in milliseconds.
pub const LINK_CLOSED_GRACE_MS: u64 = 200;

/// How long after the loss of its link the end of a process is waited for before the loss is told, in milliseconds.
pub const LINK_LOST_MS: u64 = 20;

/// How long a service may take to exit after the order to stop, in milliseconds. Then it is killed.
pub const STOP_BOUND_MS: u64 = 3_000;

/// Time after which a kill is repeated if the process has not ended, in milliseconds.
pub const KILL_AGAIN_MS: u64 = 1_000;

/// Strikes (deaths before the service was of use) that are followed by a start at once.
pub const STRIKES_FREE: u32 = 3;

/// Delay before the first start that is put off, in milliseconds; it doubles with each strike.
pub const BACKOFF_FIRST_MS: u64 = 50;

/// Longest delay before a start, in milliseconds.
pub const BACKOFF_MAX_MS: u64 = 5_000;

/// Strikes after which a service is given up.
pub const STRIKES_MAX: u32 = 12;

/// A strike that follows the one before it by more than this starts the count anew, in milliseconds.
pub const STRIKE_WINDOW_MS: u64 = 120_000;

/// How long a replica may take to write a snapshot before another one is asked, in milliseconds.
pub const SNAPSHOT_BOUND_MS: u64 = 30_000;

/// How long a serving leader's heartbeat on the board may stand still before it is killed, in milliseconds. Its turns are
/// bounded by its daemon's limits and take a tenth of this.
pub const HEARTBEAT_LEADER_MS: u64 = 500;

/// A heartbeat may stand still longer in a large store, which some requests walk (CONTROL check): a millisecond for so many
/// nodes, several times what the walk takes.
pub const HEARTBEAT_NODES_PER_MS: u64 = 50;

/// How long a follower's heartbeat may stand still, in milliseconds. It may be writing a snapshot.
pub const HEARTBEAT_FOLLOWER_MS: u64 = 10_000;

/// Different names of events that are counted by name; services can tell of any.
pub const METRIC_KINDS_MAX: usize = 64;

/// Callers of the metrics over HTTP at one time; others wait.
pub const HTTP_CALLERS_MAX: usize = 4;

/// Most bytes of an HTTP request's head.
pub const HTTP_HEAD_BYTES_MAX: usize = 8 << 10;

/// How long a caller over HTTP may take in all, in milliseconds.
pub const HTTP_MS: u64 = 2_000;

/// How often the board is read, in milliseconds.
pub const BOARD_PERIOD_MS: u64 = 200;

/// How often services of an earlier warden are looked at, in milliseconds: nobody is told by signal when they are stopped.
pub const GLANCE_PERIOD_MS: u64 = 25;

/// Most descriptors that are kept for the services, the snapshot included. They all go in one packet.
pub const KEPT_MAX: usize = 96;

/// Longest name of a kept descriptor, in bytes.
pub const KEPT_NAME_BYTES_MAX: usize = 64;

/// Most events that are kept for replay.
pub const EVENTS_KEPT_MAX: usize = 4_096;

/// Events by which a reader may fall behind before it is told that it lagged.
pub const EVENTS_BEHIND_MAX: usize = 1_024;

/// Members and warnings of an engine that are passed on.
pub const ENGINE_PARTS_MAX: usize = 32;

/// Longest text of a report that is passed on in an event, in bytes.
pub const DETAIL_BYTES_MAX: usize = 1_024;

/// Reports and requests that may wait for the keeper. A full queue makes the senders wait.
pub const QUEUE_MAX: usize = 1_024;

/// Reports that are taken from one service's link before others get their turn.
pub const REPORTS_PER_TURN_MAX: usize = 64;

/// Services' events that are passed on in one second for each service; what exceeds it is counted.
pub const NOTED_PER_SECOND_MAX: u32 = 100;

/// Size of the log's shared memory, which holds it twice. Pages that were never written take no memory.
pub const LOG_BYTES: u64 = 128 * 1024 * 1024;

/// Number of replicas of the store unless it is set.
pub const REPLICAS_DEFAULT: u32 = 3;

/// Time that open gRPC calls have to end when the warden stops, in milliseconds.
pub const GRPC_DRAIN_MS: u64 = 500;

/// Largest gRPC message that is taken, in bytes. Requests are small.
pub const GRPC_REQUEST_BYTES_MAX: usize = 64 * 1024;

/// A follower's heartbeat may stand still for at least so many of the promised periods.
pub const HEARTBEAT_MISSED_MAX: u64 = 10;

/// Log lines that may wait to be written; more are lost.
pub const LOG_LINES_WAITING_MAX: usize = 8_192;

/// How long a service of an earlier warden may take to say hello before it is killed, in milliseconds. More than a new
/// leader waits for its gateway.
pub const HELLO_BOUND_MS: u64 = 3_000;

/// How long a connection to the adoption socket may take to say hello, in milliseconds.
pub const GREETING_MS: u64 = 1_000;

/// Connections to the adoption socket that may be about to say hello.
pub const GREETINGS_MAX: usize = 32;

/// A warden that was not run for longer than this forgives what seems late, in milliseconds.
pub const ASLEEP_MS: u64 = 2 * BOARD_PERIOD_MS;

/// Most members of an engine's own cluster.
pub const MEMBERS_MAX: u32 = 9;

/// A replica that is out-voted again so soon after it was ready is charged with its death, in milliseconds.
pub const OUTVOTED_SOON_MS: u64 = 1_000;

/// Snapshots that are kept.
pub const SNAPSHOTS_KEPT: usize = 2;

/// Clients whose descriptors are kept for the next gateway.
pub const CLIENTS_MAX: usize = xs_shm::limits::SOCKETS_MAX as usize;

/// How long the lock of the run directory is tried for, in milliseconds.
pub const LOCK_WAIT_MS: u64 = 100;

/// Time between two tries, in milliseconds.
pub const LOCK_RETRY_MS: u64 = 2;

/// A warden that lived for less is started again after a pause only, in milliseconds.
pub const RESPAWN_SOON_MS: u64 = 1_000;

/// First pause before a warden is started again, in milliseconds; it doubles with each quick death.
pub const RESPAWN_PAUSE_FIRST_MS: u64 = 1;

/// Longest pause before a warden is started again, in milliseconds.
pub const RESPAWN_PAUSE_MAX_MS: u64 = 200;
/// Injected bit flips that may wait for the replica's answer.
pub const FLIPS_PENDING_MAX: usize = 16;

/// How long a replica may take to tell where a bit flip is to hit, in milliseconds.
pub const FLIP_WAIT_MS: u64 = 1_000;
