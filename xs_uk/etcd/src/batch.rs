//! A batch of entries as one value.
//!
//! ```text
//!   version u32 = 1, count u32, first index u64, epoch u64, hash before [32], hash behind [32]
//!   count times: length u32, bytes                                            all little-endian
//! ```

use xs_consensus::limits::ENTRY_BYTES_MAX;
use xs_consensus::{Cursor, Epoch, Index, link};

use crate::limits::BATCH_ENTRIES_MAX;

const VERSION: u32 = 1;

/// Entries and their places in the chain. The position of the cursors is the batch's revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Who appended it.
    pub epoch: Epoch,
    /// The place before it.
    pub before: Cursor,
    /// The entries, each with the place behind it.
    pub entries: Vec<(Vec<u8>, Cursor)>,
}

impl Batch {
    /// Chains entries behind `before`.
    pub fn build(epoch: Epoch, before: Cursor, entries: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut place = before;
        let chained = entries.into_iter().map(|entry| {
            let index = Index(place.index.0 + 1);
            place = Cursor { index, position: 0, hash: link(&place.hash, index, epoch, &entry) };
            (entry, place)
        });
        Self { epoch, before, entries: chained.collect() }
    }

    /// The place behind it.
    pub fn behind(&self) -> Cursor {
        self.entries.last().map_or(self.before, |(_, cursor)| *cursor)
    }

    /// The batch as a value.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(96 + self.entries.iter().map(|(e, _)| e.len() + 4).sum::<usize>());
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&length(self.entries.len()));
        bytes.extend_from_slice(&(self.before.index.0 + 1).to_le_bytes());
        bytes.extend_from_slice(&self.epoch.0.to_le_bytes());
        bytes.extend_from_slice(&self.before.hash);
        bytes.extend_from_slice(&self.behind().hash);
        for (entry, _) in &self.entries {
            bytes.extend_from_slice(&length(entry.len()));
            bytes.extend_from_slice(entry);
        }
        bytes
    }

    /// Reads and verifies what [`Self::encode`] wrote under revision `position`. The error says what does not fit.
    ///
    /// # Errors
    /// What does not fit.
    pub fn decode(mut bytes: &[u8], position: u64) -> Result<Self, &'static str> {
        let bytes = &mut bytes;
        if u32(bytes)? != VERSION {
            return Err("version of a batch");
        }
        let count = u32(bytes)? as usize;
        let first = u64::from_le_bytes(*array(bytes)?);
        let epoch = Epoch(u64::from_le_bytes(*array(bytes)?));
        let (hash, behind) = (*array(bytes)?, *array::<32>(bytes)?);
        let index = first.checked_sub(1).ok_or("index of a batch")?;
        if count == 0 || count > BATCH_ENTRIES_MAX || index.checked_add(count as u64).is_none() {
            return Err("number of entries");
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push(entry(bytes)?);
        }
        let before = Cursor { index: Index(index), position, hash };
        let mut batch = Self::build(epoch, before, entries);
        if !bytes.is_empty() || batch.behind().hash != behind {
            return Err("hash chain in a batch");
        }
        batch.set_position(position);
        Ok(batch)
    }

    /// Notes the revision under which it was written.
    pub fn set_position(&mut self, position: u64) {
        self.entries.iter_mut().for_each(|(_, cursor)| cursor.position = position);
    }
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("bounded far below").to_le_bytes()
}

fn array<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<&'a [u8; N], &'static str> {
    let (head, rest) = bytes.split_first_chunk().ok_or("length of a batch")?;
    *bytes = rest;
    Ok(head)
}

fn u32(bytes: &mut &[u8]) -> Result<u32, &'static str> {
    Ok(u32::from_le_bytes(*array(bytes)?))
}

fn entry(bytes: &mut &[u8]) -> Result<Vec<u8>, &'static str> {
    let length = u32(bytes)? as usize;
    if length > ENTRY_BYTES_MAX || length > bytes.len() {
        return Err("length of an entry");
    }
    let (entry, rest) = bytes.split_at(length);
    *bytes = rest;
    Ok(entry.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place() -> Cursor {
        Cursor { index: Index(41), position: 9, hash: [3; 32] }
    }

    proptest! {
        #[test]
        fn codec_round_trip(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..20)) {
            let mut batch = Batch::build(Epoch(5), place(), entries);
            batch.set_position(9);
            prop_assert_eq!(Batch::decode(&batch.encode(), 9), Ok(batch));
        }

        #[test]
        fn garbage_gives_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Batch::decode(&bytes, 1).is_err());
        }

        #[test]
        fn any_flipped_bit_is_found(bit in 0_usize..8 * (88 + 12)) {
            let mut bytes = Batch::build(Epoch(5), place(), [b"four".to_vec(), vec![]]).encode();
            prop_assert_eq!(bytes.len(), 88 + 12);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = Batch::decode(&bytes, 9);
            prop_assert!(read.is_err() || read.is_ok_and(|batch| batch.before != place()));
        }
    }
}
