//! Bounds and sizes of this crate.

use std::time::Duration;

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

/// Most queues of a device that are served over `AF_XDP`. Each takes a descriptor and `rx` frames of memory.
pub const XDP_QUEUES_MAX: usize = 16;

/// Room that the kernel keeps before a frame that it receives over `AF_XDP`.
pub const XDP_HEADROOM_BYTES: usize = 256;

/// Largest maximum transfer unit over `AF_XDP`: a frame with its headroom fits into a page.
pub const XDP_MTU_BYTES_MAX: u32 = 3_822;

/// Most calls that one kick makes: a call sends 32 frames at least, if the device takes them.
pub const XDP_SENDS_MAX: u32 = 64;

/// How long a device is waited for whose former sockets the kernel is still taking down.
pub const XDP_BUSY_WAIT: Duration = Duration::from_millis(1_500);

/// Between two attempts.
pub const XDP_BUSY_PAUSE: Duration = Duration::from_millis(20);

const _: () = assert!(XDP_MTU_BYTES_MAX as usize + LINK_HEADER_BYTES + XDP_HEADROOM_BYTES == 4096);
