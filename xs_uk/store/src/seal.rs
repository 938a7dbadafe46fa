//! Checksums of small records.

use twox_hash::XxHash3_64;

/// Most numbers of a record.
const NUMBERS_MAX: usize = 20;

/// The checksum of a record's numbers.
pub(crate) fn seal_of(numbers: &[u64]) -> u64 {
    let mut bytes = [0; NUMBERS_MAX * 8];
    for (slot, number) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
        *slot = number.to_le_bytes();
    }
    assert!(numbers.len() <= NUMBERS_MAX, "{} numbers in a record", numbers.len());
    XxHash3_64::oneshot(&bytes[..numbers.len() * 8])
}

/// A checksum of a record of any length, part by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sealer(u64);

impl Sealer {
    pub fn numbers<const COUNT: usize>(&mut self, numbers: [u64; COUNT]) {
        self.bytes(numbers.map(u64::to_le_bytes).as_flattened());
    }

    /// The parts' places count: the one before is the seed of the next.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0 = XxHash3_64::oneshot_with_seed(self.0, bytes);
    }

    pub fn seal(self) -> u64 {
        self.0
    }
}
