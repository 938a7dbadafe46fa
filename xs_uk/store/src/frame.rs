//! What is kept of a node and all below it: additive, so that a change costs an addition in each ancestor.

use sanity::Sum;
use xs_protocol::DomId;

/// Counts over a set of nodes, in lanes that wrap around: nodes, bytes, the sum of the owners' ids and of their squares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally(Sum);

impl Tally {
    /// Of one node.
    pub fn of(owner: DomId, bytes: usize) -> Tally {
        let id = u64::from(owner.0);
        Tally(Sum([1, bytes as u64, id, id * id]))
    }

    pub fn nodes(self) -> u64 {
        self.0.0[0]
    }

    pub fn bytes(self) -> u64 {
        self.0.0[1]
    }

    /// The owner of all nodes, if they have the same: only then is the mean of the squares the square of the mean.
    pub fn only_owner(self) -> Option<DomId> {
        let [nodes, _, ids, squares] = self.0.0.map(u128::from);
        if nodes == 0 || nodes * squares != ids * ids {
            return None;
        }
        u16::try_from(ids / nodes).ok().map(DomId)
    }
}

/// What is kept of a node and all below it. Also a change of that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The nodes' own digests.
    pub sum: Sum,
    pub tally: Tally,
    /// Includes bit `domid % 64` for every domain in the permissions of one of the nodes.
    pub domains_hint: u64,
}

/// Odd factors, so that no change of a single lane leaves the seal as it was.
const FACTORS: [u64; 8] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0xd6e8_feb8_6659_fd93,
    0xa076_1d64_78bd_642f,
    0xe703_7ed1_a0b4_28db,
    0x8ebc_6af0_9c88_c6e3,
    0x5899_65cc_7537_4cc3,
];

impl Frame {
    /// Adds another set of nodes, or a change.
    pub fn add(&mut self, other: &Frame) {
        self.sum += other.sum;
        self.tally.0 += other.tally.0;
        self.domains_hint |= other.domains_hint;
    }

    /// Takes a set of nodes out. Hints stay: others may have the same.
    pub fn sub(&mut self, other: &Frame) {
        self.sum -= other.sum;
        self.tally.0 -= other.tally.0;
    }

    /// A checksum.
    pub fn seal(&self) -> u64 {
        let lanes = self.sum.0.into_iter().chain(self.tally.0.0);
        FACTORS
            .into_iter()
            .zip(lanes)
            .fold(self.domains_hint.wrapping_mul(0x1d8e_4e27_c47d_124f) ^ 1, |seal, (factor, lane)| {
                seal.wrapping_add(factor.wrapping_mul(lane))
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn one_owner_is_told_from_several(owners in proptest::collection::vec(prop_oneof![0u16..3, any::<u16>()], 0..30)) {
            let mut frame = Frame::default();
            for owner in &owners {
                frame.add(&Frame { tally: Tally::of(DomId(*owner), 7), ..Frame::default() });
            }
            let first = owners.first().copied();
            let same = owners.iter().all(|owner| Some(*owner) == first);
            prop_assert_eq!(frame.tally.only_owner(), first.filter(|_| same).map(DomId));
            prop_assert_eq!((frame.tally.nodes(), frame.tally.bytes()), (owners.len() as u64, 7 * owners.len() as u64));
        }

        #[test]
        fn every_bit_is_sealed(sum: [u64; 4], tally: [u64; 4], domains_hint: u64, lane in 0usize..9, bit in 0u32..64) {
            let frame = Frame { sum: Sum(sum), tally: Tally(Sum(tally)), domains_hint };
            let mut flipped = frame;
            match lane {
                0..4 => flipped.sum.0[lane] ^= 1 << bit,
                4..8 => flipped.tally.0.0[lane - 4] ^= 1 << bit,
                _ => flipped.domains_hint ^= 1 << bit,
            }
            prop_assert_ne!(frame.seal(), flipped.seal());
        }
    }
}
