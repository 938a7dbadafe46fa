//! Bounds and sizes of this crate.

/// Version of the layout. Another one is refused. Version 2 has a sum in each descriptor.
pub const VERSION: u32 = 2;

/// Bytes that one slot holds. Slots lie at multiples of it, so that none crosses a page, as grant copies want it.
pub const SLOT_BYTES: usize = 2048;

/// Longest frame: 64 KiB of segmented TCP with its Ethernet header, a VLAN tag and some slack for IPv6 (65,562 bytes).
pub const FRAME_BYTES_MAX: usize = 65_562;

/// Slots that the longest frame takes.
pub const FRAME_SLOTS_MAX: usize = FRAME_BYTES_MAX.div_ceil(SLOT_BYTES);

/// The longest frame in whole slots.
pub const FRAME_ROOM_BYTES: usize = FRAME_SLOTS_MAX * SLOT_BYTES;

/// Fewest slots of a ring.
pub const SLOTS_MIN: u32 = 64;

/// Most slots of a ring: 128 MiB of frames.
pub const SLOTS_MAX: u32 = 65_536;

/// Words of a lane that belong to the driver's network card code.
pub const NIC_WORDS: usize = 16;

/// Size of the header of a ring: the fixed values and the words of both sides, far enough apart not to share a cache line.
pub const RING_HEADER_BYTES: usize = 512;

/// One descriptor.
pub const DESCRIPTOR_BYTES: usize = 32;

/// Rings lie at multiples of this.
pub const PAGE_BYTES: usize = 4096;

/// The page before a lane's rings.
pub const LANE_HEADER_BYTES: usize = PAGE_BYTES;

const _: () = assert!(FRAME_SLOTS_MAX <= SLOTS_MIN as usize, "the longest frame fits into the smallest ring");
const _: () = assert!(SLOTS_MIN.is_power_of_two() && SLOTS_MAX.is_power_of_two());
const _: () = assert!(PAGE_BYTES.is_multiple_of(SLOT_BYTES));
