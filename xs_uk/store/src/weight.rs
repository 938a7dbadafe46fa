//! What entries of a directory weigh: the sum of their hashes, bytes of the listing, and how many they are.

use std::ops::{Add, AddAssign, Sub, SubAssign};

use twox_hash::{XxHash3_64, XxHash3_128};

/// Bytes of a weight in [`Weight::to_bytes`].
pub(crate) const WEIGHT_BYTES: usize = 32;

/// The weight of a set of entries. It is additive, and wraps around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    /// The sum of the entries' hashes, which cover name and creation number.
    pub sum: u128,
    /// Bytes of all names, each with a nul: the length of the listing.
    pub bytes: u64,
    pub count: u64,
}

impl Weight {
    pub fn of(name: &str, number: u64) -> Weight {
        let sum = XxHash3_128::oneshot_with_seed(number, name.as_bytes());
        Weight { sum, bytes: name.len() as u64 + 1, count: 1 }
    }

    pub fn to_bytes(self) -> [u8; WEIGHT_BYTES] {
        let mut bytes = [0; WEIGHT_BYTES];
        bytes[..16].copy_from_slice(&self.sum.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[24..].copy_from_slice(&self.count.to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8; WEIGHT_BYTES]) -> Weight {
        let (sum, rest) = bytes.split_first_chunk::<16>().expect("the array is longer");
        let numbers = rest.as_chunks::<8>().0;
        Weight {
            sum: u128::from_le_bytes(*sum),
            bytes: u64::from_le_bytes(numbers[0]),
            count: u64::from_le_bytes(numbers[1]),
        }
    }
}

impl Add for Weight {
    type Output = Weight;

    fn add(self, other: Weight) -> Weight {
        Weight {
            sum: self.sum.wrapping_add(other.sum),
            bytes: self.bytes.wrapping_add(other.bytes),
            count: self.count.wrapping_add(other.count),
        }
    }
}

impl Sub for Weight {
    type Output = Weight;

    fn sub(self, other: Weight) -> Weight {
        Weight {
            sum: self.sum.wrapping_sub(other.sum),
            bytes: self.bytes.wrapping_sub(other.bytes),
            count: self.count.wrapping_sub(other.count),
        }
    }
}

impl AddAssign for Weight {
    fn add_assign(&mut self, other: Weight) {
        *self = *self + other;
    }
}

impl SubAssign for Weight {
    fn sub_assign(&mut self, other: Weight) {
        *self = *self - other;
    }
}

impl std::iter::Sum for Weight {
    fn sum<I: Iterator<Item = Weight>>(weights: I) -> Weight {
        weights.fold(Weight::default(), Weight::add)
    }
}

/// The key of a name in a large directory. Clients can make names with equal keys; that costs them a longer search.
pub(crate) fn name_key(name: &str) -> u64 {
    XxHash3_64::oneshot(name.as_bytes())
}
