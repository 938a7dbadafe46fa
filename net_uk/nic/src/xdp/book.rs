//! What drivers note down for their successors, in memory that is held with the sockets. Version 1:
//!
//! ```text
//!    0  magic u64, version u32, queues u32
//!   16  whether a driver was here u64
//!   24  note about sending u64
//!   32  how things stood before that batch u64; 0 from those who did not write it
//!   64  notes about receiving, u64 for each of 16 queues
//! 4096  for each slot towards the device, whether its memory is in use u32
//! ```

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use lane::limits::PAGE_BYTES;

use crate::error::{NicError, Result};
use crate::limits::XDP_QUEUES_MAX;
use crate::mapping::Mapping;

const MAGIC: u64 = u64::from_le_bytes(*b"ppvmxdp\0");
const VERSION: u32 = 1;
const VERSION_AT: usize = 8;
const QUEUES_AT: usize = 12;
const SERVED_AT: usize = 16;
const TX_NOTE_AT: usize = 24;
const TX_BEFORE_AT: usize = 32;
const RX_NOTES_AT: usize = 64;
const IN_USE_AT: usize = 4096;

const _: () = assert!(RX_NOTES_AT + XDP_QUEUES_MAX * 8 <= IN_USE_AT);

/// What two indices are to be once a batch is through: of the lane, in frames, and of a ring of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Note {
    pub(crate) frames: u32,
    pub(crate) index: u32,
}

impl Note {
    fn from_word(word: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        Self { frames: (word >> 32) as u32, index: word as u32 }
    }

    fn word(self) -> u64 {
        u64::from(self.frames) << 32 | u64::from(self.index)
    }
}

/// The notes. Each store comes after all that were made before it.
#[derive(Debug)]
pub(crate) struct Book(Mapping);

impl Book {
    /// Bytes of it: a multiple of the page size.
    pub(crate) fn bytes(tx_slots: u32) -> usize {
        IN_USE_AT + (tx_slots as usize * 4).next_multiple_of(PAGE_BYTES)
    }

    /// Begins one in zeroed memory.
    pub(crate) fn create(memory: impl AsFd, tx_slots: u32, queues: u32) -> Result<Self> {
        let book = Self(Mapping::new(memory, Self::bytes(tx_slots), 0)?);
        book.0.u32(VERSION_AT).store(VERSION, Ordering::Relaxed);
        book.0.u32(QUEUES_AT).store(queues, Ordering::Relaxed);
        book.0.u64(0).store(MAGIC, Ordering::Release);
        Ok(book)
    }

    /// One in memory of its own.
    #[cfg(test)]
    pub(crate) fn in_memory(tx_slots: u32, queues: u32) -> (Self, std::os::fd::OwnedFd) {
        let memory = rustix::fs::memfd_create("book", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&memory, Self::bytes(tx_slots) as u64).unwrap();
        assert!(matches!(Self::open(&memory, tx_slots, queues as usize), Err(NicError::Used)));
        (Self::create(&memory, tx_slots, queues).unwrap(), memory)
    }

    /// Opens one that is there, of this many queues.
    pub(crate) fn open(memory: impl AsFd, tx_slots: u32, queues: usize) -> Result<Self> {
        let book = Self(Mapping::new(memory, Self::bytes(tx_slots), 0)?);
        let known = book.0.u64(0).load(Ordering::Acquire) == MAGIC
            && book.0.u32(VERSION_AT).load(Ordering::Relaxed) == VERSION
            && book.0.u32(QUEUES_AT).load(Ordering::Relaxed) as usize == queues;
        if known { Ok(book) } else { Err(NicError::Used) }
    }

    /// Whether a driver was here before.
    pub(crate) fn served(&self) -> bool {
        self.0.u64(SERVED_AT).load(Ordering::Acquire) != 0
    }

    pub(crate) fn set_served(&self) {
        self.0.u64(SERVED_AT).store(1, Ordering::Release);
    }

    /// The last batch towards the device.
    pub(crate) fn tx_note(&self) -> Note {
        Note::from_word(self.0.u64(TX_NOTE_AT).load(Ordering::Acquire))
    }

    pub(crate) fn set_tx_note(&self, note: Note) {
        self.0.u64(TX_NOTE_AT).store(note.word(), Ordering::Release);
    }

    /// How things stood before the last batch towards the device, or before the next one.
    pub(crate) fn tx_before(&self) -> Note {
        Note::from_word(self.0.u64(TX_BEFORE_AT).load(Ordering::Acquire))
    }

    pub(crate) fn set_tx_before(&self, note: Note) {
        self.0.u64(TX_BEFORE_AT).store(note.word(), Ordering::Release);
    }

    /// The last batch from this queue of the device.
    pub(crate) fn rx_note(&self, queue: usize) -> Note {
        Note::from_word(self.0.u64(RX_NOTES_AT + queue * 8).load(Ordering::Acquire))
    }

    pub(crate) fn set_rx_note(&self, queue: usize, note: Note) {
        self.0.u64(RX_NOTES_AT + queue * 8).store(note.word(), Ordering::Release);
    }

    /// Whether the memory of a slot towards the device holds a frame that was not sent yet.
    pub(crate) fn is_in_use(&self, slot: u32) -> bool {
        self.0.u32(IN_USE_AT + slot as usize * 4).load(Ordering::Acquire) != 0
    }

    pub(crate) fn set_in_use(&self, slot: u32, in_use: bool) {
        self.0.u32(IN_USE_AT + slot as usize * 4).store(u32::from(in_use), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_found_again() {
        let (book, memory) = Book::in_memory(2000, 16);
        let note = |n| Note { frames: u32::MAX - n, index: n };
        book.set_tx_note(note(100));
        book.set_tx_before(note(99));
        for queue in 0..XDP_QUEUES_MAX {
            book.set_rx_note(queue, note(u32::try_from(queue).unwrap()));
        }
        book.set_in_use(1999, true);
        assert!(!book.served());
        book.set_served();
        let other = Book::open(&memory, 2000, 16).unwrap();
        assert_eq!((other.tx_note(), other.rx_note(0), other.rx_note(15)), (note(100), note(0), note(15)));
        assert_eq!(other.tx_before(), note(99));
        assert!(other.served() && other.is_in_use(1999) && !other.is_in_use(1998));
        assert!(matches!(Book::open(&memory, 2000, 1), Err(NicError::Used)));
    }
}
