//! Numbered frames: which ones arrived, how often and in which order.

use super::checksum::crc32;
use crate::limits::SEQUENCE_WINDOW_MAX;
use crate::{Result, WatchError};

const NUMBER_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 4;
const WORD_BITS: u64 = 64;

/// Shortest payload of a numbered frame: the number, and the checksum of all before it.
pub const PAYLOAD_BYTES_MIN: usize = NUMBER_BYTES + CHECKSUM_BYTES;

/// Writes `number` (big endian) at the beginning of a payload and a CRC-32 (big endian) of all before it at the end.
///
/// # Errors
/// The payload is shorter than [`PAYLOAD_BYTES_MIN`].
pub fn seal(payload: &mut [u8], number: u64) -> Result<()> {
    let length_bytes = payload.len();
    let too_short = WatchError::PayloadTooShort { length_bytes, min: PAYLOAD_BYTES_MIN };
    if length_bytes < PAYLOAD_BYTES_MIN {
        return Err(too_short);
    }
    payload[..NUMBER_BYTES].copy_from_slice(&number.to_be_bytes());
    let (body, checksum) = payload.split_at_mut(length_bytes - CHECKSUM_BYTES);
    checksum.copy_from_slice(&crc32(body).to_be_bytes());
    Ok(())
}

/// The number of a payload; none if it is damaged.
pub fn number_of(payload: &[u8]) -> Option<u64> {
    let (body, checksum) = payload.split_last_chunk::<CHECKSUM_BYTES>()?;
    let number = body.first_chunk::<NUMBER_BYTES>()?;
    (crc32(body) == u32::from_be_bytes(*checksum)).then(|| u64::from_be_bytes(*number))
}

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The highest number so far.
    InOrder,
    /// For the first time, and behind a higher number.
    Reordered,
    /// Not for the first time.
    Duplicate,
    /// Behind the window: reordered by much, or a duplicate.
    Stale,
    /// Damaged.
    Corrupt,
}

/// Counts of numbered frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Different frames that arrived.
    pub unique: u64,
    /// Numbers that did not arrive. Stale frames may have been among them.
    pub lost: u64,
    /// Frames that arrived again.
    pub duplicated: u64,
    /// Frames that arrived for the first time, behind a higher number.
    pub reordered: u64,
    /// Frames behind the window, which are in no other count.
    pub stale: u64,
    /// Damaged frames.
    pub corrupt: u64,
}

impl Numbers {
    /// All frames that arrived.
    pub fn received(&self) -> u64 {
        [self.unique, self.duplicated, self.stale, self.corrupt].into_iter().fold(0, u64::saturating_add)
    }
}

/// A check of the frames of one sender, which numbers them from 0. Memory is bounded by the window.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// A bit for each number of the window, at its remainder.
    arrived: Vec<u64>,
    window: u64,
    /// One above the highest number so far.
    next: u64,
    numbers: Numbers,
}

impl Sequence {
    /// A check that can tell a duplicate from a late frame for so many numbers; rounded up to a multiple of 64.
    ///
    /// # Errors
    /// The window is below 64 or above [`SEQUENCE_WINDOW_MAX`].
    pub fn new(window: u64) -> Result<Self> {
        if !(WORD_BITS..=SEQUENCE_WINDOW_MAX).contains(&window) {
            return Err(WatchError::WindowRange { window, max: SEQUENCE_WINDOW_MAX });
        }
        let words = window.div_ceil(WORD_BITS);
        let arrived = (0..words).map(|_| 0).collect();
        Ok(Self { arrived, window: words * WORD_BITS, next: 0, numbers: Numbers::default() })
    }

    /// Takes a payload.
    pub fn take(&mut self, payload: &[u8]) -> Seen {
        match number_of(payload) {
            Some(number) if number < u64::MAX => self.take_number(number),
            _ => {
                self.numbers.corrupt += 1;
                Seen::Corrupt
            }
        }
    }

    /// The counts, if `sent` frames were sent.
    pub fn numbers(&self, sent: u64) -> Numbers {
        let first = self.next.saturating_sub(self.window);
        let missing = (first..self.next).filter(|number| !self.has(*number)).count() as u64;
        let never = sent.saturating_sub(self.next);
        Numbers { lost: self.numbers.lost + missing + never, ..self.numbers }
    }

    fn take_number(&mut self, number: u64) -> Seen {
        if number >= self.next {
            self.advance(number + 1);
            self.mark(number);
            self.numbers.unique += 1;
            return Seen::InOrder;
        }
        if self.next - number > self.window {
            self.numbers.stale += 1;
            return Seen::Stale;
        }
        if self.has(number) {
            self.numbers.duplicated += 1;
            return Seen::Duplicate;
        }
        self.mark(number);
        self.numbers.unique += 1;
        self.numbers.reordered += 1;
        Seen::Reordered
    }

    /// Moves the window; what leaves it without having arrived is lost. Work is bounded by the window.
    fn advance(&mut self, next: u64) {
        let first = next.saturating_sub(self.window);
        let old_first = self.next.saturating_sub(self.window);
        let leaving = old_first..first.min(self.next);
        let lost = leaving.filter(|number| !self.has(*number)).count() as u64;
        let skipped = first.saturating_sub(self.next);
        self.numbers.lost += lost + skipped;
        for number in self.next.max(first)..next {
            let (word, bit) = self.place(number);
            self.arrived[word] &= !bit;
        }
        self.next = next;
    }

    fn has(&self, number: u64) -> bool {
        let (word, bit) = self.place(number);
        self.arrived[word] & bit != 0
    }

    fn mark(&mut self, number: u64) {
        let (word, bit) = self.place(number);
        self.arrived[word] |= bit;
    }

    fn place(&self, number: u64) -> (usize, u64) {
        let place = number % self.window;
        let word = usize::try_from(place / WORD_BITS).expect("within the window");
        (word, 1 << (place % WORD_BITS))
    }
}
