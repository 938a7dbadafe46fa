//! What a TAP driver notes down before each step, and what its successor concludes from that and the kernel's counts.
//!
//! The kernel counts each frame that was read and each one that was written, in the very system call. So
//!
//! | noted before | holds | the successor finds |
//! |---|---|---|
//! | a write | the frame's number, how many will have been written | that many, and the frame not taken off: it was written |
//! | a read | the next frame's number, how many were read, and their bytes | one more, and that frame not published: it lies in the lane, and the bytes tell how long it is |

use lane::DriverWords;

use crate::nic::{COOKIE_WORD, TAP_BYTES_WORD, TAP_RX_WORD, TAP_TX_WORD};
use crate::tap::counts::Counts;

/// The notes of a driver, if the kernel's counts are known.
#[derive(Debug)]
pub(crate) struct Notes {
    words: DriverWords,
    counts: Option<Counts>,
    /// What the words about reading say.
    rx: (u64, u64),
}

impl Notes {
    /// Those of a predecessor, if that was a driver of the same device, or none yet. `next` is the number of the next frame in
    /// each direction (towards the device, from it).
    pub(crate) fn open(words: DriverWords, counts: Option<Counts>, cookie: u64, next: [u32; 2]) -> Self {
        if words.nic(COOKIE_WORD) != cookie {
            // The frames before the next ones are through; none of their numbers comes again.
            let (written, read, bytes) =
                counts.map_or((0, 0, 0), |counts| (counts.written, counts.read, counts.read_bytes));
            words.set_nic(TAP_BYTES_WORD, bytes);
            words.set_nic(TAP_TX_WORD, pack(next[0].wrapping_sub(1), written));
            // One who sees no counts reads nothing of which another one could know.
            let number = if counts.is_some() { next[1] } else { next[1].wrapping_sub(1) };
            words.set_nic(TAP_RX_WORD, pack(number, read));
            words.set_nic(COOKIE_WORD, cookie);
        }
        let rx = (words.nic(TAP_RX_WORD), words.nic(TAP_BYTES_WORD));
        Self { words, counts, rx }
    }

    /// Was this frame, the first one in the lane, written?
    pub(crate) fn was_written(&self, number: u32) -> bool {
        let noted = self.words.nic(TAP_TX_WORD);
        self.counts.is_some_and(|counts| noted == pack(number, counts.written))
    }

    /// How long the frame is that was read and is not published, if there is one. `next` would be its number.
    pub(crate) fn unpublished_bytes(&self, next: u32) -> Option<u64> {
        let counts = self.counts?;
        let (frames, bytes) = self.rx;
        let length_bytes = counts.read_bytes.wrapping_sub(bytes);
        // No bytes: the note of the next read was begun, so this one is published.
        (frames == pack(next, counts.read.wrapping_sub(1)) && length_bytes > 0).then_some(length_bytes)
    }

    /// Towards the device and from it: the number of the frame that comes next, for a lane whose indices are lost. `taken` is
    /// the shadow's, from the device. A frame that was read counts as not published: it is found again.
    pub(crate) fn handed(words: &DriverWords, counts: Counts, taken: u32) -> [Option<u32>; 2] {
        let (number, written) = unpack(words.nic(TAP_TX_WORD));
        let tx = match written.wrapping_sub(counts.written) {
            0 => Some(number.wrapping_add(1)),
            1 => Some(number),
            _ => None,
        };
        let (next, read) = unpack(words.nic(TAP_RX_WORD));
        let is_last = counts.read.wrapping_sub(read) <= 1;
        // The note of the next read was begun.
        let is_published = read != counts.read && words.nic(TAP_BYTES_WORD) == counts.read_bytes;
        let next = next.wrapping_add(u32::from(is_published));
        let ahead = next.wrapping_sub(taken).cast_signed().max(0);
        [tx, is_last.then(|| taken.wrapping_add_signed(ahead))]
    }

    /// To be told before a frame is written.
    pub(crate) fn will_write(&self, number: u32) {
        if let Some(counts) = self.counts {
            self.words.set_nic(TAP_TX_WORD, pack(number, counts.written.wrapping_add(1)));
        }
    }

    /// It was written.
    pub(crate) fn written(&mut self) {
        if let Some(counts) = &mut self.counts {
            counts.written = counts.written.wrapping_add(1);
        }
    }

    /// To be told before the frame of this number is read, if there is one.
    pub(crate) fn will_read(&mut self, next: u32) {
        let Some(counts) = self.counts else { return };
        let note = (pack(next, counts.read), counts.read_bytes);
        if note != self.rx {
            // In this order: as long as the first word is an old one, its frame is published.
            self.words.set_nic(TAP_BYTES_WORD, note.1);
            self.words.set_nic(TAP_RX_WORD, note.0);
            self.rx = note;
        }
    }

    /// A frame was read of which it is not known how long it was.
    pub(crate) fn recount(&mut self, counts: Option<Counts>) {
        self.counts = self.counts.and(counts);
    }

    /// So long a frame was read.
    pub(crate) fn read(&mut self, length_bytes: usize) {
        if let Some(counts) = &mut self.counts {
            counts.read = counts.read.wrapping_add(1);
            counts.read_bytes = counts.read_bytes.wrapping_add(length_bytes as u64);
        }
    }
}

fn pack(number: u32, count: u32) -> u64 {
    u64::from(number) << 32 | u64::from(count)
}

fn unpack(word: u64) -> (u32, u32) {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    {
        ((word >> 32) as u32, word as u32)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hypervisor::Region;
    use lane::Lane;

    use super::*;

    fn words() -> DriverWords {
        let memory = Arc::new(Region::create("lane", Lane::bytes(64, 64)).unwrap());
        Lane::create(memory, 64, 64).unwrap().words()
    }

    const COUNTS: Counts = Counts { written: 7, read: u32::MAX, read_bytes: 1000 };

    fn open(words: &DriverWords, counts: Counts) -> Notes {
        Notes::open(words.clone(), Some(counts), 5, [0, 9])
    }

    #[test]
    fn nothing_is_concluded_from_no_notes() {
        let words = words();
        let notes = open(&words, COUNTS);
        assert!(!notes.was_written(0) && notes.unpublished_bytes(9).is_none());
        assert_eq!(Notes::handed(&words, COUNTS, 9), [Some(0), Some(9)]);
        let mut blind = Notes::open(words, None, 5, [0, 9]);
        blind.will_write(0);
        blind.will_read(9);
        blind.written();
        blind.read(60);
        assert!(!blind.was_written(0) && blind.unpublished_bytes(9).is_none());
    }

    #[test]
    fn a_write_counts_once_it_was_done() {
        let words = words();
        open(&words, COUNTS).will_write(3);
        assert!(!open(&words, COUNTS).was_written(3));
        let after = open(&words, Counts { written: 8, ..COUNTS });
        assert!(after.was_written(3) && !after.was_written(4));
        // Of another device.
        let other = Notes::open(words, Some(Counts { written: 8, ..COUNTS }), 6, [3, 9]);
        assert!(!other.was_written(3));
    }

    #[test]
    fn a_read_without_a_frame_is_found_with_its_length() {
        let words = words();
        let mut notes = open(&words, COUNTS);
        notes.will_read(9);
        assert_eq!(open(&words, COUNTS).unpublished_bytes(9), None);
        let after = Counts { read: 0, read_bytes: 1060, ..COUNTS };
        assert_eq!(open(&words, after).unpublished_bytes(9), Some(60));
        assert_eq!(open(&words, after).unpublished_bytes(10), None, "it is published");
        notes.read(60);
        notes.will_read(10);
        assert_eq!(open(&words, after).unpublished_bytes(10), None);
    }

    #[test]
    fn lost_indices_are_told() {
        let words = words();
        let mut notes = open(&words, COUNTS);
        notes.will_write(3);
        notes.will_read(9);
        assert_eq!(Notes::handed(&words, COUNTS, 5), [Some(3), Some(9)]);
        let after = Counts { written: 8, read: 0, read_bytes: 1060 };
        assert_eq!(Notes::handed(&words, after, 5), [Some(4), Some(9)]);
        assert_eq!(Notes::handed(&words, after, 10), [Some(4), Some(10)], "the shadow has it");
        let other = Counts { written: 9, read: 5, ..after };
        assert_eq!(Notes::handed(&words, other, 5), [None; 2]);
    }

    /// Between the two words of a note the first one is the old one: nothing was read since.
    #[test]
    fn half_a_note_says_nothing() {
        let words = words();
        let mut notes = open(&words, COUNTS);
        notes.will_read(9);
        let old = words.nic(TAP_RX_WORD);
        notes.read(60);
        notes.will_read(10);
        words.set_nic(TAP_RX_WORD, old);
        let after = Counts { read: 0, read_bytes: 1060, ..COUNTS };
        assert_eq!(open(&words, after).unpublished_bytes(10), None);
        assert_eq!(open(&words, after).unpublished_bytes(9), None);
        assert_eq!(Notes::handed(&words, after, 5)[1], Some(10));
    }
}
