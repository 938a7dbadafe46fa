//! Bounds of the service.

use std::time::Duration;

/// Interfaces at once.
pub const VIFS_MAX: usize = 64;

/// Queues of one interface.
pub const QUEUES_MAX: usize = 4;

/// Frames of at most 2 KiB that wait for one queue of a guest: four megabytes of memory (Linux's netback bears eight). One that
/// is alone in sending to it can fill half of it; beyond that frames are dropped and counted. At 65,000 frames/s its ring of
/// 256 and this half are 20 ms, in which a guest on a busy machine comes to a processor; with 256 slots some sixty frames
/// were dropped now and then.
pub const BACKLOG_SLOTS: u32 = 2048;

/// Frames from one side that are moved before others get their turn.
pub const BATCH: usize = 64;

/// Frames and segments that are given out in one batch, about: a batch of frames to be cut, or for many guests, ends then.
pub const WORK_MAX: u32 = 512;

/// Batches of a guest's backlog that are moved in one turn: a whole ring.
pub const BACKLOG_BATCHES: usize = 4;

/// However long a turn is, lanes are looked at this often: what waits there longer is blamed on the shadow.
pub const LANES_EVERY: Duration = Duration::from_millis(1);

/// Slots of a lane in each direction.
pub const LANE_SLOTS: u32 = 2048;

/// Network cards of one service.
pub const NICS_MAX: usize = 8;

/// Event-channel events that are taken before frames are moved.
pub const EVENTS_PER_TURN_MAX: usize = 64;

/// Turns of a shadow that always has something to move, after which it looks who else wants something.
pub const BUSY_TURNS: u32 = 4;

/// Turns of a driver that always has something to move, after which it hears orders.
pub const ORDER_TURNS: u32 = 64;

/// How long a process sleeps at most: it shows itself alive at least this often.
pub const BEAT: Duration = Duration::from_millis(100);

/// Longest frame: 64 KiB of segmented payload with its headers.
pub const FRAME_BYTES_MAX: usize = lane::limits::FRAME_BYTES_MAX;

/// Longest frame on a wire: an MTU of 1500, a VLAN tag, an Ethernet header.
pub const UPLINK_FRAME_BYTES_MAX: usize = 1518;

/// Frames of one batch, in bytes.
pub const SCRATCH_BYTES: usize = 512 * 1024;

const _: () = assert!(SCRATCH_BYTES >= lane::limits::FRAME_ROOM_BYTES);

/// Events that one wait of the poller gives.
pub const POLL_EVENTS_MAX: usize = 64;

/// How soon a driver asks a congested network card again.
pub const CONGESTED_PAUSE: Duration = Duration::from_millis(1);

/// How soon a driver asks again whether its network card is back.
pub const DOWN_PAUSE: Duration = Duration::from_millis(10);

/// How often a driver asks the kernel which frames found no room.
pub const REFUSALS_PAUSE: Duration = Duration::from_millis(100);

/// What a driver that was told to be slow waits in each turn.
pub const SLOW_PAUSE: Duration = Duration::from_millis(20);

/// How soon a store that cannot be reached is tried again.
pub const STORE_AGAIN: Duration = Duration::from_millis(50);

/// How often the store is looked at without any change.
pub const STORE_LOOK: Duration = Duration::from_secs(1);

/// Actions for one device before others get their turn.
pub const ACTIONS_MAX: usize = 16;

/// Keys of a frontend that are read.
pub const FRONTEND_KEYS_MAX: usize = 64;

/// Numbers of sources are below; one is kept for backlogs.
pub const SOURCES: u16 = u16::MAX;

/// How often the keeper looks at everybody while there is work. (With 2 ms it saved a twentieth of a processor at most, and an endless
/// loop was found after 29 ms, 50 at p99, instead of 23 and 28: no sample may add much to a standstill.)
pub const LOOK_PAUSE: Duration = Duration::from_millis(1);

/// A look is followed by a pause of at least so many times what it took.
pub const LOOK_REST: u32 = 9;

/// Longest pause between two looks while there is work.
pub const LOOK_PAUSE_MAX: Duration = Duration::from_millis(20);

/// How long there has to be no work before the keeper sleeps.
pub const IDLE_AFTER: Duration = Duration::from_millis(50);

/// How long it sleeps at most.
pub const KEEPER_IDLE: Duration = Duration::from_millis(100);

/// How long the other side of a lane may take to write an index again that something else changed, before it is taken for a
/// liar. It does so whenever its loop turns.
pub const LANE_PATIENCE: Duration = Duration::from_millis(20);

/// How soon such an index is looked at again.
pub const LANE_LOOK: Duration = Duration::from_millis(1);

/// How often a driver looks at an index of the shadow's that makes no sense. It can not do without the shadow, and waits
/// longer than one takes to be replaced.
pub const LANE_LOOKS_DRIVER: u32 = 250;

/// Frames from the wire that were not what the driver wrote, after which it is taken for a liar rather than the memory for bad.
pub const DAMAGED_MAX: u32 = 4;

/// How long a process that was told to stop may take.
pub const STOP_WAIT: Duration = Duration::from_secs(1);

/// A line of commands.
pub const COMMAND_BYTES_MAX: usize = 4096;

/// How long frames that came from a device which is gone may wait for room in the lane before its successor is opened.
pub const OLD_RING_WAIT: Duration = Duration::from_secs(1);

/// Vaults beside a keeper: one of them may die with it.
pub const VAULTS: usize = 2;

/// Links of a vault to keepers: the present one's, and those over which others hold a copy.
pub const VAULT_LINKS_MAX: usize = 4;

/// How often a vault looks at a keeper that shows itself alive.
pub const VAULT_LOOK: Duration = Duration::from_millis(50);

/// How often it looks at one that has not shown itself alive for [`VAULT_DOUBTS`].
pub const VAULT_LOOK_AGAIN: Duration = Duration::from_millis(5);

/// See [`VAULT_LOOK_AGAIN`]. A keeper that sleeps shows itself each [`KEEPER_IDLE`].
pub const VAULT_DOUBTS: Duration = Duration::from_millis(200);

/// How long the second vault leaves it to the first to start the next keeper.
pub const VAULT_YIELD: Duration = Duration::from_millis(100);

/// Pause before the next keeper after one that lived for a short time only; it doubles up to [`KEEPER_AGAIN_MAX`].
pub const KEEPER_AGAIN_FIRST: Duration = Duration::from_millis(10);

/// See [`KEEPER_AGAIN_FIRST`].
pub const KEEPER_AGAIN_MAX: Duration = Duration::from_secs(2);

/// A keeper that lived for so long is followed by the next one at once.
pub const KEEPER_LIVED: Duration = Duration::from_millis(100);

/// How long a keeper may take to stop all, before another one is to do it.
pub const KEEPER_STOP_WAIT: Duration = Duration::from_secs(15);

/// Keepers that are started to stop all, before that is given up.
pub const KEEPER_STOPS_MAX: u32 = 3;

/// How soon a vault is started again that could not be started, or died at once. One that lived for longer is followed by
/// the next one at once.
pub const VAULT_AGAIN: Duration = Duration::from_millis(100);

/// How often a keeper looks at its vaults.
pub const VAULTS_LOOK: Duration = Duration::from_millis(20);

/// Events that are kept for the next keeper, and for whoever asks. What is counted of all queues fits in.
pub const JOURNAL_EVENTS: usize = 1024;

/// Bytes of an event in the journal.
pub const EVENT_BYTES_MAX: usize = 496;

/// Bytes of the text of an event; the rest is cut off.
pub const EVENT_TEXT_BYTES_MAX: usize = 400;

/// How long the end waits for events to be written out.
pub const WRITE_OUT_WAIT: Duration = Duration::from_secs(1);

const _: () = assert!(JOURNAL_EVENTS > VIFS_MAX * QUEUES_MAX + NICS_MAX + 64);

/// Lines of the log that wait to be written; more are lost.
pub const LOG_LINES_WAITING: usize = 1024;

/// Lines that one place in the code writes to the log in a second; the others are counted.
pub const LOG_LINES_A_SECOND: u32 = 10;

/// How long the end of another service is waited for before a start is refused.
pub const RUNNING_WAIT: Duration = Duration::from_millis(500);

/// Bytes that are read of what a former service noted of its processes.
pub const ORPHANS_BYTES_MAX: usize = 4096;

/// How long the end of such processes may take.
pub const ORPHANS_WAIT: Duration = Duration::from_secs(3);

/// How often is looked whether they ended.
pub const ORPHANS_LOOK: Duration = Duration::from_millis(5);

/// Bytes of the reason for which a vault kills a keeper; the rest is cut off.
pub const CONDEMNED_BYTES_MAX: usize = 128;

/// Requests of the gRPC side that wait for the keeper.
pub const RPC_ASKS_MAX: usize = 16;

/// Readers of events at once.
pub const RPC_FOLLOWERS_MAX: usize = 16;

/// Events that wait for one reader; others stay in the journal.
pub const RPC_EVENTS_QUEUED: usize = 64;

/// Bytes of a request.
pub const RPC_REQUEST_BYTES_MAX: usize = 4096;

/// How long a keeper may take to harm a process.
pub const RPC_INJECT_WAIT: Duration = Duration::from_secs(2);

/// Names of events that are counted apart.
pub const METRIC_KINDS_MAX: usize = 64;
