//! The hash chain of a log: each entry's hash covers its predecessor's, its index, its epoch and its bytes.

use crate::Digest;

/// The chain's value behind an entry.
pub fn link(previous: &Digest, index: u64, epoch: u64, entry: &[u8]) -> Digest {
    Digest::of_parts(&[&previous.0, &index.to_le_bytes(), &epoch.to_le_bytes(), entry])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn layout() {
        let mut bytes = vec![7; 32];
        bytes.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(b"entry");
        assert_eq!(link(&Digest([7; 32]), 1, 2, b"entry"), Digest::of(&bytes));
    }

    proptest! {
        #[test]
        fn every_bit_counts(
            previous: [u8; 32], index: u64, epoch: u64,
            entry in proptest::collection::vec(any::<u8>(), 1..40), bit: prop::sample::Index,
        ) {
            let before = link(&Digest(previous), index, epoch, &entry);
            let mut all = previous.to_vec();
            all.extend_from_slice(&index.to_le_bytes());
            all.extend_from_slice(&epoch.to_le_bytes());
            all.extend_from_slice(&entry);
            let bit = bit.index(all.len() * 8);
            all[bit / 8] ^= 1 << (bit % 8);
            let number = |at: usize| u64::from_le_bytes(all[at..at + 8].try_into().unwrap());
            let flipped = Digest(all[..32].try_into().unwrap());
            prop_assert_ne!(link(&flipped, number(32), number(40), &all[48..]), before);
        }
    }
}
