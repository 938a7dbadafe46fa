//! Bounds.

use std::time::Duration;

/// Requests with data of one packet of the guest: the first and 18 more, which is what Linux's backend takes.
/// (`XEN_NETIF_NR_SLOTS_MIN` in `netif.h` asks for 18 in all.)
pub const TX_PARTS_MAX: usize = 19;
/// Requests with data of one packet that is merely bad; with more of them the guest is taken for hostile. Linux's
/// `fatal_skb_slots` (20) does not count the first.
pub const TX_REQUESTS_MAX: usize = 21;
/// Slots with extra information of one packet; a packet with more is bad. The protocol knows 5 kinds, each of use once.
pub const EXTRAS_MAX: usize = 8;
/// Bytes of the shortest frame: an Ethernet header.
pub const FRAME_BYTES_MIN: u32 = 14;
/// Bytes of the longest frame: 64 KiB of IP packet and the headers before it.
pub const FRAME_BYTES_MAX: u32 = 65_562;
/// Slots with data that the longest frame takes in a receive ring.
pub const RX_PARTS_MAX: usize = (FRAME_BYTES_MAX as usize).div_ceil(hypervisor::PAGE_BYTES);
/// Payload bytes of the smallest segment: less than Linux's TCP ever asks for (its least MSS of 48 less 40 bytes of
/// options). It bounds how many frames one frame of a guest becomes.
pub const GSO_SIZE_MIN: u16 = 8;
/// Frames that one frame can become.
pub const SEGMENTS_MAX: usize = (FRAME_BYTES_MAX as usize).div_ceil(GSO_SIZE_MIN as usize);
/// VLAN tags that are looked through.
pub const VLAN_TAGS_MAX: usize = 2;
/// IPv6 extension headers that are looked through.
pub const EXTENSION_HEADERS_MAX: usize = 8;
/// Queues of one interface that may be offered.
pub const QUEUES_MAX: u32 = 8;
/// The highest event channel of a domain (`EVTCHN_FIFO_NR_CHANNELS` - 1 in `xen/include/public/event_channel.h`).
pub const PORT_MAX: u32 = (1 << 17) - 1;
/// Digits of a number in the store.
pub const DIGITS_MAX: usize = 10;
/// How long a guest may leave a frame waiting for receive slots until it counts as stalled (Linux's
/// `rx_stall_timeout`).
pub const RX_STALL_TIMEOUT: Duration = Duration::from_secs(60);
