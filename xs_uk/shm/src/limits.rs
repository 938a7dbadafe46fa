//! Bounds and sizes of this crate.

/// Most client sockets at a time.
pub const SOCKETS_MAX: u32 = 4096;

/// Most guest rings at a time, dom0's included.
pub const RINGS_MAX: u32 = 4096;

/// Slots in the connection table: sockets first, rings after them.
pub const SLOTS_MAX: u32 = SOCKETS_MAX + RINGS_MAX;

/// Bytes received from a client and not yet consumed. At least one message of 4112 bytes.
pub const RX_BYTES: usize = 8 * 1024;

/// Bytes queued for a client and not yet delivered. Room for three messages of 4112 bytes.
pub const TX_BYTES: usize = 16 * 1024;

/// A slot's header page.
pub const SLOT_HEADER_BYTES: usize = 4096;

/// One slot.
pub const SLOT_BYTES: usize = SLOT_HEADER_BYTES + RX_BYTES + TX_BYTES;

/// Header of the connection table.
pub const TABLE_HEADER_BYTES: usize = 4096;

/// Size of the connection table's memory. Pages that no connection touched take no memory.
pub const TABLE_BYTES: usize = TABLE_HEADER_BYTES + SLOTS_MAX as usize * SLOT_BYTES;

/// Most replicas that the board has a row for.
pub const REPLICAS_MAX: u32 = 8;

/// One row of the board.
pub const BOARD_ROW_BYTES: usize = 512;

/// Size of the board's memory.
pub const BOARD_BYTES: usize = (REPLICAS_MAX as usize + 1) * BOARD_ROW_BYTES;

/// Entries back to which a replica's roots can be compared.
pub const ROOTS_WINDOW: usize = 1024;

/// Size of the roots' memory.
pub const ROOTS_BYTES: usize = REPLICAS_MAX as usize * ROOTS_WINDOW * 48;

/// Longest question: a path and its kind.
pub const QUESTION_BYTES_MAX: usize = 4096 - 24;

/// Place of the question.
pub const QUESTION_PLACE_BYTES: usize = 4096;

/// Longest answer: a node's value and permissions with their framing.
pub const ANSWER_BYTES_MAX: usize = ANSWER_PLACE_BYTES - 16;

/// Place of one replica's answer.
pub const ANSWER_PLACE_BYTES: usize = 16 * 1024;

/// Size of the memory for questions and answers.
pub const CONSULT_BYTES: usize = QUESTION_PLACE_BYTES + REPLICAS_MAX as usize * ANSWER_PLACE_BYTES;

const _: () = assert!(ROOTS_BYTES == REPLICAS_MAX as usize * ROOTS_WINDOW * crate::roots::PLACE_BYTES);
const _: () = assert!(RX_BYTES >= 4112 && TX_BYTES >= 2 * 4112);
const _: () = assert!(RX_BYTES.is_power_of_two() && TX_BYTES.is_power_of_two());
