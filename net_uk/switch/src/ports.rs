//! Sets of ports.

use std::ops::{BitAnd, BitOr, Not};

use crate::PortId;
use crate::limits::PORTS_MAX;

const WORD_BITS: usize = 64;
const WORDS: usize = PORTS_MAX / WORD_BITS;
const _: () = assert!(PORTS_MAX.is_multiple_of(WORD_BITS) && PORTS_MAX <= 1 << 16);

/// A set of ports, of fixed size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortSet([u64; WORDS]);

impl PortSet {
    /// No port.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// One port.
    pub fn of(port: PortId) -> Self {
        let mut set = Self::EMPTY;
        set.insert(port);
        set
    }

    /// Adds a port.
    pub fn insert(&mut self, port: PortId) {
        self.0[port.index() / WORD_BITS] |= 1 << (port.index() % WORD_BITS);
    }

    /// Takes a port away.
    pub fn remove(&mut self, port: PortId) {
        self.0[port.index() / WORD_BITS] &= !(1 << (port.index() % WORD_BITS));
    }

    /// Whether a port is in it.
    pub fn contains(&self, port: PortId) -> bool {
        self.0[port.index() / WORD_BITS] & (1 << (port.index() % WORD_BITS)) != 0
    }

    /// Whether there is no port in it.
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// How many ports are in it.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The ports in it, in order.
    pub fn iter(&self) -> PortSetIter {
        PortSetIter { rest: *self, word: 0 }
    }
}

impl BitOr for PortSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }
}

impl BitAnd for PortSet {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }
}

impl Not for PortSet {
    type Output = Self;

    fn not(self) -> Self {
        Self(self.0.map(|word| !word))
    }
}

impl IntoIterator for PortSet {
    type Item = PortId;
    type IntoIter = PortSetIter;

    fn into_iter(self) -> PortSetIter {
        self.iter()
    }
}

/// The ports of a set, in order.
#[derive(Clone, Debug)]
pub struct PortSetIter {
    rest: PortSet,
    word: usize,
}

impl Iterator for PortSetIter {
    type Item = PortId;

    fn next(&mut self) -> Option<PortId> {
        while *self.rest.0.get(self.word)? == 0 {
            self.word += 1;
        }
        let word = &mut self.rest.0[self.word];
        let bit = word.trailing_zeros() as usize;
        *word &= *word - 1;
        PortId::new(self.word * WORD_BITS + bit)
    }
}
