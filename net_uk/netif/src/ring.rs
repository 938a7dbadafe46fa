//! Layout of the shared pages, and the messages in them.
//!
//! Sources: `xen/include/public/io/ring.h` and `netif.h`; the extra types 4 and 5 are from Linux's copy of `netif.h`.
//! A page holds four indexes, padding up to byte 64, and 256 slots, each of a request or of its response. Numbers are in
//! the machine's byte order.

use hypervisor::{GrantRef, Page};

use crate::{Gso, Index, MacAddr};

/// Slots of a ring that fills one page.
pub const RING_SLOTS: u32 = 256;
/// Offset of the index behind the frontend's last request.
pub const REQ_PROD_OFFSET: usize = 0;
/// Offset of the request index at which the backend wants an event.
pub const REQ_EVENT_OFFSET: usize = 4;
/// Offset of the index behind the backend's last response.
pub const RSP_PROD_OFFSET: usize = 8;
/// Offset of the response index at which the frontend wants an event.
pub const RSP_EVENT_OFFSET: usize = 12;
/// Offset of slot 0.
pub const SLOTS_OFFSET: usize = 64;
/// Bytes of a slot of the transmit ring.
pub const TX_SLOT_BYTES: usize = 12;
/// Bytes of a slot of the receive ring.
pub const RX_SLOT_BYTES: usize = 8;
/// Bytes of a transmit response; the rest of its slot is zero.
pub const TX_RESPONSE_BYTES: usize = 4;

/// Offset of the slot that an index means.
pub const fn slot_offset(index: Index, slot_bytes: usize) -> usize {
    SLOTS_OFFSET + index.slot() * slot_bytes
}

/// Copies a slot, each word of it read once.
///
/// # Panics
/// If `N` is not a multiple of 4.
pub fn read_slot<const N: usize>(page: &Page, index: Index) -> [u8; N] {
    let mut slot = [0; N];
    let start = slot_offset(index, N);
    for (number, word) in slot.chunks_exact_mut(4).enumerate() {
        word.copy_from_slice(&page.load_u32(start + 4 * number).to_ne_bytes());
    }
    slot
}

/// Fills a slot of `slot_bytes`: first `bytes`, then zeros.
///
/// # Panics
/// If a length is not a multiple of 4, or `bytes` are more than the slot's.
pub fn write_slot(page: &Page, index: Index, slot_bytes: usize, bytes: &[u8]) {
    assert!(bytes.len() <= slot_bytes && bytes.len().is_multiple_of(4), "{} bytes do not fit", bytes.len());
    let start = slot_offset(index, slot_bytes);
    for (number, word) in bytes.as_chunks().0.iter().enumerate() {
        page.store_u32(start + 4 * number, u32::from_ne_bytes(*word));
    }
    for offset in (bytes.len()..slot_bytes).step_by(4) {
        page.store_u32(start + offset, 0);
    }
}

/// Flags of a transmit request (`XEN_NETTXF_*`).
pub mod tx_flags {
    /// The checksum is not in the packet yet.
    pub const CSUM_BLANK: u16 = 1;
    /// The checksum is known to be right.
    pub const DATA_VALIDATED: u16 = 2;
    /// The packet goes on in the next request.
    pub const MORE_DATA: u16 = 4;
    /// Slots with extra information follow.
    pub const EXTRA_INFO: u16 = 8;
}

/// Flags of a receive response (`XEN_NETRXF_*`).
pub mod rx_flags {
    /// The checksum is known to be right.
    pub const DATA_VALIDATED: u16 = 1;
    /// The checksum is not in the packet yet.
    pub const CSUM_BLANK: u16 = 2;
    /// The packet goes on in the next response.
    pub const MORE_DATA: u16 = 4;
    /// Slots with extra information follow.
    pub const EXTRA_INFO: u16 = 8;
}

/// Statuses of responses (`XEN_NETIF_RSP_*`).
pub mod status {
    /// Not taken on purpose.
    pub const DROPPED: i16 = -2;
    /// Failed.
    pub const ERROR: i16 = -1;
    /// Done.
    pub const OKAY: i16 = 0;
    /// No response: for slots with extra information.
    pub const NULL: i16 = 1;
}

/// Types of extra information (`XEN_NETIF_EXTRA_TYPE_*`).
mod extra_type {
    pub const GSO: u8 = 1;
    pub const MCAST_ADD: u8 = 2;
    pub const MCAST_DEL: u8 = 3;
    pub const HASH: u8 = 4;
    pub const XDP: u8 = 5;
}
/// Flag of a slot with extra information: another follows.
const EXTRA_FLAG_MORE: u8 = 1;

fn u16_at(slot: &[u8], offset: usize) -> u16 {
    u16::from_ne_bytes([slot[offset], slot[offset + 1]])
}

fn u32_at(slot: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes([slot[offset], slot[offset + 1], slot[offset + 2], slot[offset + 3]])
}

/// A request to transmit (part of) a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TxRequest {
    /// The page with the data.
    pub gref: GrantRef,
    /// Where in the page the data begins.
    pub offset_bytes: u16,
    /// Bits of [`tx_flags`].
    pub flags: u16,
    /// Comes back in the response.
    pub id: u16,
    /// In a packet's first request the whole packet's length, else this part's.
    pub size_bytes: u16,
}

impl TxRequest {
    /// From a slot.
    pub fn decode(slot: &[u8; TX_SLOT_BYTES]) -> Self {
        Self {
            gref: GrantRef(u32_at(slot, 0)),
            offset_bytes: u16_at(slot, 4),
            flags: u16_at(slot, 6),
            id: u16_at(slot, 8),
            size_bytes: u16_at(slot, 10),
        }
    }

    /// To a slot.
    pub fn encode(&self) -> [u8; TX_SLOT_BYTES] {
        let mut slot = [0; TX_SLOT_BYTES];
        slot[0..4].copy_from_slice(&self.gref.0.to_ne_bytes());
        slot[4..6].copy_from_slice(&self.offset_bytes.to_ne_bytes());
        slot[6..8].copy_from_slice(&self.flags.to_ne_bytes());
        slot[8..10].copy_from_slice(&self.id.to_ne_bytes());
        slot[10..12].copy_from_slice(&self.size_bytes.to_ne_bytes());
        slot
    }

    /// Are all these flags set?
    pub fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }
}

/// The answer to one transmit request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TxResponse {
    /// The request's.
    pub id: u16,
    /// One of [`status`].
    pub status: i16,
}

impl TxResponse {
    /// From the beginning of a slot.
    pub fn decode(slot: &[u8; TX_RESPONSE_BYTES]) -> Self {
        Self { id: u16_at(slot, 0), status: u16_at(slot, 2).cast_signed() }
    }

    /// To the beginning of a slot.
    pub fn encode(&self) -> [u8; TX_RESPONSE_BYTES] {
        let ([a, b], [c, d]) = (self.id.to_ne_bytes(), self.status.to_ne_bytes());
        [a, b, c, d]
    }
}

/// A page that the guest posts to receive into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RxRequest {
    /// Comes back in the response.
    pub id: u16,
    /// The page.
    pub gref: GrantRef,
}

impl RxRequest {
    /// From a slot.
    pub fn decode(slot: &[u8; RX_SLOT_BYTES]) -> Self {
        Self { id: u16_at(slot, 0), gref: GrantRef(u32_at(slot, 4)) }
    }

    /// To a slot.
    pub fn encode(&self) -> [u8; RX_SLOT_BYTES] {
        let mut slot = [0; RX_SLOT_BYTES];
        slot[0..2].copy_from_slice(&self.id.to_ne_bytes());
        slot[4..8].copy_from_slice(&self.gref.0.to_ne_bytes());
        slot
    }
}

/// (Part of) a packet that was put into a page of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RxResponse {
    /// The request's.
    pub id: u16,
    /// Where in the page the data begins.
    pub offset_bytes: u16,
    /// Bits of [`rx_flags`].
    pub flags: u16,
    /// Bytes in the page, or one of [`status`] below 0.
    pub status: i16,
}

impl RxResponse {
    /// From a slot.
    pub fn decode(slot: &[u8; RX_SLOT_BYTES]) -> Self {
        Self {
            id: u16_at(slot, 0),
            offset_bytes: u16_at(slot, 2),
            flags: u16_at(slot, 4),
            status: u16_at(slot, 6).cast_signed(),
        }
    }

    /// To a slot.
    pub fn encode(&self) -> [u8; RX_SLOT_BYTES] {
        let mut slot = [0; RX_SLOT_BYTES];
        slot[0..2].copy_from_slice(&self.id.to_ne_bytes());
        slot[2..4].copy_from_slice(&self.offset_bytes.to_ne_bytes());
        slot[4..6].copy_from_slice(&self.flags.to_ne_bytes());
        slot[6..8].copy_from_slice(&self.status.to_ne_bytes());
        slot
    }
}

/// What a slot with extra information says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    /// The packet is to be cut.
    Gso {
        /// Payload bytes of a segment.
        size_bytes: u16,
        /// A number of [`crate::GsoKind`].
        kind: u8,
        /// Further features that the cutting needs; none is defined.
        features: u16,
    },
    /// An address is to join the guest's multicast list.
    MulticastAdd(MacAddr),
    /// An address is to leave the guest's multicast list.
    MulticastDel(MacAddr),
    /// A hash of the packet's flow.
    Hash {
        /// Which headers it covers.
        kind: u8,
        /// How it was made.
        algorithm: u8,
        /// The hash.
        value: [u8; 4],
    },
    /// Room before the data.
    Xdp {
        /// How much.
        headroom_bytes: u16,
    },
    /// A type that is not known.
    Unknown(u8),
}

impl From<Gso> for Extra {
    fn from(gso: Gso) -> Self {
        Self::Gso { size_bytes: gso.size_bytes, kind: gso.kind.number(), features: 0 }
    }
}

/// A slot with extra information about a packet. It has the length of a receive slot; in a transmit slot the rest is
/// padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtraInfo {
    /// What it says.
    pub extra: Extra,
    /// Does another such slot follow?
    pub more: bool,
}

impl ExtraInfo {
    /// From the first bytes of a slot.
    pub fn decode(slot: &[u8; RX_SLOT_BYTES]) -> Self {
        let [kind, flags, a, b, c, d, e, f] = *slot;
        let extra = match kind {
            extra_type::GSO => {
                Extra::Gso { size_bytes: u16_at(slot, 2), kind: c, features: u16::from_ne_bytes([e, f]) }
            }
            extra_type::MCAST_ADD => Extra::MulticastAdd(MacAddr([a, b, c, d, e, f])),
            extra_type::MCAST_DEL => Extra::MulticastDel(MacAddr([a, b, c, d, e, f])),
            extra_type::HASH => Extra::Hash { kind: a, algorithm: b, value: [c, d, e, f] },
            extra_type::XDP => Extra::Xdp { headroom_bytes: u16_at(slot, 2) },
            unknown => Extra::Unknown(unknown),
        };
        Self { extra, more: flags & EXTRA_FLAG_MORE != 0 }
    }

    /// To the first bytes of a slot.
    pub fn encode(&self) -> [u8; RX_SLOT_BYTES] {
        let (kind, [a, b, c, d, e, f]) = match self.extra {
            Extra::Gso { size_bytes, kind, features } => {
                let ([a, b], [e, f]) = (size_bytes.to_ne_bytes(), features.to_ne_bytes());
                (extra_type::GSO, [a, b, kind, 0, e, f])
            }
            Extra::MulticastAdd(address) => (extra_type::MCAST_ADD, address.0),
            Extra::MulticastDel(address) => (extra_type::MCAST_DEL, address.0),
            Extra::Hash { kind, algorithm, value: [c, d, e, f] } => {
                (extra_type::HASH, [kind, algorithm, c, d, e, f])
            }
            Extra::Xdp { headroom_bytes } => {
                let [a, b] = headroom_bytes.to_ne_bytes();
                (extra_type::XDP, [a, b, 0, 0, 0, 0])
            }
            Extra::Unknown(kind) => (kind, [0; 6]),
        };
        [kind, if self.more { EXTRA_FLAG_MORE } else { 0 }, a, b, c, d, e, f]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GsoKind;
    use proptest::prelude::*;

    /// The offsets of the C structures on a machine with little-endian numbers.
    #[test]
    fn slots_have_the_layout_of_netif_h() {
        let request = TxRequest {
            gref: GrantRef(0x0403_0201),
            offset_bytes: 0x0605,
            flags: 0x0807,
            id: 0x0a09,
            size_bytes: 0x0c0b,
        };
        let response = TxResponse { id: 0x0201, status: 0x0403 };
        let post = RxRequest { id: 0x0201, gref: GrantRef(0x0807_0605) };
        let delivery = RxResponse { id: 0x0201, offset_bytes: 0x0403, flags: 0x0605, status: 0x0807 };
        let gso = Extra::Gso { size_bytes: 0x0403, kind: 5, features: 0x0807 };
        if cfg!(target_endian = "little") {
            assert_eq!(request.encode(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
            assert_eq!(response.encode(), [1, 2, 3, 4]);
            assert_eq!(post.encode(), [1, 2, 0, 0, 5, 6, 7, 8]);
            assert_eq!(delivery.encode(), [1, 2, 3, 4, 5, 6, 7, 8]);
            assert_eq!(ExtraInfo { extra: gso, more: true }.encode(), [1, 1, 3, 4, 5, 0, 7, 8]);
            let status = TxResponse { id: 0, status: status::DROPPED };
            assert_eq!(status.encode(), [0, 0, 0xfe, 0xff]);
        }
        let add = ExtraInfo { extra: Extra::MulticastAdd(MacAddr([1, 0, 0x5e, 4, 5, 6])), more: false };
        assert_eq!(add.encode(), [2, 0, 1, 0, 0x5e, 4, 5, 6]);
        let gso = Extra::from(Gso { kind: GsoKind::TcpV6, size_bytes: 1400 });
        assert_eq!(gso, Extra::Gso { size_bytes: 1400, kind: 2, features: 0 });
    }

    #[test]
    fn a_ring_fills_the_largest_power_of_two_of_its_page() {
        for bytes in [TX_SLOT_BYTES, RX_SLOT_BYTES] {
            let fits = (hypervisor::PAGE_BYTES - SLOTS_OFFSET) / bytes;
            assert_eq!(fits.ilog2(), RING_SLOTS.ilog2());
        }
        assert_eq!(slot_offset(Index(0x1_01), TX_SLOT_BYTES), 64 + 12);
        assert_eq!(slot_offset(Index(u32::MAX), RX_SLOT_BYTES), 64 + 255 * 8);
    }

    proptest! {
        #[test]
        fn messages_round_trip(slot: [u8; 12], short: [u8; 8], tiny: [u8; 4]) {
            prop_assert_eq!(TxRequest::decode(&slot).encode(), slot);
            prop_assert_eq!(RxResponse::decode(&short).encode(), short);
            prop_assert_eq!(TxResponse::decode(&tiny).encode(), tiny);
            let post = RxRequest::decode(&short);
            prop_assert_eq!(RxRequest::decode(&post.encode()), post);
        }

        #[test]
        fn any_extra_is_read(mut slot: [u8; 8], kind in 0u8..8) {
            slot[0] = kind;
            let info = ExtraInfo::decode(&slot);
            prop_assert_eq!(ExtraInfo::decode(&info.encode()), info);
            prop_assert_eq!(matches!(info.extra, Extra::Unknown(_)), !(1..=5).contains(&kind));
        }

        #[test]
        fn a_slot_is_written_whole_and_alone(index: u32, old: u8, bytes: [u8; 4]) {
            let page = Page::anonymous().unwrap();
            page.write(0, &[old; 4096]);
            let index = Index(index);
            write_slot(&page, index, TX_SLOT_BYTES, &bytes);
            let slot = read_slot::<TX_SLOT_BYTES>(&page, index);
            prop_assert_eq!(&slot[..4], &bytes);
            prop_assert_eq!(&slot[4..], &[0; 8]);
            prop_assert_eq!(read_slot::<TX_SLOT_BYTES>(&page, index.plus(1)), [old; 12]);
        }
    }
}
