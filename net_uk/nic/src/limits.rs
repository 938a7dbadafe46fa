//! Bounds and sizes of this crate.

/// Most frames that one call of `transmit` or `receive` moves, so that a driver's loop turns often enough.
pub const BATCH_FRAMES: u32 = 64;

/// Slots of a ring of the kernel when nothing else is said.
pub const RING_SLOTS_DEFAULT: u32 = 4096;

/// Fewest slots of a ring of the kernel.
pub const RING_SLOTS_MIN: u32 = 16;

/// Most slots of a ring of the kernel.
pub const RING_SLOTS_MAX: u32 = 65_536;

/// Largest maximum transfer unit: jumbo frames.
pub const MTU_BYTES_MAX: u32 = 9_216;

/// Smallest one: IPv4 guarantees no less.
pub const MTU_BYTES_MIN: u32 = 68;

/// Most memory that one ring of the kernel takes.
pub const RING_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Bytes of an Ethernet header. The kernel takes nothing shorter.
pub const ETHERNET_BYTES: usize = 14;

/// Ethernet header and VLAN tag.
pub const LINK_HEADER_BYTES: usize = 18;

/// Longest name of an interface.
pub const INTERFACE_BYTES_MAX: usize = 15;

/// Most IPv6 extension headers before TCP or UDP.
pub const EXTENSION_HEADERS_MAX: usize = 8;

/// Memory that frames on their way to the device may hold in the kernel.
pub const SEND_BUFFER_BYTES: u32 = 32 * 1024 * 1024;
