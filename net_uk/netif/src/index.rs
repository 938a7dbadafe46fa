//! Places in a ring.

use std::fmt;

use crate::ring::RING_SLOTS;

/// A free-running index into a ring (`RING_IDX`): it wraps at 2^32, and means slot `index % 256`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Index(pub u32);

impl Index {
    /// The index so many slots later.
    pub const fn plus(self, slots: u32) -> Self {
        Self(self.0.wrapping_add(slots))
    }

    /// Slots from `earlier` to here. If `earlier` is later in truth, the number is huge.
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// The slot, below 256.
    pub const fn slot(self) -> usize {
        (self.0 % RING_SLOTS) as usize
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_wrap() {
        let last = Index(u32::MAX);
        assert_eq!(last.plus(3), Index(2));
        assert_eq!(Index(2).since(last), 3);
        assert_eq!(last.since(Index(2)), u32::MAX - 2);
        assert_eq!((last.slot(), Index(0).slot(), Index(256).slot()), (255, 0, 0));
    }
}
