//! A frame in a ring and what is known of it.

use std::ops::BitOr;

use crate::error::LaneError;
use crate::limits::SLOT_BYTES;

/// What a frame needs or has been spared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameFlags(u16);

impl FrameFlags {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// The frame goes on in the next slot. Rings set it; it is never seen outside.
    pub(crate) const MORE: Self = Self(1);
    /// The checksum of TCP or UDP holds the sum of the pseudo header only; whoever sends it on a wire completes it.
    pub const CSUM_BLANK: Self = Self(1 << 1);
    /// The checksum was found right, or need not be checked.
    pub const CSUM_VALID: Self = Self(1 << 2);
    /// TCP over IPv4, to be cut into segments of `gso_bytes`.
    pub const GSO_V4: Self = Self(1 << 3);
    /// TCP over IPv6, to be cut into segments of `gso_bytes`.
    pub const GSO_V6: Self = Self(1 << 4);
    /// The frame has no meaning; it is only taken off. For a frame that failed after its room had been reserved.
    pub const VOID: Self = Self(1 << 5);

    const KNOWN: u16 = (1 << 6) - 1;
    const GSO: u16 = Self::GSO_V4.0 | Self::GSO_V6.0;

    /// Whether all of `other` is set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the frame is to be cut into segments.
    pub fn is_segmented(self) -> bool {
        self.0 & Self::GSO != 0
    }

    pub(crate) fn from_bits(bits: u16) -> Option<Self> {
        (bits & !Self::KNOWN == 0 && bits & Self::GSO != Self::GSO).then_some(Self(bits))
    }

    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for FrameFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What is known of a frame besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameMeta {
    /// What it needs or has been spared.
    pub flags: FrameFlags,
    /// Bytes of payload in one segment; 0 if it is not to be cut.
    pub gso_bytes: u16,
    /// Where it came from: the producer's own numbering.
    pub source: u16,
    /// Its number at its source.
    pub seq: u32,
    /// Time stamp of the network card, or 0.
    pub stamp: u64,
}

impl FrameMeta {
    /// Refuses what contradicts itself.
    ///
    /// # Errors
    /// [`LaneError::Meta`].
    pub fn check(&self) -> Result<(), LaneError> {
        let good = FrameFlags::from_bits(self.flags.bits()).is_some()
            && !self.flags.contains(FrameFlags::MORE)
            && self.flags.is_segmented() == (self.gso_bytes > 0);
        match good {
            true => Ok(()),
            false => Err(LaneError::Meta { flags: self.flags.bits(), gso_bytes: self.gso_bytes }),
        }
    }
}

/// Contiguous bytes of a frame in the region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where in the region.
    pub offset: usize,
    /// How many, at most [`SLOT_BYTES`]. No piece crosses a page.
    pub length_bytes: usize,
}

/// The pieces of a frame, in order.
#[derive(Debug, Clone)]
pub struct Pieces {
    pub(crate) buffers: usize,
    pub(crate) slots: u32,
    pub(crate) next_slot: u32,
    pub(crate) left_bytes: usize,
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.left_bytes == 0 {
            return None;
        }
        let index = (self.next_slot & (self.slots - 1)) as usize;
        let length_bytes = self.left_bytes.min(SLOT_BYTES);
        self.next_slot = self.next_slot.wrapping_add(1);
        self.left_bytes -= length_bytes;
        Some(Piece { offset: self.buffers + index * SLOT_BYTES, length_bytes })
    }
}

/// A published frame, its descriptors checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub(crate) number: u32,
    pub(crate) first_slot: u32,
    pub(crate) slots: u32,
    pub(crate) length_bytes: usize,
    pub(crate) meta: FrameMeta,
}

impl Frame {
    /// How many frames came before it in this ring, modulo 2^32.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Slots that it fills.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Its length: 1 to [`crate::limits::FRAME_BYTES_MAX`].
    pub fn length_bytes(&self) -> usize {
        self.length_bytes
    }

    /// What is known of it.
    pub fn meta(&self) -> &FrameMeta {
        &self.meta
    }

    /// Whether it is only to be taken off.
    pub fn is_void(&self) -> bool {
        self.meta.flags.contains(FrameFlags::VOID)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_refused() {
        let meta = |flags, gso_bytes| FrameMeta { flags, gso_bytes, ..FrameMeta::default() };
        let both = FrameFlags::GSO_V4 | FrameFlags::GSO_V6;
        for bad in [
            meta(both, 1448),
            meta(FrameFlags::GSO_V4, 0),
            meta(FrameFlags::NONE, 1448),
            meta(FrameFlags::MORE, 0),
            meta(FrameFlags(1 << 6), 0),
        ] {
            assert!(matches!(bad.check(), Err(LaneError::Meta { .. })), "{bad:?}");
        }
        assert_eq!(meta(FrameFlags::GSO_V6 | FrameFlags::CSUM_BLANK, 1428).check(), Ok(()));
    }
}
