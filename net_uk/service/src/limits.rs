//! Bounds of the service.

use std::time::Duration;

/// Interfaces at once.
pub const VIFS_MAX: usize = 64;

/// Queues of one interface.
pub const QUEUES_MAX: usize = 4;

/// Frames of at most 2 KiB that wait for one queue of a guest: half a megabyte of memory. Beyond it frames for it are
/// dropped and counted.
pub const BACKLOG_SLOTS: u32 = 256;

/// Frames from one side that are moved before others get their turn.
pub const BATCH: usize = 64;

/// Slots of a lane in each direction.
pub const LANE_SLOTS: u32 = 2048;

/// Network cards of one service.
pub const NICS_MAX: usize = 8;

/// Event-channel events that are taken before frames are moved.
pub const EVENTS_PER_TURN_MAX: usize = 64;

/// How long a process sleeps at most: it shows itself alive at least this often.
pub const BEAT: Duration = Duration::from_millis(100);

/// Longest frame: 64 KiB of segmented payload with its headers.
pub const FRAME_BYTES_MAX: usize = lane::limits::FRAME_BYTES_MAX;

/// Longest frame on a wire: an MTU of 1500, a VLAN tag, an Ethernet header.
pub const UPLINK_FRAME_BYTES_MAX: usize = 1518;

/// Frames of one batch of a guest, in bytes.
pub const SCRATCH_BYTES: usize = 512 * 1024;

const _: () = assert!(SCRATCH_BYTES >= FRAME_BYTES_MAX);

/// Events that one wait of the poller gives.
pub const POLL_EVENTS_MAX: usize = 64;

/// How soon a driver asks a congested network card again.
pub const CONGESTED_PAUSE: Duration = Duration::from_millis(1);

/// How soon a driver asks again whether its network card is back.
pub const DOWN_PAUSE: Duration = Duration::from_millis(10);

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

/// How often the keeper looks at everybody while there is work.
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
