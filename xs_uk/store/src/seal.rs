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
