//! A numbered frame.
//!
//! ```text
//!   0 destination  6 source  12 0x88b5  14 flow u64  22 sequence u64  30 stamp u64  38 length u32  42 CRC-32 u32  46 payload
//! ```
//!
//! Big-endian. The length is that of the whole frame; the checksum covers all that comes after the addresses but itself.

use crate::net::Mac;

/// The first of the two types for experiments at home (IEEE 802).
pub const ETHERTYPE: u16 = 0x88b5;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 46;
/// Bytes of the smallest frame, which no path needs to fill up.
pub const SIZE_MIN_BYTES: usize = 60;
const CRC_START: usize = 42;

/// What a numbered frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbered {
    /// Whose number.
    pub flow: u64,
    /// The number, from 0 on in each flow.
    pub sequence: u64,
    /// When it was sent, by [`super::now_ns`].
    pub stamp_ns: u64,
}

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// A numbered frame as it was sent.
    Right(Numbered),
    /// A numbered frame that was changed.
    Corrupt,
    /// Something else.
    Foreign,
}

impl Numbered {
    /// Writes a frame of `size` bytes into `bytes`. Its payload follows from its number.
    pub fn write(&self, bytes: &mut Vec<u8>, to: Mac, from: Mac, size: usize) {
        let size = size.max(HEADER_BYTES);
        bytes.clear();
        bytes.extend(to.0);
        bytes.extend(from.0);
        bytes.extend(ETHERTYPE.to_be_bytes());
        for value in [self.flow, self.sequence, self.stamp_ns] {
            bytes.extend(value.to_be_bytes());
        }
        bytes.extend(u32::try_from(size).expect("frames are short").to_be_bytes());
        bytes.extend([0; 4]);
        bytes.resize(size, 0);
        self.fill(&mut bytes[HEADER_BYTES..]);
        let crc = checksum(bytes);
        bytes[CRC_START..HEADER_BYTES].copy_from_slice(&crc.to_be_bytes());
    }

    /// Words that differ within a frame and from those of other frames. They cost little: whoever measures a path should not
    /// measure this.
    fn fill(&self, payload: &mut [u8]) {
        let mut word = (self.flow.rotate_left(32) ^ self.sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = || {
            word = word.wrapping_add(0x5851_f42d_4c95_7f2d);
            word.to_le_bytes()
        };
        let (words, rest) = payload.as_chunks_mut::<8>();
        for place in words {
            *place = next();
        }
        let last = next();
        rest.copy_from_slice(&last[..rest.len()]);
    }

    pub(super) fn read(bytes: &[u8]) -> Reading {
        if bytes.get(12..14) != Some(&ETHERTYPE.to_be_bytes()) {
            return Reading::Foreign;
        }
        if bytes.len() < HEADER_BYTES {
            return Reading::Corrupt;
        }
        let u64_at = |place| u64::from(u32_at(bytes, place)) << 32 | u64::from(u32_at(bytes, place + 4));
        let [flow, sequence, stamp_ns] = [14, 22, 30].map(u64_at);
        let whole = u32_at(bytes, 38) as usize == bytes.len() && u32_at(bytes, CRC_START) == checksum(bytes);
        if whole { Reading::Right(Self { flow, sequence, stamp_ns }) } else { Reading::Corrupt }
    }
}

fn u32_at(bytes: &[u8], place: usize) -> u32 {
    bytes[place..place + 4].iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[12..CRC_START]);
    crc.update(&bytes[HEADER_BYTES..]);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(size: usize) -> (Numbered, Vec<u8>) {
        let numbered = Numbered { flow: 1 << 40, sequence: 7, stamp_ns: 99 };
        let mut bytes = vec![];
        numbered.write(&mut bytes, Mac([1; 6]), Mac([2; 6]), size);
        (numbered, bytes)
    }

    #[test]
    fn frames_of_all_sizes_are_read_as_written() {
        for size in [SIZE_MIN_BYTES, 61, 1514, 65_535] {
            let (numbered, bytes) = frame(size);
            assert_eq!(bytes.len(), size);
            assert_eq!(Numbered::read(&bytes), Reading::Right(numbered));
        }
    }

    #[test]
    fn every_change_but_of_the_addresses_is_seen() {
        let (_, bytes) = frame(SIZE_MIN_BYTES);
        for place in 14..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 0x10;
            assert_eq!(Numbered::read(&changed), Reading::Corrupt, "at {place}");
        }
        for length in 14..bytes.len() {
            assert_eq!(Numbered::read(&bytes[..length]), Reading::Corrupt);
        }
        assert_eq!(Numbered::read(&[bytes, vec![0]].concat()), Reading::Corrupt);
    }

    #[test]
    fn other_frames_are_told_apart() {
        assert_eq!(Numbered::read(&[0; 60]), Reading::Foreign);
        assert_eq!(Numbered::read(&[]), Reading::Foreign);
    }
}
