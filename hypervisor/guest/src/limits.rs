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

/// Slots of a ring of one page, of both kinds.
pub const RING_SLOTS: u32 = 256;
/// Data slots that a sent frame takes at most, as in Linux (`MAX_XEN_SKB_FRAGS` + 1); a slot for extra info may come on top.
pub const TX_DATA_SLOTS_MAX: usize = 18;
/// Slots of a sent ring that are left free, so that the largest frame always fits.
pub const TX_SLOTS_SPARE: u32 = 19;
/// Bytes of a sent frame (`XEN_NETIF_MAX_TX_SIZE`).
pub const TX_FRAME_BYTES_MAX: usize = 65_535;
/// Data slots of a received frame: 17 fragments (`MAX_SKB_FRAGS`), and the first besides if it is short enough to be copied.
pub const RX_FRAGMENTS_MAX: usize = 17;
/// Bytes up to which the first slot of a received frame is copied (`RX_COPY_THRESHOLD`).
pub const RX_COPY_BYTES: usize = 256;
/// Frames taken from a ring before the next is looked at (a NAPI poll's budget).
pub const RX_BUDGET: usize = 64;
/// Queues of an interface.
pub const QUEUES_MAX: u16 = 4;
/// Changes of a backend's state that are remembered one by one; more are counted.
pub const STATES_MAX: usize = 64;
/// Flows that a receiver keeps account of; frames of others are counted together.
pub const FLOWS_MAX: usize = 64;
/// How far behind the newest sequence number of its flow a frame may come and still be told from a duplicate.
pub const WINDOW_FRAMES: u64 = 1 << 16;
/// Frames that a sender which fell behind its rate sends at once; it forgets the others.
pub const CATCH_UP_FRAMES: u64 = 1024;
/// Frames put on rings before events are looked at.
pub const SEND_BATCH: usize = 64;
/// Bytes of one command on standard input.
pub const COMMAND_BYTES_MAX: usize = 256;
/// Frames to be sent back that wait for room in a ring; more are dropped and counted.
pub const ECHO_FRAMES_MAX: usize = 1024;
