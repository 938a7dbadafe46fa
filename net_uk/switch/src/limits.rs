//! Bounds of this crate.

/// Most ports of one switch.
pub const PORTS_MAX: usize = 256;

/// Most learned addresses of a vif. A guest that is a bridge itself needs some.
pub const VIF_ADDRESSES_MAX: usize = 64;

/// Most learned addresses of a NIC.
pub const NIC_ADDRESSES_MAX: usize = 4_096;

/// Most multicast addresses that a vif may ask for, as in Linux.
pub const MULTICAST_MAX: usize = 64;

/// How long a learned address is believed without a frame from it, in nanoseconds: the 300 s of IEEE 802.1Q.
pub const AGEING_DEFAULT_NS: u64 = 300 * 1_000_000_000;

/// Bytes of an Ethernet header without tags.
pub const HEADER_BYTES: usize = 14;
