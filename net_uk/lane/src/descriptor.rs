//! A descriptor: what a slot holds. Four words of eight bytes:
//!
//! | word | bits 0-15 | 16-31 | 32-47 | 48-63 |
//! |---|---|---|---|---|
//! | 0 | bytes in this slot | flags | bytes of a segment | source |
//! | 1 | sequence number (32 bits) | | position in the ring, modulo 2^32 (32 bits) | |
//! | 2 | time stamp | | | |
//! | 3 | number of the frame (32 bits) | | sum (32 bits) | |
//!
//! The sum is over the other fields, the place of the slot within its frame, and the slot's bytes. So a bit that flips in
//! the memory between two processes harms one frame, which is found and counted; it is never given on.
//!
//! The position tells a descriptor of the past from one that a dead producer wrote ahead of time over it. Word 1 is
//! written first: from then on the old descriptor is void, whatever else is written.

use twox_hash::XxHash3_64;

use crate::error::DescriptorFault;
use crate::frame::{FrameFlags, FrameMeta};
use crate::limits::SLOT_BYTES;

/// The bytes of a descriptor, as read or to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RawDescriptor(pub(crate) [u64; 4]);

const SUM_SHIFT: u32 = 32;

impl RawDescriptor {
    /// With the sum for these bytes in the slot `index` of their frame.
    pub(crate) fn summed(self, index: u32, bytes: &[u8]) -> Self {
        let [first, second, third, number] = self.0;
        let sum = u64::from(self.sum(index, bytes));
        Self([first, second, third, number & u64::from(u32::MAX) | sum << SUM_SHIFT])
    }

    /// The position that it was written for.
    pub(crate) fn position(self) -> u32 {
        (self.0[1] >> 32) as u32
    }

    /// Is its sum that of these bytes?
    pub(crate) fn is_right(self, index: u32, bytes: &[u8]) -> bool {
        self.0[3] >> SUM_SHIFT == u64::from(self.sum(index, bytes))
    }

    fn sum(self, index: u32, bytes: &[u8]) -> u32 {
        let [first, second, third, number] = self.0;
        let number = number & u64::from(u32::MAX) | u64::from(index) << 32;
        let words = [first, second, third, number, XxHash3_64::oneshot(bytes)];
        let mut all = [0; 40];
        for (to, word) in all.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let sum = XxHash3_64::oneshot(&all);
        #[expect(clippy::cast_possible_truncation, reason = "folded")]
        {
            (sum ^ sum >> 32) as u32
        }
    }
}

/// A checked descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) length_bytes: usize,
    pub(crate) more: bool,
    /// The frame's number.
    pub(crate) number: u32,
    pub(crate) meta: FrameMeta,
}

impl Descriptor {
    pub(crate) fn encode(&self, position: u32) -> RawDescriptor {
        let flags = if self.more { self.meta.flags | FrameFlags::MORE } else { self.meta.flags };
        RawDescriptor([
            self.length_bytes as u64
                | u64::from(flags.bits()) << 16
                | u64::from(self.meta.gso_bytes) << 32
                | u64::from(self.meta.source) << 48,
            u64::from(self.meta.seq) | u64::from(position) << 32,
            self.meta.stamp,
            u64::from(self.number),
        ])
    }

    pub(crate) fn decode(raw: RawDescriptor, position: u32) -> Result<Self, DescriptorFault> {
        let [word, label, stamp, last] = raw.0;
        if label >> 32 != u64::from(position) {
            return Err(DescriptorFault::Position);
        }
        let length_bytes = usize::from(part(word, 0));
        if length_bytes == 0 || length_bytes > SLOT_BYTES {
            return Err(DescriptorFault::Length);
        }
        let flags = FrameFlags::from_bits(part(word, 16)).ok_or(DescriptorFault::Flags)?;
        let more = flags.contains(FrameFlags::MORE);
        if more && length_bytes < SLOT_BYTES {
            return Err(DescriptorFault::Gap);
        }
        let meta = FrameMeta {
            flags: flags.without(FrameFlags::MORE),
            gso_bytes: part(word, 32),
            source: part(word, 48),
            #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
            seq: label as u32,
            stamp,
        };
        meta.check().map_err(|_| DescriptorFault::Flags)?;
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        let number = last as u32;
        Ok(Self { length_bytes, more, number, meta })
    }
}

fn part(word: u64, shift: u32) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "16 bits of it")]
    {
        (word >> shift) as u16
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_decode_to_what_encodes_back_or_fail(words in any::<[u64; 4]>(), position in any::<u32>()) {
            let mut words = words;
            words[1] = words[1] & 0xffff_ffff | u64::from(position) << 32;
            words[3] &= 0xffff_ffff;
            for mask in [u64::MAX, 0xffff_0000_003f_0fff, 0xffff_ffff_003f_0800] {
                let raw = RawDescriptor([words[0] & mask, words[1], words[2], words[3]]);
                if let Ok(descriptor) = Descriptor::decode(raw, position) {
                    prop_assert_eq!(descriptor.encode(position), raw);
                }
            }
        }
    }

    #[test]
    fn any_flipped_bit_makes_the_sum_wrong() {
        let bytes: Vec<u8> = (0..100).collect();
        let good = Descriptor { length_bytes: 100, more: false, number: 7, meta: FrameMeta::default() };
        let raw = good.encode(9).summed(0, &bytes);
        assert!(raw.is_right(0, &bytes) && !raw.is_right(1, &bytes));
        for bit in 0..256 {
            let mut other = raw;
            other.0[bit / 64] ^= 1 << (bit % 64);
            assert!(!other.is_right(0, &bytes), "bit {bit} of the descriptor");
        }
        for bit in 0..800 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!raw.is_right(0, &other), "bit {bit} of the bytes");
        }
    }

    #[test]
    fn each_fault_is_told() {
        let good = Descriptor { length_bytes: 2048, more: false, number: 3, meta: FrameMeta::default() };
        let decode = |change: &dyn Fn(&mut RawDescriptor)| {
            let mut raw = good.encode(7);
            change(&mut raw);
            Descriptor::decode(raw, 7)
        };
        assert_eq!(decode(&|_| ()), Ok(good));
        assert_eq!(decode(&|raw| raw.0[1] ^= 1 << 32), Err(DescriptorFault::Position));
        assert_eq!(decode(&|raw| raw.0[0] += 1), Err(DescriptorFault::Length));
        assert_eq!(decode(&|raw| raw.0[0] -= 2048), Err(DescriptorFault::Length));
        assert_eq!(decode(&|raw| raw.0[0] |= 1 << 22), Err(DescriptorFault::Flags));
        assert_eq!(decode(&|raw| raw.0[0] |= 1 << 32), Err(DescriptorFault::Flags));
        assert_eq!(decode(&|raw| raw.0[0] = 1 << 16 | 2047), Err(DescriptorFault::Gap));
    }
}
