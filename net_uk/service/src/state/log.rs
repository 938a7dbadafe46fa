//! The answers that a shadow is about to publish on a guest's ring, kept where its successor finds them.
//!
//! A response lies where its request was, so a ring that was left half-answered tells nothing by itself. The log is written
//! before the page is touched: `begun` first, then the entry, then `done`. An entry counts if both are equal.
//!
//! ```text
//!  0 begun u32   4 done u32   8 first index u32   12 bytes u32   16 source u32   20 seq u32   24 checksum u64   64 responses
//! ```

use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use hypervisor::Region;
use netif::Index;

use super::LOG_BYTES;

const BEGUN: usize = 0;
const DONE: usize = 4;
const FIRST: usize = 8;
const LENGTH: usize = 12;
const SOURCE: usize = 16;
const SEQ: usize = 20;
const CHECKSUM: usize = 24;
const RESPONSES: usize = 64;
const RESPONSES_MAX: usize = LOG_BYTES - RESPONSES;
/// No frame of a source is meant.
const NO_SOURCE: u32 = u32::MAX;

/// Where a frame came from and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// The producer's number for its source.
    pub source: u16,
    /// The frame's number at its source.
    pub seq: u32,
}

/// What was about to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Index of the first response.
    pub first: Index,
    /// All responses.
    pub responses: Vec<u8>,
    /// With them all frames of this source up to this number are delivered.
    pub upto: Option<Label>,
}

/// The last entry.
#[derive(Debug, Clone)]
pub struct PublishLog {
    region: Arc<Region>,
    base: usize,
}

impl PublishLog {
    /// The log at `base`; zeroed memory is an empty one.
    pub fn new(region: Arc<Region>, base: usize) -> Self {
        Self { region, base }
    }

    /// Forgets what is there.
    pub fn clear(&self) {
        let begun = self.word(BEGUN).wrapping_add(1);
        self.set(BEGUN, begun);
    }

    /// Replaces the entry.
    ///
    /// # Panics
    /// If the responses are more than a ring holds.
    pub fn write(&self, first: Index, responses: &[u8], upto: Option<Label>) {
        assert!(responses.len() <= RESPONSES_MAX, "responses of one ring");
        let number = self.word(BEGUN).wrapping_add(1);
        self.set(BEGUN, number);
        // The entry must not be seen before the mark that it is not whole.
        fence(Ordering::SeqCst);
        self.set(FIRST, first.0);
        self.set(LENGTH, u32::try_from(responses.len()).unwrap_or(u32::MAX));
        self.set(SOURCE, upto.map_or(NO_SOURCE, |label| u32::from(label.source)));
        self.set(SEQ, upto.map_or(0, |label| label.seq));
        self.region.write(self.base + RESPONSES, responses);
        let checksum = checksum(first.0, upto, responses);
        self.region.u64(self.base + CHECKSUM).store(checksum, Ordering::Relaxed);
        self.set(DONE, number);
    }

    /// The entry, if one was written to its end.
    pub fn read(&self) -> Option<Entry> {
        if self.word(BEGUN) != self.word(DONE) || self.word(BEGUN) == 0 {
            return None;
        }
        let length = usize::try_from(self.word(LENGTH)).ok().filter(|length| *length <= RESPONSES_MAX)?;
        let mut responses = vec![0; length];
        self.region.read(self.base + RESPONSES, &mut responses);
        let source = self.word(SOURCE);
        let upto = u16::try_from(source).ok().map(|source| Label { source, seq: self.word(SEQ) });
        let first = Index(self.word(FIRST));
        let sound = self.region.u64(self.base + CHECKSUM).load(Ordering::Relaxed)
            == checksum(first.0, upto, &responses);
        (sound && (upto.is_some() || source == NO_SOURCE)).then_some(Entry { first, responses, upto })
    }

    fn word(&self, at: usize) -> u32 {
        self.region.u32(self.base + at).load(Ordering::Acquire)
    }

    fn set(&self, at: usize, value: u32) {
        self.region.u32(self.base + at).store(value, Ordering::Release);
    }
}

fn checksum(first: u32, upto: Option<Label>, responses: &[u8]) -> u64 {
    let mut hasher = twox_hash::XxHash3_64::new();
    hasher.write(&first.to_ne_bytes());
    if let Some(Label { source, seq }) = upto {
        hasher.write(&source.to_ne_bytes());
        hasher.write(&seq.to_ne_bytes());
    }
    hasher.write(responses);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> PublishLog {
        PublishLog::new(Arc::new(Region::create("log", LOG_BYTES).unwrap()), 0)
    }

    #[test]
    fn the_last_whole_entry_is_read() {
        let log = log();
        assert_eq!(log.read(), None);
        for n in 0..3u8 {
            let upto = (n > 0).then_some(Label { source: 7, seq: u32::from(n) });
            log.write(Index(u32::from(n)), &[n; 8], upto);
            let entry = Entry { first: Index(u32::from(n)), responses: vec![n; 8], upto };
            assert_eq!(log.read(), Some(entry));
        }
        log.clear();
        assert_eq!(log.read(), None);
    }

    #[test]
    fn a_whole_ring_of_responses_fits() {
        let log = log();
        let responses = vec![3; 256 * netif::ring::RX_SLOT_BYTES];
        log.write(Index(9), &responses, None);
        assert_eq!(log.read().unwrap().responses, responses);
    }

    #[test]
    fn what_was_not_written_to_its_end_or_changed_does_not_count() {
        let log = log();
        log.write(Index(1), &[1; 8], None);
        log.set(BEGUN, 9);
        assert_eq!(log.read(), None);
        log.write(Index(1), &[1; 8], None);
        log.region.write(RESPONSES, &[2]);
        assert_eq!(log.read(), None);
        log.write(Index(1), &[1; 8], None);
        log.set(LENGTH, u32::MAX);
        assert_eq!(log.read(), None);
    }
}
