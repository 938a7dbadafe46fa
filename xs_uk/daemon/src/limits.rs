//! Bounds of the daemon.

use std::time::Duration;

/// Requests of one connection that are answered before the others get their turn.
pub const REQUESTS_PER_TURN_MAX: usize = 64;

/// Committed entries that come back from the engine before others get their turn.
pub const COMMITTED_PER_TURN_MAX: usize = 256;

/// How long a request waits for an engine that commits nothing before the client gets EIO, unless set otherwise.
pub const REQUEST_WAIT_MS: u64 = 10_000;

/// Event-channel events that are served before sockets and orders get their turn.
pub const EVENTS_PER_TURN_MAX: usize = 64;

/// Events that one wait of the poller gives.
pub const POLL_EVENTS_MAX: usize = 256;

/// Connections that a leader serves before it shows itself alive.
pub const SERVED_PER_BEAT: usize = 16;

/// How long a new leader whose root differs from a former one's waits for a third one's.
pub const DISPUTE_WAIT: Duration = Duration::from_millis(50);

/// How often a replica that is found wrong is told of.
pub const MISTRUST_AGAIN: Duration = Duration::from_secs(1);

/// A leader shows itself alive at least this often.
pub const LEADER_BEAT: Duration = Duration::from_millis(100);

/// How long a leader looks for the next request before it sleeps, while clients ask again at once.
pub const ATTENTION_WINDOW: Duration = Duration::from_micros(50);

/// A sleep shorter than this would have been better spent looking.
pub const ATTENTION_NEAR: Duration = Duration::from_micros(100);

/// After so many looks in vain in a row it sleeps at once.
pub const ATTENTION_MISSES_MAX: u32 = 2;

/// How often a follower looks at the log when nobody kicks it.
pub const FOLLOW_IDLE: Duration = Duration::from_millis(500);

/// Entries after which the leader kicks its followers. So a new leader has at most about so many to catch up with, and
/// a store with little to do wakes nobody.
pub const ENTRIES_PER_KICK: u32 = 256;

/// Entries that a follower applies before it yields to the leader and its clients, who may wait for its processor, and looks
/// for orders: some 25 us. A single client's requests wait no longer than that.
pub const FOLLOW_BATCH: usize = 16;

/// How long a follower leaves the processor to others between two batches. A sleep, not sched_yield(2): where nobody waits
/// that returns at once, and a loop of it is known to keep kernel threads waiting for long under EEVDF (Linux 6.18).
pub const FOLLOW_BREATH: Duration = Duration::from_micros(20);

/// Entries that one applies at once that is behind. It does not rest: a thread that does while others wait loses more time
/// than it gives away, and the next takeover waits for what is left.
pub const FOLLOW_BATCH_BEHIND: usize = 64;

/// A follower that has applied so many entries and has not reached the end of the log is behind.
pub const FOLLOW_BEHIND: usize = 2 * ENTRIES_PER_KICK as usize;

/// How much later each replica begins to apply what it was kicked for than the one before it: two at once would take all
/// processors of a small machine from the leader and its clients.
pub const FOLLOW_STAGGER: Duration = Duration::from_millis(1);

const _: () = assert!(FOLLOW_BATCH < FOLLOW_BATCH_BEHIND && FOLLOW_BATCH_BEHIND < ENTRIES_PER_KICK as usize);
const _: () =
    assert!(FOLLOW_IDLE.as_millis() > FOLLOW_STAGGER.as_millis() * xs_shm::limits::REPLICAS_MAX as u128);

/// Log in use that makes the leader ask for a snapshot, at least.
pub const SNAPSHOT_LOG_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// The leader asks for a snapshot when the log is larger than this many times the last snapshot.
pub const SNAPSHOT_RATIO: u64 = 4;

/// A snapshot that was asked for and did not come in this time is asked for again.
pub const SNAPSHOT_WAIT: Duration = Duration::from_secs(5);

/// The largest snapshot that is loaded.
pub const SNAPSHOT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// How long a new leader waits for the gateway to hand over all descriptors.
pub const HANDOVER_WAIT: Duration = Duration::from_secs(2);

/// Descriptors in one packet between gateway and leader.
pub const HANDOVER_BATCH: usize = 100;

/// How long the parent waits for the store to serve when it goes to the background.
pub const DAEMON_START_WAIT: Duration = Duration::from_secs(30);

/// Log lines that guests and clients can provoke: so many in one [`LOG_WINDOW`] of each kind.
pub const LOG_LINES_PER_WINDOW: u32 = 10;

/// See [`LOG_LINES_PER_WINDOW`].
pub const LOG_WINDOW: Duration = Duration::from_secs(10);

/// What a follower promises the warden: its heartbeat on the board moves at least this often. The warden waits for ten
/// times as long and more for large stores, so that one that writes a snapshot is not taken for a hung one.
pub const HEARTBEAT_PROMISE_MS: u32 = 1_000;

/// How far behind the last known port is looked when a leader died between binding a port and noting it. Xen gives the
/// lowest free one.
pub const PORTS_SWEPT: u32 = 1024;

/// How long a new leader tries to map a ring again that the former one had, at each beat. A guest without its ring hangs
/// until it is released and introduced again; what keeps us from mapping it (descriptors, memory, grants) may pass.
pub const MAP_AGAIN_WAIT: Duration = Duration::from_secs(10);

/// How long a guest is held at first that made a commit of a privileged client fail: time for the second try.
pub const CONFLICT_HOLD_MIN: Duration = Duration::from_millis(50);

/// The longest hold. Each refusal in a row doubles the hold up to this.
pub const CONFLICT_HOLD_MAX: Duration = Duration::from_secs(1);

/// A guest whose last change is no older may be about to write again: longer than a busy machine lets it wait.
pub const CONFLICT_RECENT: Duration = Duration::from_secs(1);

/// Refusals of one client further apart than this are not in a row.
pub const CONFLICT_ROW: Duration = Duration::from_secs(5);

/// How long a client has to stay before the leader gives it to the gateway.
pub const HANDOVER_DELAY: Duration = Duration::from_millis(1);

/// Clients that the gateway lacks, at most. Beyond it new ones wait in the listening socket's queue.
pub const UNHANDED_MAX: usize = 256;

/// How long the gateway waits for what the heir of a dead leader sends. Far longer than that takes.
pub const HEIR_WAIT: Duration = Duration::from_millis(500);

/// How long an heir waits for a gateway that takes nothing.
pub const HEIR_SEND_WAIT: Duration = Duration::from_secs(1);

/// How long etcd may take from its start to its first answer. It may have to read a long log. Less than the warden waits.
pub const MEMBER_START_WAIT: Duration = Duration::from_secs(25);

/// Entries of etcd's own log after which it makes a snapshot and may drop what came before. An entry of ours is a batch of up
/// to tens of kilobytes; with etcd's default of 100,000 its log grew to more than a gigabyte, on tmpfs and again in its
/// memory, and each member that was started again read all of it.
pub const MEMBER_SNAPSHOT_ENTRIES: u32 = 1000;

/// How long etcd gets to end when it is asked to.
pub const MEMBER_STOP_WAIT: Duration = Duration::from_secs(2);

/// How long one probe of a starting etcd may take, unless the members give each other more time.
pub const MEMBER_PROBE: Duration = Duration::from_millis(500);

/// Pause between probes.
pub const MEMBER_PROBE_PAUSE: Duration = Duration::from_millis(20);

/// Pause between heartbeats of the store's own etcd, unless set otherwise. All members are on this host.
pub const MEMBER_HEARTBEAT_MS: u32 = 20;

/// Longest such pause.
pub const MEMBER_HEARTBEAT_MS_MAX: u32 = MEMBER_ELECTION_MS_MAX / MEMBER_HEARTBEATS_MIN;

/// After so long without a heartbeat members elect another leader, unless set otherwise.
pub const MEMBER_ELECTION_MS: u32 = 200;

/// The longest that etcd takes for that.
pub const MEMBER_ELECTION_MS_MAX: u32 = 50_000;

/// Heartbeats that have to fit into it, for etcd.
pub const MEMBER_HEARTBEATS_MIN: u32 = 5;

const _: () = assert!(MEMBER_ELECTION_MS >= MEMBER_HEARTBEATS_MIN * MEMBER_HEARTBEAT_MS);
const _: () = assert!(MEMBER_START_WAIT.as_millis() < warden::limits::START_BOUND_MS as u128);

/// Most bytes of a member's data file, unless set otherwise.
pub const MEMBER_QUOTA_BYTES: u64 = 1 << 30;

/// How long the others' copies of a damaged node are waited for.
pub const CONSULT_WAIT: Duration = Duration::from_millis(250);

/// Pause between looks at the others' answers.
pub const CONSULT_PAUSE: Duration = Duration::from_micros(20);

/// How often a replica that is to lead tells that it waits for the engine.
pub const ENGINE_WAIT_NOTE: Duration = Duration::from_millis(500);

/// How often the warden is told of the engine at most, as long as only figures change.
pub const ENGINE_TOLD_PAUSE: Duration = Duration::from_secs(1);

/// How often the warden is told of the engine although nothing changes.
pub const ENGINE_TOLD_AGAIN: Duration = Duration::from_secs(5);

/// Characters of a warning of the engine that are passed on.
pub const ENGINE_WORDS_MAX: usize = 300;

/// How often replicas look again whose roots differ, until it is clear who is right.
pub const DISPUTE_PAUSE: Duration = Duration::from_millis(2);

/// How often the same damage is mended in a row before the replica ends.
pub const MENDS_IN_A_ROW_MAX: u32 = 3;

/// Nodes that the scrubber of a follower verifies in a second.
pub const SCRUBBED_PER_S_FOLLOWER: u32 = 20_000;

/// Nodes that the scrubber of the leader verifies in a second.
pub const SCRUBBED_PER_S_LEADER: u32 = 2_000;

/// How long an entry waits for others to go to etcd with it.
pub const COPY_LINGER_MS: u64 = 50;

/// Longest such time.
pub const COPY_LINGER_MS_MAX: u64 = 1000;
