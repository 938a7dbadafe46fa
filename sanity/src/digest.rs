//! Digests, and sums of them that are updated by addition.

use std::{
    fmt,
    ops::{Add, AddAssign, Sub, SubAssign},
};

use sha2::{Digest as _, Sha256};

/// Bytes of a digest that `Debug` shows.
const SHOWN_BYTES: usize = 6;

/// A SHA-256 digest.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// All zero: the predecessor of a chain's first link.
    pub const ZERO: Digest = Digest([0; 32]);

    /// The digest of bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The digest of the parts one after the other. Their borders are not part of it.
    pub fn of_parts(parts: &[&[u8]]) -> Digest {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update(part);
        }
        Digest(hasher.finalize().into())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..SHOWN_BYTES] {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("…")
    }
}

/// A sum of digests in four 64-bit lanes that wrap around. Equal sets of digests have equal sums, and a member is
/// put in or taken out by one addition.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Sum(pub [u64; 4]);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Sum = Sum([0; 4]);

    /// The lanes, little-endian.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, lane) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&lane.to_le_bytes());
        }
        bytes
    }

    /// The sum with these lanes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Sum {
        let mut lanes = [0; 4];
        for (lane, chunk) in lanes.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *lane = u64::from_le_bytes(*chunk);
        }
        Sum(lanes)
    }

    fn zip(self, other: Sum, operation: fn(u64, u64) -> u64) -> Sum {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        Sum([operation(a, e), operation(b, f), operation(c, g), operation(d, h)])
    }
}

impl From<Digest> for Sum {
    fn from(digest: Digest) -> Sum {
        Sum::from_bytes(&digest.0)
    }
}

impl Add for Sum {
    type Output = Sum;

    fn add(self, other: Sum) -> Sum {
        self.zip(other, u64::wrapping_add)
    }
}

impl Sub for Sum {
    type Output = Sum;

    fn sub(self, other: Sum) -> Sum {
        self.zip(other, u64::wrapping_sub)
    }
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Sum) {
        *self = *self + other;
    }
}

impl SubAssign for Sum {
    fn sub_assign(&mut self, other: Sum) {
        *self = *self - other;
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Digest(self.to_bytes()), f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_digest() {
        let abc = Digest::of(b"abc");
        assert_eq!(format!("{abc:?}"), "ba7816bf8f01…");
        assert_eq!(Digest::of_parts(&[b"a", b"", b"bc"]), abc);
    }

    proptest! {
        #[test]
        fn sums_are_independent_of_order(lanes in proptest::collection::vec(any::<[u64; 4]>(), 0..9)) {
            let forth = lanes.iter().fold(Sum::ZERO, |sum, lane| sum + Sum(*lane));
            let back = lanes.iter().rev().fold(Sum::ZERO, |sum, lane| sum + Sum(*lane));
            prop_assert_eq!(forth, back);
            let nothing = lanes.iter().fold(forth, |sum, lane| sum - Sum(*lane));
            prop_assert_eq!(nothing, Sum::ZERO);
        }

        #[test]
        fn bytes_round_trip(bytes: [u8; 32]) {
            prop_assert_eq!(Sum::from_bytes(&bytes).to_bytes(), bytes);
            prop_assert_eq!(Sum::from(Digest(bytes)).to_bytes(), bytes);
        }
    }
}
