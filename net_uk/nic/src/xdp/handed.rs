//! How far drivers have come, as their notes and the kernel's rings tell: for a lane whose indices are lost.

use lane::Lane;

use crate::error::Result;
use crate::nic::COOKIE_WORD;
use crate::sys::cookie_of;
use crate::xdp::book::{Book, Note};
use crate::xdp::held::XdpHeld;
use crate::xdp::ring::Ring;

impl XdpHeld {
    /// Towards the wire and from it: the number of the frame that comes next. None where nothing tells.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn handed(&self, lane: &Lane) -> Result<[Option<u32>; 2]> {
        let Some(owner) = self.receivers().first() else { return Ok([None; 2]) };
        let (layout, queues) = (self.layout(), self.receivers().len());
        let book = Book::open(self.memory(), layout.tx_slots, queues)?;
        if !book.served() || lane.words().nic(COOKIE_WORD) != cookie_of(owner)? {
            return Ok([None; 2]);
        }
        let produced = self.sending().map(Ring::produced);
        let taken = produced.and_then(|produced| next_to_send(book.tx_note(), book.tx_before(), produced));
        let notes = (0..queues).map(|queue| book.rx_note(queue).frames);
        // The shadow's own word, which it keeps right.
        let published = next_received(notes, lane.rx().consumed().frames, lane.rx().slots());
        Ok([taken, Some(published)])
    }
}

/// The last batch was handed over, or else it was not.
pub(super) fn next_to_send(note: Note, before: Note, produced: u32) -> Option<u32> {
    [note, before].into_iter().find(|note| note.index == produced).map(|note| note.frames)
}

/// The newest batch that was noted lies in the lane as a whole: so it counts as published, whatever the lane says.
fn next_received(notes: impl Iterator<Item = u32>, consumed: u32, slots: u32) -> u32 {
    let ahead = notes.map(|frames| frames.wrapping_sub(consumed)).filter(|ahead| *ahead <= slots);
    consumed.wrapping_add(ahead.max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_s_ring_tells_which_note_holds() {
        let (before, note) = (Note { frames: 7, index: u32::MAX }, Note { frames: 12, index: 2 });
        assert_eq!(next_to_send(note, before, 2), Some(12));
        assert_eq!(next_to_send(note, before, u32::MAX), Some(7));
        assert_eq!(next_to_send(note, before, 0), None);
        // A batch of frames that cannot be sent moves no index.
        assert_eq!(next_to_send(Note { frames: 9, index: 5 }, Note { frames: 8, index: 5 }, 5), Some(9));
    }

    #[test]
    fn the_newest_note_counts_and_old_ones_do_not() {
        assert_eq!(next_received([4, 3].into_iter(), u32::MAX, 64), 4);
        assert_eq!(next_received([0, 90].into_iter(), 100, 64), 100);
        assert_eq!(next_received([0, 164, 165].into_iter(), 100, 64), 164);
    }
}
