//! Roots that replicas noted after each log entry, for the others to compare.
//!
//! Layout, version 1: for each replica [`ROOTS_WINDOW`] places of 48 bytes, the one of entry `i` at `i % ROOTS_WINDOW`:
//! index u64, root 4 x u64, index again. A writer clears the first word, writes the rest, then the first word; a
//! reader that finds two different indices found a place being written, and takes it for empty.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{REPLICAS_MAX, ROOTS_BYTES, ROOTS_WINDOW};
use hypervisor::{Region, RegionError};

/// Bytes of a root.
pub const ROOT_BYTES: usize = 32;

pub(crate) const PLACE_BYTES: usize = 8 + ROOT_BYTES + 8;

/// All replicas' roots.
#[derive(Clone, Debug)]
pub struct Roots {
    region: Arc<Region>,
}

impl Roots {
    /// Opens the region, of at least [`ROOTS_BYTES`]; zeroed memory holds no roots.
    ///
    /// # Errors
    /// [`RegionError`].
    pub fn open(fd: OwnedFd) -> Result<Self, RegionError> {
        Ok(Self { region: Arc::new(Region::open(fd, ROOTS_BYTES)?) })
    }

    /// Notes the root of `replica` after entry `index`, which counts from 1.
    pub fn note(&self, replica: u32, index: u64, root: &[u8; ROOT_BYTES]) {
        let place = place(replica, index);
        self.word(place).store(0, Ordering::Release);
        for (i, bytes) in root.chunks_exact(8).enumerate() {
            let word = u64::from_le_bytes(bytes.try_into().expect("chunks of eight"));
            self.word(place + 8 + 8 * i).store(word, Ordering::Release);
        }
        self.word(place + 8 + ROOT_BYTES).store(index, Ordering::Release);
        self.word(place).store(index, Ordering::Release);
    }

    /// The root of `replica` after entry `index`; none if it did not note it, or it was overwritten.
    pub fn at(&self, replica: u32, index: u64) -> Option<[u8; ROOT_BYTES]> {
        if replica >= REPLICAS_MAX || index == 0 {
            return None;
        }
        let place = place(replica, index);
        if self.word(place).load(Ordering::Acquire) != index {
            return None;
        }
        let mut root = [0; ROOT_BYTES];
        for (i, bytes) in root.chunks_exact_mut(8).enumerate() {
            bytes.copy_from_slice(&self.word(place + 8 + 8 * i).load(Ordering::Acquire).to_le_bytes());
        }
        let ends = [place + 8 + ROOT_BYTES, place].map(|word| self.word(word).load(Ordering::Acquire));
        (ends == [index, index]).then_some(root)
    }

    /// Forgets the roots of `replica`, whose process starts anew.
    pub fn clear(&self, replica: u32) {
        for index in 1..=ROOTS_WINDOW as u64 {
            self.word(place(replica, index)).store(0, Ordering::Release);
        }
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        self.region.u64(offset)
    }
}

fn place(replica: u32, index: u64) -> usize {
    assert!(replica < REPLICAS_MAX, "replica {replica} has no roots");
    let slot = usize::try_from(index % ROOTS_WINDOW as u64).expect("less than the window");
    (replica as usize * ROOTS_WINDOW + slot) * PLACE_BYTES
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn roots() -> Roots {
        let region = Region::create("roots", ROOTS_BYTES).unwrap();
        Roots::open(region.as_fd().try_clone_to_owned().unwrap()).unwrap()
    }

    #[test]
    fn a_root_is_read_as_noted_until_the_window_passes() {
        let roots = roots();
        roots.note(2, 7, &[7; 32]);
        assert_eq!(roots.at(2, 7), Some([7; 32]));
        assert_eq!((roots.at(1, 7), roots.at(2, 8), roots.at(2, 0)), (None, None, None));
        let later = 7 + ROOTS_WINDOW as u64;
        roots.note(2, later, &[8; 32]);
        assert_eq!((roots.at(2, 7), roots.at(2, later)), (None, Some([8; 32])));
        assert_eq!(roots.at(REPLICAS_MAX, 7), None);
    }

    #[test]
    fn a_replica_that_starts_anew_has_none() {
        let roots = roots();
        roots.note(0, 5, &[1; 32]);
        roots.note(1, 5, &[1; 32]);
        roots.clear(0);
        assert_eq!((roots.at(0, 5), roots.at(1, 5)), (None, Some([1; 32])));
    }
}
