//! What goes from the ring of a device that is gone to that of the one that came in its place.

use lane::Lane;

use crate::error::{NicError, Result};
use crate::mapping::Mapping;
use crate::nic::COOKIE_WORD;
use crate::sys::cookie_of;
use crate::xdp::book::{Book, Note};
use crate::xdp::handed::next_to_send;
use crate::xdp::held::XdpHeld;
use crate::xdp::ring::Ring;

impl XdpHeld {
    /// Puts frames that a driver had handed to `old`, and that its device had not taken, at the beginning of the own ring, in
    /// their order; the next driver has them sent before all others. Tells how many. To be called on new sockets, once, while
    /// no driver runs. (Of a device that was gone before this process began nothing can be taken over.) The kernel takes
    /// nothing from the ring of a device that is gone, so none of them was or will be sent from there.
    ///
    /// # Errors
    /// [`NicError::Used`] if the old ring makes no sense, or what the kernel reports.
    pub fn carry_over(&self, old: &Self, lane: &Lane) -> Result<u32> {
        let words = lane.words();
        let (Some(owner), Some(old_owner)) = (self.receivers().first(), old.receivers().first()) else {
            return Ok(0);
        };
        if words.nic(COOKIE_WORD) != cookie_of(old_owner)? {
            // No driver has come as far as to use it.
            return Ok(0);
        }
        let (Some(from), Some(to)) = (Sending::of(old)?, Sending::of(self)?) else { return Ok(0) };
        let first = from.ring.consumed();
        let Note { frames, index: upto } =
            handed(&from.book, lane.tx().consumed().frames, first, from.ring.produced());
        let count = upto.wrapping_sub(first);
        if count > from.slots || count > to.slots {
            return Err(NicError::Used);
        }
        for step in 0..count {
            from.copy(first.wrapping_add(step), &to, step)?;
        }
        to.ring.produce(count);
        let note = Note { frames, index: count };
        to.book.set_tx_before(note);
        to.book.set_tx_note(note);
        to.book.set_served();
        words.set_nic(COOKIE_WORD, cookie_of(owner)?);
        Ok(count)
    }
}

/// Which frame of the lane comes next, and up to where the ring holds those before it. A batch that was handed over and not taken
/// off the lane is still there, and goes from there, unless a device took some of it. `committed` is the lane's word for it,
/// which may be nonsense.
fn handed(book: &Book, committed: u32, consumed: u32, produced: u32) -> Note {
    let (note, before) = (book.tx_note(), book.tx_before());
    let all = |frames| Note { frames, index: produced };
    if note.index == produced && before.frames == committed && note.frames != committed {
        let begun = consumed.wrapping_sub(before.index).cast_signed() > 0;
        return if begun { all(note.frames) } else { before };
    }
    if committed == note.frames || committed == before.frames {
        return all(committed);
    }
    all(next_to_send(note, before, produced).unwrap_or(committed))
}

/// The way towards a device.
struct Sending<'a> {
    ring: &'a Ring,
    book: Book,
    frames: Mapping,
    first_at: usize,
    chunk_bytes: usize,
    slots: u32,
}

impl<'a> Sending<'a> {
    fn of(held: &'a XdpHeld) -> Result<Option<Self>> {
        let layout = held.layout();
        let Some(ring) = held.sending() else { return Ok(None) };
        Ok(Some(Self {
            ring,
            book: Book::open(held.memory(), layout.tx_slots, held.receivers().len())?,
            frames: layout.map_area(held.memory(), 0)?,
            first_at: layout.tx_address(0),
            chunk_bytes: layout.chunk_bytes,
            slots: layout.tx_slots,
        }))
    }

    /// Puts the frame of a slot into one of another ring, which is new.
    fn copy(&self, index: u32, to: &Self, place: u32) -> Result<()> {
        let (address, length_bytes) = (self.ring.address(index), self.ring.length_bytes(index));
        let at = usize::try_from(address).map_err(|_| NicError::Used)?;
        let within =
            at.checked_sub(self.first_at).is_some_and(|past| past < self.slots as usize * self.chunk_bytes);
        if !within
            || length_bytes > self.chunk_bytes.min(to.chunk_bytes)
            || !at.is_multiple_of(self.chunk_bytes)
        {
            return Err(NicError::Used);
        }
        let target = to.first_at + place as usize * to.chunk_bytes;
        // SAFETY: the frame lies within its memory by the check above; its device is gone, so nobody writes there.
        let frame = unsafe { self.frames.bytes(at, length_bytes) };
        // SAFETY: the memory of a slot of a new ring, of which there are as many as frames by the caller's check; no driver
        // runs, the kernel knows nothing of it yet, and there is no other reference.
        let room = unsafe { to.frames.bytes_mut(target, length_bytes) };
        room.copy_from_slice(frame);
        to.book.set_in_use(place, true);
        to.ring.set_frame(place, target as u64, length_bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_is_still_in_the_lane_goes_from_there() {
        let (book, _memory) = Book::in_memory(64, 1);
        let (before, note) = (Note { frames: 7, index: 70 }, Note { frames: 12, index: 75 });
        book.set_tx_before(before);
        book.set_tx_note(note);
        assert_eq!(handed(&book, 12, 68, 75), note, "it was taken off");
        assert_eq!(handed(&book, 7, 68, 75), before, "it was handed over and not taken off");
        assert_eq!(handed(&book, 7, 72, 75), note, "and a device took some of it");
        assert_eq!(handed(&book, 7, 68, 70), before, "it was not handed over");
        // The word of a driver that lied, or with a flipped bit.
        assert_eq!(handed(&book, 1 << 20, 68, 75), note);
        assert_eq!(handed(&book, 1 << 20, 68, 70), before);
    }
}
