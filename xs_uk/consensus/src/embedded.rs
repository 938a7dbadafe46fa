//! The log in shared memory: a ring of hash-chained entries, kept twice.
//!
//! Memory layout, version 2, little-endian words (zeroed memory is an empty log). The region's halves are the copies:
//!
//! ```text
//!   0 version   8 epoch   16 tail   24 floor      one page; each word carries its own check (see `word`)
//!   64 how far another engine has copied the log (see `note`)
//!   4096 ...    entries, in a ring of `capacity` bytes (see `image`); a position counts bytes for ever
//! ```
//!
//! # The commit point
//!
//! An append writes the entry's image into copy 0, then into copy 1, then stores tail 0, then tail 1. All header words
//! only grow, so *the value of a word is the greatest that a copy with a good check tells*. Hence:
//!
//! - Stopped before tail 0: both tails tell the old end; what lies behind it does not count and is overwritten.
//! - The store of tail 0 commits. Both images are whole before it (stores are not reordered: release ordering, and
//!   readers load the tail with acquire), so from then on one damaged image or one damaged word changes nothing.
//! - Stopped between tail 0 and tail 1: the greater tail counts, so the entry is committed for everybody, as it
//!   was for a follower that read it meanwhile. The successor raises tail 1 in `lead` before it does anything else. Until
//!   then the entry hangs on tail 0 alone: a stop *and* a flip in that word in that interval would lose it.
//! - The floor and the epoch are raised in the same way, copy 0 first: the greater one counts, so a floor is never
//!   lowered while pages below it are gone already, and a fenced epoch stays fenced.
//!
//! # What a leader knows besides
//!
//! Place, sizes and epoch are in its own memory, and an entry built from wrong ones could be read by nobody: committed, it
//! would end every replica. So they are kept twice and compared before they are used; a difference ends the process
//! before the tail is stored, and its successor reads them anew.
//!
//! # Mending
//!
//! Only the leader appends, but every reader mends. It must not disturb a leader that has let the place go meanwhile and
//! writes there: so it checks the floor between reading and mending, and replaces word by word with compare-exchange
//! against the damaged content that it saw. Should a leader have written just that content for a later entry in
//! between, one copy of that entry takes damage, which its readers mend in their turn. A header word with a bad check is
//! replaced in the same way; the leader never stores a bad check, so that exchange cannot hit its stores.

use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use xs_shm::Region;

use crate::limits::{ENTRY_BYTES_MAX, LOG_BYTES, LOG_HEADER_BYTES};
use crate::{Appended, Consensus, Cursor, EngineState, Epoch, Index, Loaded, LogError, Repairs};
use image::{HEADER_BYTES, size_bytes};

mod image;
mod note;
mod word;

pub use note::CopiedTo;

const VERSION: u64 = 2;
const WORD_VERSION: usize = 0;
const WORD_EPOCH: usize = 8;
const WORD_TAIL: usize = 16;
const WORD_FLOOR: usize = 24;
/// Positions are multiples of this and stored divided by it.
const ALIGN: u64 = 8;
const PAGE_BYTES: usize = 4096;

/// The embedded engine: one process's view of the shared log.
#[derive(Debug)]
pub struct Embedded {
    region: Arc<Region>,
    known: Known,
    known_copy: Known,
    image: Vec<u8>,
    other: Vec<u8>,
    repairs: Cell<Repairs>,
    #[cfg(test)]
    stores_left: Cell<Option<u32>>,
}

/// What a process knows of the log besides what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    half_bytes: usize,
    capacity_bytes: u64,
    cursor: Cursor,
    epoch: Option<Epoch>,
}

impl Embedded {
    /// Uses the shared memory from the place `from` on: the beginning, or the place of a snapshot.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if the memory holds a log of another version or is not a log.
    pub fn attach(region: Region, from: Cursor) -> Result<Self, LogError> {
        Self::of(Arc::new(region), from)
    }

    fn of(region: Arc<Region>, from: Cursor) -> Result<Self, LogError> {
        let half_bytes = (region.length_bytes().min(LOG_BYTES) / 2) & !(PAGE_BYTES - 1);
        let usable = half_bytes.saturating_sub(LOG_HEADER_BYTES);
        if usable < 2 * ENTRY_BYTES_MAX || !is_known(&region, half_bytes) {
            return Err(LogError::Corrupt { index: from.index.0, what: "unknown version or size" });
        }
        let known = Known { half_bytes, capacity_bytes: usable as u64, cursor: from, epoch: None };
        Ok(Self {
            region,
            known,
            known_copy: known,
            image: Vec::new(),
            other: Vec::new(),
            repairs: Cell::default(),
            #[cfg(test)]
            stores_left: Cell::new(None),
        })
    }

    /// A second view of the same memory, from `from` on.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub fn view(&self, from: Cursor) -> Result<Self, LogError> {
        Self::of(self.region.clone(), from)
    }

    /// Bytes that were appended behind `position`.
    ///
    /// # Errors
    /// [`LogError::Corrupt`].
    pub fn bytes_behind(&self, position: u64) -> Result<u64, LogError> {
        Ok(self.tail()?.saturating_sub(position))
    }

    /// Where what was let go ends.
    ///
    /// # Errors
    /// [`LogError::Corrupt`].
    pub fn floor_position(&self) -> Result<u64, LogError> {
        self.floor()
    }

    /// Who appended the entry that [`Consensus::next`] gave last.
    pub fn entry_epoch(&self) -> Epoch {
        image::epoch(&self.image)
    }

    /// Notes how far another engine has copied the log for the leader of `epoch`.
    ///
    /// # Errors
    /// [`LogError::Fenced`], [`LogError::Corrupt`].
    pub fn note_copied(&self, epoch: Epoch, to: &CopiedTo) -> Result<(), LogError> {
        let newer = self.value(WORD_EPOCH)?;
        if newer > epoch.0 {
            return Err(LogError::Fenced { ours: epoch.0, newer });
        }
        note::write(&self.region, self.known().half_bytes, to);
        Ok(())
    }

    /// How far another engine has copied the log, if that was ever noted.
    pub fn copied(&self) -> Option<CopiedTo> {
        note::read(&self.region, self.known().half_bytes)
    }

    /// What this process knows.
    ///
    /// # Panics
    /// If a bit of it flipped.
    fn known(&self) -> &Known {
        assert!(
            self.known == self.known_copy,
            "what is known of the log and its copy differ: memory is damaged"
        );
        &self.known
    }

    fn learn(&mut self, known: Known) {
        (self.known, self.known_copy) = (known, known);
    }

    fn go_behind(&mut self, cursor: Cursor) {
        self.learn(Known { cursor, ..*self.known() });
    }

    fn copies(&self, word: usize) -> [&AtomicU64; 2] {
        [self.region.u64(word), self.region.u64(self.known().half_bytes + word)]
    }

    /// The greatest value with a good check; a copy with a bad one is mended.
    fn value(&self, word: usize) -> Result<u64, LogError> {
        let copies = self.copies(word);
        let raw = copies.map(|copy| copy.load(Ordering::Acquire));
        match raw.map(word::decode) {
            [Some(a), Some(b)] => Ok(a.max(b)),
            [Some(good), None] => Ok(self.mend_word(copies[1], raw[1], good)),
            [None, Some(good)] => Ok(self.mend_word(copies[0], raw[0], good)),
            [None, None] => Err(LogError::Corrupt {
                index: self.known().cursor.index.0,
                what: "header word, in both copies",
            }),
        }
    }

    fn mend_word(&self, copy: &AtomicU64, damaged: u64, good: u64) -> u64 {
        // Somebody else has mended it if this fails.
        if copy.compare_exchange(damaged, word::encode(good), Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            let repairs = self.repairs.get();
            self.repairs.set(Repairs { words: repairs.words + 1, ..repairs });
        }
        good
    }

    fn store(&self, word: usize, value: u64) {
        for copy in self.copies(word) {
            if self.may_store() {
                copy.store(word::encode(value), Ordering::Release);
            }
        }
    }

    /// As [`Self::store`], where somebody else may have stored more.
    fn raise(&self, word: usize, value: u64) {
        for copy in self.copies(word) {
            let below = |raw| word::decode(raw).is_none_or(|have| have < value).then(|| word::encode(value));
            if self.may_store() {
                // It refuses where there is nothing to raise.
                let _ = copy.fetch_update(Ordering::AcqRel, Ordering::Acquire, below);
            }
        }
    }

    fn tail(&self) -> Result<u64, LogError> {
        Ok(self.value(WORD_TAIL)? * ALIGN)
    }

    fn floor(&self) -> Result<u64, LogError> {
        Ok(self.value(WORD_FLOOR)? * ALIGN)
    }

    fn leading(&self) -> Result<Epoch, LogError> {
        let ours = self.known().epoch.ok_or(LogError::NotLeading)?;
        let newer = self.value(WORD_EPOCH)?;
        if newer > ours.0 { Err(LogError::Fenced { ours: ours.0, newer }) } else { Ok(ours) }
    }

    fn check_room(&self, tail: u64, size_bytes: u64) -> Result<(), LogError> {
        let used_bytes = tail.saturating_sub(self.floor()?);
        if used_bytes + size_bytes > self.known().capacity_bytes {
            return Err(LogError::Full { used_bytes, capacity_bytes: self.known().capacity_bytes });
        }
        Ok(())
    }

    fn copy_in(&self, copy: usize, position: u64, bytes: &[u8]) {
        let (offset, first) = self.split(position, bytes.len());
        self.put(self.ring(copy) + offset, &bytes[..first]);
        self.put(self.ring(copy), &bytes[first..]);
    }

    fn copy_out(&self, copy: usize, position: u64, bytes: &mut [u8]) {
        let (offset, first) = self.split(position, bytes.len());
        let (head, rest) = bytes.split_at_mut(first);
        self.region.read(self.ring(copy) + offset, head);
        self.region.read(self.ring(copy), rest);
    }

    fn ring(&self, copy: usize) -> usize {
        copy * self.known().half_bytes + LOG_HEADER_BYTES
    }

    fn split(&self, position: u64, length: usize) -> (usize, usize) {
        let offset = usize::try_from(position % self.known().capacity_bytes).expect("less than the capacity");
        let until_end = usize::try_from(self.known().capacity_bytes).expect("from a usize") - offset;
        (offset, length.min(until_end))
    }

    #[cfg(not(test))]
    fn put(&self, offset: usize, bytes: &[u8]) {
        self.region.write(offset, bytes);
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests stop a leader between any two stores")]
    fn may_store(&self) -> bool {
        true
    }

    /// Reads one copy's entry at the cursor into `self.image`. The caller checks the floor, then believes it or not.
    fn read_copy(&mut self, copy: usize, tail: u64) -> Result<Cursor, &'static str> {
        let mut header = [0; HEADER_BYTES];
        self.copy_out(copy, self.known().cursor.position, &mut header);
        let length = image::length(&header)?;
        let size = size_bytes(length);
        if self.known().cursor.position + size as u64 > tail {
            return Err("length");
        }
        let mut image = std::mem::take(&mut self.image);
        image.resize(size, 0);
        self.copy_out(copy, self.known().cursor.position, &mut image);
        self.image = image;
        let cursor = self.known().cursor;
        image::verify(&self.image, length, &cursor)
    }

    /// Reads the entry at the cursor from the first copy that is whole, and mends the other.
    fn read_entry(&mut self, tail: u64) -> Result<Cursor, LogError> {
        let mut good = 0;
        let mut read = self.read_copy(0, tail);
        if read.is_err() {
            good = 1;
            read = self.read_copy(1, tail);
        }
        let index = self.known().cursor.index.0 + 1;
        if self.floor()? > self.known().cursor.position {
            return Err(LogError::Overrun { index });
        }
        let behind = read.map_err(|what| LogError::Corrupt { index, what })?;
        self.mend_entry(1 - good);
        Ok(behind)
    }

    /// Makes a copy's entry at the cursor equal to `self.image`.
    fn mend_entry(&mut self, copy: usize) {
        let mut other = std::mem::take(&mut self.other);
        other.resize(self.image.len(), 0);
        self.copy_out(copy, self.known().cursor.position, &mut other);
        if other != self.image {
            let words = self.image.as_chunks::<8>().0.iter().zip(other.as_chunks::<8>().0);
            let mut mended = false;
            for (position, (good, damaged)) in (self.known().cursor.position..).step_by(8).zip(words) {
                let (offset, _) = self.split(position, 8);
                let (damaged, good) = (u64::from_ne_bytes(*damaged), u64::from_ne_bytes(*good));
                let word = self.region.u64(self.ring(copy) + offset);
                mended |= damaged != good
                    && word.compare_exchange(damaged, good, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            }
            let repairs = self.repairs.get();
            self.repairs.set(Repairs { entries: repairs.entries + u64::from(mended), ..repairs });
        }
        self.other = other;
    }
}

impl Consensus for Embedded {
    fn lead(&mut self, epoch: Epoch) -> Result<(), LogError> {
        if epoch.0 >= word::VALUE_END {
            return Err(LogError::Engine { what: format!("epoch {} does not fit", epoch.0) });
        }
        // Read first: a damaged copy is mended to what rules before anything is raised.
        if self.value(WORD_EPOCH)? <= epoch.0 {
            self.raise(WORD_EPOCH, epoch.0);
        }
        let newer = self.value(WORD_EPOCH)?;
        if newer > epoch.0 {
            return Err(LogError::Fenced { ours: epoch.0, newer });
        }
        // What a leader that died between two stores left behind.
        for word in [WORD_TAIL, WORD_FLOOR] {
            self.raise(word, self.value(word)?);
        }
        self.store(WORD_VERSION, VERSION);
        self.learn(Known { epoch: Some(epoch), ..*self.known() });
        Ok(())
    }

    fn is_leading(&mut self) -> Result<bool, LogError> {
        match self.leading() {
            Ok(_) => Ok(true),
            Err(LogError::NotLeading) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn append(&mut self, entry: &[u8]) -> Result<Appended, LogError> {
        let epoch = self.leading()?;
        let tail = self.tail()?;
        if tail != self.known().cursor.position {
            return Err(LogError::Behind { cursor: self.known().cursor.index.0 });
        }
        if entry.len() > ENTRY_BYTES_MAX {
            return Err(LogError::TooLarge { bytes: entry.len() });
        }
        self.check_room(tail, size_bytes(entry.len()) as u64)?;
        let cursor = self.known().cursor;
        let behind = image::build(&mut self.image, &cursor, epoch, entry);
        self.copy_in(0, tail, &self.image);
        self.copy_in(1, tail, &self.image);
        self.store(WORD_TAIL, behind.position / ALIGN);
        self.go_behind(behind);
        Ok(Appended::Committed(behind.index))
    }

    fn next(&mut self, entry: &mut Vec<u8>) -> Result<Option<Index>, LogError> {
        let tail = self.tail()?;
        if tail == self.known().cursor.position {
            return Ok(None);
        }
        let behind = self.read_entry(tail)?;
        let length = image::length(self.image.first_chunk().expect("an image has a header"));
        entry.clear();
        entry.extend_from_slice(&self.image[HEADER_BYTES..HEADER_BYTES + length.expect("just verified")]);
        self.go_behind(behind);
        Ok(Some(behind.index))
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn state(&self) -> EngineState {
        EngineState::default()
    }

    fn save_snapshot(&mut self, _cursor: &Cursor, _snapshot: Vec<u8>) -> Result<bool, LogError> {
        Ok(false)
    }

    fn load_snapshot(&mut self) -> Result<Loaded, LogError> {
        Ok(Loaded::Nothing)
    }

    fn cursor(&self) -> Cursor {
        self.known().cursor
    }

    fn release(&mut self, cursor: &Cursor) -> Result<(), LogError> {
        self.leading()?;
        let (floor, tail) = (self.floor()?, self.tail()?);
        if cursor.position <= floor || cursor.position > tail {
            return Ok(());
        }
        self.store(WORD_FLOOR, cursor.position / ALIGN);
        let length = usize::try_from(cursor.position - floor).expect("bounded by the capacity");
        let (offset, first) = self.split(floor, length);
        for copy in 0..2 {
            // Memory that is not given back is only memory; the log goes on.
            let _ = self.region.release(self.ring(copy) + offset, first);
            let _ = self.region.release(self.ring(copy), length - first);
        }
        Ok(())
    }

    fn used_bytes(&self) -> u64 {
        // Damage in both copies shows itself at the next append or read.
        self.tail().and_then(|tail| Ok(tail.saturating_sub(self.floor()?))).unwrap_or(0)
    }

    fn capacity_bytes(&self) -> u64 {
        self.known().capacity_bytes
    }

    fn take_repairs(&mut self) -> Repairs {
        self.repairs.take()
    }
}

/// Whether the memory is a log of this version, or zeroed. One damaged copy of the word says nothing.
fn is_known(region: &Region, half_bytes: usize) -> bool {
    let raw = [0, half_bytes].map(|copy| region.u64(copy + WORD_VERSION).load(Ordering::Acquire));
    raw.into_iter().filter_map(word::decode).any(|version| version == 0 || version == VERSION)
}

#[cfg(test)]
mod tests;
