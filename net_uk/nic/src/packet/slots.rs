//! The shape of the kernel's rings and access to their slots.

use std::sync::atomic::Ordering;

use lane::limits::{FRAME_BYTES_MAX, PAGE_BYTES};

use crate::error::{NicError, Result};
use crate::limits::{LINK_HEADER_BYTES, RING_BYTES_MAX};
use crate::mapping::Mapping;
use crate::spec::NicSpec;
use crate::vnet::VNET_BYTES;

/// Where a frame to be sent begins in its slot: after the header.
pub(crate) const TX_DATA_AT: usize = 32;

/// Room before a received frame, at most: header, address and alignment.
const RX_HEAD_BYTES: usize = 96;

/// One ring: blocks of contiguous memory, each with a whole number of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RingShape {
    slot_bytes: usize,
    block_bytes: usize,
    slots_per_block: usize,
    blocks: usize,
}

impl RingShape {
    pub(crate) fn rx(spec: &NicSpec) -> Result<Self> {
        Self::new(spec, spec.rx_slots)
    }

    pub(crate) fn tx(spec: &NicSpec) -> Result<Self> {
        Self::new(spec, spec.tx_slots)
    }

    /// Whole blocks, so there may be a few more slots than asked for.
    fn new(spec: &NicSpec, slots: u32) -> Result<Self> {
        let (slot_bytes, slots_per_block) = match spec.offload {
            // 15 slots of 17 pages fill 1 MiB but for one page.
            true => ((FRAME_BYTES_MAX + VNET_BYTES + RX_HEAD_BYTES).next_multiple_of(PAGE_BYTES), 15),
            false => {
                let need = spec.mtu_bytes as usize + LINK_HEADER_BYTES + RX_HEAD_BYTES;
                (need.next_power_of_two().max(2048), 16)
            }
        };
        let blocks = (slots as usize).div_ceil(slots_per_block);
        let shape = Self { slot_bytes, block_bytes: slot_bytes * slots_per_block, slots_per_block, blocks };
        if shape.bytes() > RING_BYTES_MAX {
            return Err(NicError::Spec { text: spec.to_string(), reason: "a ring has 512 MiB at most" });
        }
        Ok(shape)
    }

    pub(crate) fn request(&self) -> libc::tpacket_req {
        let word = |value: usize| u32::try_from(value).expect("the sizes are bounded by RING_BYTES_MAX");
        libc::tpacket_req {
            tp_block_size: word(self.block_bytes),
            tp_block_nr: word(self.blocks),
            tp_frame_size: word(self.slot_bytes),
            tp_frame_nr: word(self.slots_per_block * self.blocks),
        }
    }

    pub(crate) fn slots(&self) -> u32 {
        self.request().tp_frame_nr
    }

    pub(crate) fn bytes(&self) -> usize {
        self.block_bytes * self.blocks
    }

    /// The slot of this number in a ring that begins at `base`.
    pub(crate) fn slot<'a>(&self, mapping: &'a Mapping, base: usize, index: u32) -> Slot<'a> {
        assert!(index < self.slots(), "slot {index}");
        Slot { mapping, at: base + index as usize * self.slot_bytes, bytes: self.slot_bytes }
    }
}

/// What the kernel says of a received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RxHeader {
    pub(crate) length_bytes: usize,
    pub(crate) kept_bytes: usize,
    pub(crate) data_at: usize,
    pub(crate) stamp_ns: u64,
    pub(crate) vlan_tag: [u8; 4],
}

/// A slot of a ring: `struct tpacket2_hdr` and what follows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot<'a> {
    mapping: &'a Mapping,
    at: usize,
    bytes: usize,
}

impl<'a> Slot<'a> {
    pub(crate) fn status(self) -> u32 {
        self.mapping.u32(self.at).load(Ordering::Acquire)
    }

    /// Hands the slot over, with all that was written to it before.
    pub(crate) fn set_status(self, status: u32) {
        self.mapping.u32(self.at).store(status, Ordering::Release);
    }

    pub(crate) fn set_length(self, length_bytes: usize) {
        let length = u32::try_from(length_bytes).expect("no frame is that long");
        self.mapping.u32(self.at + 4).store(length, Ordering::Relaxed);
    }

    /// Bytes of the frame that was put here to be sent.
    pub(crate) fn sent_length(self) -> usize {
        self.mapping.u32(self.at + 4).load(Ordering::Relaxed) as usize
    }

    /// The driver's own word in the header.
    pub(crate) fn mark(self) -> u32 {
        self.mapping.u32(self.at + 28).load(Ordering::Relaxed)
    }

    pub(crate) fn set_mark(self, mark: u32) {
        self.mapping.u32(self.at + 28).store(mark, Ordering::Relaxed);
    }

    pub(crate) fn rx_header(self) -> RxHeader {
        let word = |offset: usize| self.mapping.u32(self.at + offset).load(Ordering::Relaxed);
        let (tag, protocol) = (word(24) & 0xffff, word(24) >> 16);
        let ([.., p1, p0], [.., t1, t0]) = (protocol.to_be_bytes(), tag.to_be_bytes());
        RxHeader {
            length_bytes: word(4) as usize,
            kept_bytes: word(8) as usize,
            data_at: (word(12) & 0xffff) as usize,
            stamp_ns: u64::from(word(16)) * 1_000_000_000 + u64::from(word(20)),
            vlan_tag: [p1, p0, t1, t0],
        }
    }

    /// Bytes of a frame, received or put here to be sent, if the range lies within the slot.
    ///
    /// # Safety
    /// Neither the kernel nor a driver writes to the slot as long as the reference lives.
    pub(crate) unsafe fn data(self, at: usize, length_bytes: usize) -> Option<&'a [u8]> {
        let end = at.checked_add(length_bytes)?;
        // SAFETY: the caller's promise.
        (end <= self.bytes).then(|| unsafe { self.mapping.bytes(self.at + at, length_bytes) })
    }

    /// Room for a frame to be sent.
    ///
    /// # Safety
    /// The slot is the driver's, by its status, and stays so as long as the reference lives; there is no other reference.
    pub(crate) unsafe fn room(self) -> &'a mut [u8] {
        // SAFETY: the caller's promise.
        unsafe { self.mapping.bytes_mut(self.at + TX_DATA_AT, self.bytes - TX_DATA_AT) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Result<RingShape> {
        RingShape::rx(&text.parse::<NicSpec>().unwrap())
    }

    #[test]
    fn slots_hold_the_largest_packet() {
        for (text, slot_bytes) in [
            ("packet:a", 2048),
            ("packet:a,mtu=1934", 2048),
            ("packet:a,mtu=1935", 4096),
            ("packet:a,mtu=9216", 16384),
        ] {
            assert_eq!(shape(text).unwrap().slot_bytes, slot_bytes, "{text}");
        }
        let offload = shape("packet:a,rx=61,offload").unwrap();
        assert_eq!((offload.slot_bytes, offload.slots(), offload.blocks), (17 * 4096, 75, 5));
        assert!(TX_DATA_AT + VNET_BYTES + FRAME_BYTES_MAX <= offload.slot_bytes);
    }

    #[test]
    fn memory_is_bounded() {
        assert!(shape("packet:a,rx=32768,mtu=9000").is_ok());
        assert!(matches!(shape("packet:a,rx=32769,mtu=9000"), Err(NicError::Spec { .. })));
        assert!(shape("packet:a,rx=7710,offload").is_ok());
        assert!(matches!(shape("packet:a,rx=7711,offload"), Err(NicError::Spec { .. })));
    }
}
