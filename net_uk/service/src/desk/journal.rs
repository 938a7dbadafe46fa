//! The last events, which outlive the keeper that told them.
//!
//! ```text
//! words at 192: number of the last event u64, number of the last one that was written out u64
//! slot: number u64 (0 while it is written), length u32, the event
//! ```
//! An event counts when the word of the last number is stored. One keeper writes at a time.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use hypervisor::Region;

use crate::limits::{EVENT_BYTES_MAX, JOURNAL_EVENTS};

const LAST: usize = 192;
const WRITTEN_OUT: usize = 200;
const LENGTH: usize = 8;
const TEXT: usize = 16;
const SLOT_BYTES: usize = TEXT + EVENT_BYTES_MAX;
/// Bytes of all slots.
pub const BYTES: usize = SLOT_BYTES * JOURNAL_EVENTS;

const _: () = assert!(SLOT_BYTES.is_multiple_of(8));

/// The last events.
#[derive(Debug, Clone)]
pub struct Journal {
    region: Arc<Region>,
    base: usize,
}

/// What was found of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// Its bytes.
    Found(Vec<u8>),
    /// It was overwritten.
    Gone,
    /// It has not happened.
    NotYet,
}

impl Journal {
    pub(super) fn new(region: Arc<Region>, base: usize) -> Self {
        Self { region, base }
    }

    /// Number of the last event; 0 before the first.
    pub fn last(&self) -> u64 {
        self.region.u64(LAST).load(Ordering::Acquire)
    }

    /// Number of the oldest event that is not about to be overwritten.
    pub fn oldest(&self) -> u64 {
        (self.last() + 2).saturating_sub(JOURNAL_EVENTS as u64).max(1)
    }

    /// Adds an event; tells its number.
    ///
    /// # Panics
    /// If it is longer than [`EVENT_BYTES_MAX`].
    pub fn push(&self, event: impl FnOnce(u64) -> Vec<u8>) -> u64 {
        let number = self.last() + 1;
        let bytes = event(number);
        assert!(bytes.len() <= EVENT_BYTES_MAX, "an event is cut to the bound where it is made");
        let slot = self.slot(number);
        self.region.u64(slot).store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.region.u32(slot + LENGTH).store(u32::try_from(bytes.len()).unwrap_or(0), Ordering::Relaxed);
        self.region.write(slot + TEXT, &bytes);
        self.region.u64(slot).store(number, Ordering::Release);
        self.region.u64(LAST).store(number, Ordering::Release);
        number
    }

    /// An event by its number.
    pub fn read(&self, number: u64) -> Lookup {
        if number > self.last() {
            return Lookup::NotYet;
        }
        let slot = self.slot(number);
        if number == 0 || self.region.u64(slot).load(Ordering::Acquire) != number {
            return Lookup::Gone;
        }
        let length = usize::try_from(self.region.u32(slot + LENGTH).load(Ordering::Relaxed));
        let mut bytes = vec![0; length.unwrap_or(0).min(EVENT_BYTES_MAX)];
        self.region.read(slot + TEXT, &mut bytes);
        fence(Ordering::SeqCst);
        // It may have been overwritten meanwhile.
        match self.region.u64(slot).load(Ordering::Relaxed) == number {
            true => Lookup::Found(bytes),
            false => Lookup::Gone,
        }
    }

    /// Number of the last event that was written to the standard output.
    pub fn written_out(&self) -> u64 {
        self.region.u64(WRITTEN_OUT).load(Ordering::Acquire)
    }

    /// All up to here were written.
    pub fn set_written_out(&self, number: u64) {
        self.region.u64(WRITTEN_OUT).store(number, Ordering::Release);
    }

    fn slot(&self, number: u64) -> usize {
        let at = usize::try_from(number % JOURNAL_EVENTS as u64).unwrap_or(0);
        self.base + at * SLOT_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::Desk;
    use super::*;

    #[test]
    fn the_last_events_are_found_by_number_and_older_ones_are_gone() {
        let journal = Desk::create().unwrap().journal();
        assert_eq!((journal.last(), journal.oldest(), journal.read(1)), (0, 1, Lookup::NotYet));
        let all = JOURNAL_EVENTS as u64 + 3;
        for number in 1..=all {
            assert_eq!(journal.push(|number| number.to_le_bytes().to_vec()), number);
        }
        assert_eq!((journal.last(), journal.oldest()), (all, 5));
        assert_eq!(journal.read(3), Lookup::Gone);
        for number in 4..=all {
            assert_eq!(journal.read(number), Lookup::Found(number.to_le_bytes().to_vec()));
        }
        assert_eq!(journal.read(0), Lookup::Gone);
    }

    #[test]
    fn one_that_was_not_written_to_its_end_is_written_again() {
        let desk = Desk::create().unwrap();
        let journal = desk.journal();
        journal.push(|_| vec![1; EVENT_BYTES_MAX]);
        // A keeper that dies within the next one leaves the slot without a number.
        desk.region.u64(journal.slot(2)).store(0, Ordering::Relaxed);
        let next = Desk::open(desk.as_fd().try_clone_to_owned().unwrap()).unwrap().journal();
        assert_eq!(next.read(2), Lookup::NotYet);
        assert_eq!(next.push(|_| vec![2]), 2);
        assert_eq!(next.read(2), Lookup::Found(vec![2]));
        assert_eq!(next.read(1), Lookup::Found(vec![1; EVENT_BYTES_MAX]));
    }
}
