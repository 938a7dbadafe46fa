//! How far another engine has copied this log, noted in the header, once in each copy of it.
//!
//! ```text
//!   64 magic u64   72 place [48] (see `Cursor`)   120 revision u64   128 first half of SHA-256 over 64..128 [16]
//! ```
//!
//! Only the leader notes. It writes copy 0, then copy 1; the note that is farther along of those with a good check counts.
//! An older one makes the copier look again at what it has copied already; without any, the copy of a log that was let go
//! in part is begun anew.

use sha2::{Digest, Sha256};
use xs_shm::Region;

use crate::{CURSOR_BYTES, Cursor};

const OFFSET: usize = 64;
const MAGIC: u64 = 0x0031_4554_4f4e_5358;
const CHECKED_BYTES: usize = 8 + CURSOR_BYTES + 8;
const CHECK_BYTES: usize = 16;
const NOTE_BYTES: usize = CHECKED_BYTES + CHECK_BYTES;

/// A place in this log, and the same place in the copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopiedTo {
    /// All entries up to here are in the copy.
    pub place: Cursor,
    /// The copier's own address of that place.
    pub revision: u64,
}

impl CopiedTo {
    /// The same place as the copier addresses it: the hash chain is one.
    pub fn copied(&self) -> Cursor {
        Cursor { position: self.revision, ..self.place }
    }

    fn encode(&self) -> [u8; NOTE_BYTES] {
        let mut bytes = [0; NOTE_BYTES];
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..8 + CURSOR_BYTES].copy_from_slice(&self.place.encode());
        bytes[8 + CURSOR_BYTES..CHECKED_BYTES].copy_from_slice(&self.revision.to_le_bytes());
        let check = check(&bytes);
        bytes[CHECKED_BYTES..].copy_from_slice(&check);
        bytes
    }

    fn decode(bytes: &[u8; NOTE_BYTES]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (place, rest) = rest.split_first_chunk::<CURSOR_BYTES>()?;
        let revision = u64::from_le_bytes(*rest.first_chunk()?);
        let whole = u64::from_le_bytes(*magic) == MAGIC && bytes[CHECKED_BYTES..] == check(bytes);
        whole.then(|| Self { place: Cursor::decode(place), revision })
    }
}

fn check(bytes: &[u8; NOTE_BYTES]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::digest(&bytes[..CHECKED_BYTES]);
    *digest.first_chunk().expect("a digest is longer")
}

pub(super) fn write(region: &Region, half_bytes: usize, note: &CopiedTo) {
    for half in [0, half_bytes] {
        region.write(half + OFFSET, &note.encode());
    }
}

pub(super) fn read(region: &Region, half_bytes: usize) -> Option<CopiedTo> {
    let copies = [0, half_bytes].map(|half| {
        let mut bytes = [0; NOTE_BYTES];
        region.read(half + OFFSET, &mut bytes);
        CopiedTo::decode(&bytes)
    });
    copies.into_iter().flatten().max_by_key(|note| (note.place.index, note.revision))
}

#[cfg(test)]
mod tests {
    use crate::Index;

    use super::*;

    const HALF: usize = 4096;

    fn note(index: u64) -> CopiedTo {
        CopiedTo {
            place: Cursor { index: Index(index), position: 8 * index, hash: [3; 32] },
            revision: index + 7,
        }
    }

    #[test]
    fn the_farther_of_two_whole_copies_counts() {
        let region = Region::create("log", 2 * HALF).unwrap();
        assert_eq!(read(&region, HALF), None);
        write(&region, HALF, &note(4));
        // Stopped between the copies.
        region.write(OFFSET, &note(5).encode());
        assert_eq!(read(&region, HALF), Some(note(5)));
        region.write(OFFSET, &note(6).encode()[..NOTE_BYTES - 9]);
        assert_eq!(read(&region, HALF), Some(note(4)), "torn");
    }

    #[test]
    fn any_flipped_bit_in_one_copy_changes_nothing() {
        let region = Region::create("log", 2 * HALF).unwrap();
        write(&region, HALF, &note(4));
        for bit in 0..8 * NOTE_BYTES {
            let mut bytes = note(4).encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(CopiedTo::decode(&bytes), None, "bit {bit}");
            region.write(OFFSET + HALF * (bit % 2), &bytes);
            assert_eq!(read(&region, HALF), Some(note(4)), "bit {bit}");
            write(&region, HALF, &note(4));
        }
    }
}
