//! The log in shared memory: a ring of hash-chained entries.
//!
//! Memory layout, version 1, little-endian words (zeroed memory is an empty log):
//!
//! ```text
//!   0 version   8 epoch   16 tail   24 floor      one page
//!   4096 ...    entries, in a ring of `capacity` bytes; a position counts bytes for ever
//!
//!   entry: magic u32, length u32, index u64, epoch u64, hash [32], payload, padding to 8
//! ```
//!
//! An append writes the entry behind the tail, then stores the tail: that store commits it. The leader raises the
//! floor when a snapshot covers the entries below; readers check the floor again after they copied.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use xs_shm::Region;

use crate::chain;
use crate::limits::{ENTRY_BYTES_MAX, LOG_BYTES, LOG_HEADER_BYTES};
use crate::{Appended, Consensus, Cursor, Epoch, Index, LogError};

const VERSION: u64 = 1;
const MAGIC: u32 = 0x5855_4b4c;
const WORD_VERSION: usize = 0;
const WORD_EPOCH: usize = 8;
const WORD_TAIL: usize = 16;
const WORD_FLOOR: usize = 24;
const ENTRY_HEADER_BYTES: usize = 56;

/// The embedded engine: one process's view of the shared log.
#[derive(Debug)]
pub struct Embedded {
    region: Arc<Region>,
    capacity_bytes: u64,
    cursor: Cursor,
    epoch: Option<Epoch>,
}

struct Header {
    length: usize,
    index: u64,
    epoch: u64,
    hash: [u8; 32],
}

impl Embedded {
    /// Uses the shared memory from the place `from` on: the beginning, or the place of a snapshot.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if the memory holds a log of another version or is not a log.
    pub fn attach(region: Region, from: Cursor) -> Result<Self, LogError> {
        let usable = region.length_bytes().min(LOG_BYTES).saturating_sub(LOG_HEADER_BYTES) & !7;
        let version = region.u64(WORD_VERSION).load(Ordering::Acquire);
        if (version != 0 && version != VERSION) || usable < 2 * ENTRY_BYTES_MAX {
            return Err(LogError::Corrupt { index: from.index.0, what: "unknown version or size" });
        }
        Ok(Self { region: Arc::new(region), capacity_bytes: usable as u64, cursor: from, epoch: None })
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        self.region.u64(offset)
    }

    fn tail(&self) -> u64 {
        self.word(WORD_TAIL).load(Ordering::Acquire)
    }

    fn floor(&self) -> u64 {
        self.word(WORD_FLOOR).load(Ordering::Acquire)
    }

    fn leading(&self) -> Result<Epoch, LogError> {
        let ours = self.epoch.ok_or(LogError::NotLeading)?;
        let newer = self.word(WORD_EPOCH).load(Ordering::Acquire);
        if newer > ours.0 { Err(LogError::Fenced { ours: ours.0, newer }) } else { Ok(ours) }
    }

    fn check_room(&self, size_bytes: u64) -> Result<(), LogError> {
        let used_bytes = self.used_bytes();
        if used_bytes + size_bytes > self.capacity_bytes {
            return Err(LogError::Full { used_bytes, capacity_bytes: self.capacity_bytes });
        }
        Ok(())
    }

    fn copy_in(&self, position: u64, bytes: &[u8]) {
        let (offset, first) = self.split(position, bytes.len());
        self.region.write(LOG_HEADER_BYTES + offset, &bytes[..first]);
        self.region.write(LOG_HEADER_BYTES, &bytes[first..]);
    }

    fn copy_out(&self, position: u64, bytes: &mut [u8]) {
        let (offset, first) = self.split(position, bytes.len());
        let (head, rest) = bytes.split_at_mut(first);
        self.region.read(LOG_HEADER_BYTES + offset, head);
        self.region.read(LOG_HEADER_BYTES, rest);
    }

    fn split(&self, position: u64, length: usize) -> (usize, usize) {
        let offset = usize::try_from(position % self.capacity_bytes).expect("less than the capacity");
        let until_end = usize::try_from(self.capacity_bytes).expect("from a usize") - offset;
        (offset, length.min(until_end))
    }

    /// Reads the entry at the cursor. The caller checks the floor afterwards, then believes it or not.
    fn read_entry(&self, tail: u64, entry: &mut Vec<u8>) -> Result<Cursor, LogError> {
        let index = self.cursor.index.0 + 1;
        let corrupt = |what| LogError::Corrupt { index, what };
        let mut bytes = [0; ENTRY_HEADER_BYTES];
        self.copy_out(self.cursor.position, &mut bytes);
        let header = decode_header(&bytes).ok_or_else(|| corrupt("magic"))?;
        let end = self.cursor.position + size_bytes(header.length);
        if header.length > ENTRY_BYTES_MAX || end > tail {
            return Err(corrupt("length"));
        }
        entry.resize(header.length, 0);
        self.copy_out(self.cursor.position + ENTRY_HEADER_BYTES as u64, entry);
        let hash = chain::link(&self.cursor.hash, Index(index), Epoch(header.epoch), entry);
        if header.index != index || hash != header.hash {
            return Err(corrupt("hash chain"));
        }
        Ok(Cursor { index: Index(index), position: end, hash })
    }
}

impl Consensus for Embedded {
    fn lead(&mut self, epoch: Epoch) -> Result<(), LogError> {
        let before = self.word(WORD_EPOCH).fetch_max(epoch.0, Ordering::AcqRel);
        if before > epoch.0 {
            return Err(LogError::Fenced { ours: epoch.0, newer: before });
        }
        self.word(WORD_VERSION).store(VERSION, Ordering::Release);
        self.epoch = Some(epoch);
        Ok(())
    }

    fn append(&mut self, entry: &[u8]) -> Result<Appended, LogError> {
        let epoch = self.leading()?;
        let tail = self.tail();
        if tail != self.cursor.position {
            return Err(LogError::Behind { cursor: self.cursor.index.0 });
        }
        if entry.len() > ENTRY_BYTES_MAX {
            return Err(LogError::TooLarge { bytes: entry.len() });
        }
        let size = size_bytes(entry.len());
        self.check_room(size)?;
        let index = Index(self.cursor.index.0 + 1);
        let hash = chain::link(&self.cursor.hash, index, epoch, entry);
        let header = Header { length: entry.len(), index: index.0, epoch: epoch.0, hash };
        self.copy_in(tail, &encode_header(&header));
        self.copy_in(tail + ENTRY_HEADER_BYTES as u64, entry);
        self.word(WORD_TAIL).store(tail + size, Ordering::Release);
        self.cursor = Cursor { index, position: tail + size, hash };
        Ok(Appended::Committed(index))
    }

    fn next(&mut self, entry: &mut Vec<u8>) -> Result<Option<Index>, LogError> {
        let tail = self.tail();
        if tail == self.cursor.position {
            return Ok(None);
        }
        let read = self.read_entry(tail, entry);
        if self.floor() > self.cursor.position {
            return Err(LogError::Overrun { index: self.cursor.index.0 + 1 });
        }
        self.cursor = read?;
        Ok(Some(self.cursor.index))
    }

    fn cursor(&self) -> Cursor {
        self.cursor
    }

    fn release(&mut self, cursor: &Cursor) -> Result<(), LogError> {
        self.leading()?;
        let (floor, tail) = (self.floor(), self.tail());
        if cursor.position <= floor || cursor.position > tail {
            return Ok(());
        }
        self.word(WORD_FLOOR).store(cursor.position, Ordering::Release);
        let length = usize::try_from(cursor.position - floor).expect("bounded by the capacity");
        let (offset, first) = self.split(floor, length);
        // Memory that is not given back is only memory; the log goes on.
        let _ = self.region.release(LOG_HEADER_BYTES + offset, first);
        let _ = self.region.release(LOG_HEADER_BYTES, length - first);
        Ok(())
    }

    fn used_bytes(&self) -> u64 {
        self.tail().saturating_sub(self.floor())
    }

    fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }
}

fn size_bytes(payload: usize) -> u64 {
    ((ENTRY_HEADER_BYTES + payload).next_multiple_of(8)) as u64
}

fn encode_header(header: &Header) -> [u8; ENTRY_HEADER_BYTES] {
    let mut bytes = [0; ENTRY_HEADER_BYTES];
    let length = u32::try_from(header.length).expect("bounded by ENTRY_BYTES_MAX");
    bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..16].copy_from_slice(&header.index.to_le_bytes());
    bytes[16..24].copy_from_slice(&header.epoch.to_le_bytes());
    bytes[24..].copy_from_slice(&header.hash);
    bytes
}

fn decode_header(bytes: &[u8; ENTRY_HEADER_BYTES]) -> Option<Header> {
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (index, rest) = rest.split_first_chunk::<8>()?;
    let (epoch, rest) = rest.split_first_chunk::<8>()?;
    let hash = *rest.first_chunk::<32>()?;
    (u32::from_le_bytes(*magic) == MAGIC).then_some(Header {
        length: u32::from_le_bytes(*length) as usize,
        index: u64::from_le_bytes(*index),
        epoch: u64::from_le_bytes(*epoch),
        hash,
    })
}

#[cfg(test)]
mod tests;
