//! What stands in the slots (`xen/include/public/io/netif.h`). Numbers are those of the machine.

use hypervisor::GrantRef;

/// Bytes of a slot of the sent ring.
pub const TX_SLOT_BYTES: usize = 12;
/// Bytes of a slot of the received ring.
pub const RX_SLOT_BYTES: usize = 8;
/// The transport's checksum is still to be computed.
pub const CSUM_BLANK: u16 = 1;
/// The data are known to be right.
pub const DATA_VALIDATED: u16 = 2;
/// The frame goes on in the next slot.
pub const MORE_DATA: u16 = 4;
/// Slots with extra info follow.
pub const EXTRA_INFO: u16 = 8;
/// Status: the slot held extra info (`NETIF_RSP_NULL`).
pub const STATUS_NULL: i16 = 1;
/// Status: taken.
pub const STATUS_OKAY: i16 = 0;
/// Status: the request was wrong.
pub const STATUS_ERROR: i16 = -1;
/// Status: the frame was dropped.
pub const STATUS_DROPPED: i16 = -2;
/// Type of the extra info about segments.
pub const EXTRA_GSO: u8 = 1;
/// The types of extra info that this frontend knows end before it.
pub const EXTRA_END: u8 = 5;
/// More extra info follows.
pub const EXTRA_MORE: u8 = 1;

/// A fragment to send; of the first, `size` is that of the whole frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxRequest {
    /// Its page.
    pub gref: GrantRef,
    /// Where in the page, in bytes.
    pub offset: u16,
    /// [`CSUM_BLANK`] and so on.
    pub flags: u16,
    /// Comes back in the response.
    pub id: u16,
    /// Bytes.
    pub size: u16,
}

impl TxRequest {
    /// As it stands in the slot.
    pub fn encode(&self) -> [u8; TX_SLOT_BYTES] {
        let mut slot = [0; TX_SLOT_BYTES];
        slot[0..4].copy_from_slice(&self.gref.0.to_ne_bytes());
        for (place, value) in [(4, self.offset), (6, self.flags), (8, self.id), (10, self.size)] {
            slot[place..place + 2].copy_from_slice(&value.to_ne_bytes());
        }
        slot
    }

    /// From a slot.
    pub fn decode(slot: [u8; TX_SLOT_BYTES]) -> Self {
        let gref = GrantRef(u32::from_ne_bytes([slot[0], slot[1], slot[2], slot[3]]));
        let [offset, flags, id, size] = [4, 6, 8, 10].map(|place| half(&slot, place));
        Self { gref, offset, flags, id, size }
    }
}

/// What became of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxResponse {
    /// The request's.
    pub id: u16,
    /// [`STATUS_OKAY`] and so on.
    pub status: i16,
}

impl TxResponse {
    /// From a slot.
    pub fn decode(slot: [u8; 4]) -> Self {
        Self { id: half(&slot, 0), status: half(&slot, 2).cast_signed() }
    }
}

/// A posted buffer.
pub fn rx_request(id: u16, gref: GrantRef) -> [u8; RX_SLOT_BYTES] {
    let mut slot = [0; RX_SLOT_BYTES];
    slot[0..2].copy_from_slice(&id.to_ne_bytes());
    slot[4..8].copy_from_slice(&gref.0.to_ne_bytes());
    slot
}

/// A filled buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RxResponse {
    /// The buffer's.
    pub id: u16,
    /// Where the data begin, in bytes.
    pub offset: u16,
    /// [`CSUM_BLANK`] and so on.
    pub flags: u16,
    /// Bytes, or a negative status.
    pub status: i16,
}

impl RxResponse {
    /// From a slot.
    pub fn decode(slot: [u8; RX_SLOT_BYTES]) -> Self {
        let [id, offset, flags, status] = [0, 2, 4, 6].map(|place| half(&slot, place));
        Self { id, offset, flags, status: status.cast_signed() }
    }
}

/// Into which segments a large frame is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gso {
    /// Bytes of payload in each segment.
    pub size: u16,
    /// The protocol.
    pub kind: GsoKind,
}

/// The protocol of a large frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say all")]
pub enum GsoKind {
    TcpV4 = 1,
    TcpV6 = 2,
}

impl Gso {
    /// As extra info.
    pub fn encode(self) -> [u8; RX_SLOT_BYTES] {
        let [low, high] = self.size.to_ne_bytes();
        [EXTRA_GSO, 0, low, high, self.kind as u8, 0, 0, 0]
    }

    /// From extra info of type [`EXTRA_GSO`]; `None` if Linux would not take it.
    pub fn decode(slot: [u8; RX_SLOT_BYTES]) -> Option<Self> {
        let size = half(&slot, 2);
        let kind = match slot[4] {
            1 => GsoKind::TcpV4,
            2 => GsoKind::TcpV6,
            _ => return None,
        };
        (size != 0).then_some(Self { size, kind })
    }
}

fn half(slot: &[u8], place: usize) -> u16 {
    u16::from_ne_bytes([slot[place], slot[place + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_laid_out_as_in_the_header() {
        let request = TxRequest { gref: GrantRef(0x0403_0201), offset: 0x0605, flags: 8, id: 9, size: 10 };
        assert_eq!(request.encode(), [1, 2, 3, 4, 5, 6, 8, 0, 9, 0, 10, 0]);
        assert_eq!(TxRequest::decode(request.encode()), request);
        assert_eq!(rx_request(7, GrantRef(3)), [7, 0, 0, 0, 3, 0, 0, 0]);
        let response = RxResponse { id: 1, offset: 2, flags: 4, status: -2 };
        assert_eq!(RxResponse::decode([1, 0, 2, 0, 4, 0, 0xfe, 0xff]), response);
        assert_eq!(TxResponse::decode([5, 0, 0xff, 0xff]), TxResponse { id: 5, status: STATUS_ERROR });
    }

    #[test]
    fn segments_of_no_size_or_no_known_protocol_are_refused() {
        let gso = Gso { size: 1448, kind: GsoKind::TcpV6 };
        assert_eq!(Gso::decode(gso.encode()), Some(gso));
        assert_eq!(Gso::decode([EXTRA_GSO, 0, 0, 0, 1, 0, 0, 0]), None);
        assert_eq!(Gso::decode([EXTRA_GSO, 0, 9, 0, 3, 0, 0, 0]), None);
    }
}
