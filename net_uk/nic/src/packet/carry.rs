//! What goes from the rings of a device that is gone to those of the one that came in its place.

use lane::Lane;

use crate::error::Result;
use crate::nic::COOKIE_WORD;
use crate::packet::held::PacketHeld;
use crate::packet::rings::{Rings, mark_of};
use crate::packet::slots::{Slot, TX_DATA_AT};
use crate::place::Place;
use crate::sys::cookie_of;

impl PacketHeld {
    /// Puts frames that a driver had handed to `old`, and that were never sent, at the beginning of the own transmit ring, in
    /// their order; the next driver sends them before all others. Tells how many. To be called on a new socket, once, while
    /// no driver runs. The kernel sends nothing over a device that is gone, so none of them was or will be sent from there.
    ///
    /// # Errors
    /// [`crate::NicError::Used`] if the driver words make no sense, or what the kernel reports.
    pub fn carry_over(&self, old: &Self, lane: &Lane) -> Result<u32> {
        let words = lane.words();
        if words.nic(COOKIE_WORD) != cookie_of(old)? {
            // No driver has come as far as to use it.
            return Ok(0);
        }
        let mut from = Rings::new(old, old.spec(), 0)?;
        from.find(&words)?;
        let mut to = Rings::new(self, self.spec(), 0)?;
        let next = lane.tx().consumed().frames;
        let slots = from.tx.slots().min(to.tx.slots());
        let waits = |back: &u32| is_waiting(from.tx_slot(next.wrapping_sub(*back)), next.wrapping_sub(*back));
        let count = (1..=slots).take_while(waits).last().unwrap_or(0);
        let first = next.wrapping_sub(count);
        to.tx_place = Place::new(first, 0, to.tx.slots());
        to.rx_place = Place::new(lane.rx().produced().frames, 0, to.rx.slots());
        for number in (0..count).map(|n| first.wrapping_add(n)) {
            copy(from.tx_slot(number), to.tx_slot(number), number);
        }
        to.note(&words, cookie_of(self)?);
        Ok(count)
    }
}

/// Was this frame handed over, and not taken by the device?
fn is_waiting(slot: Slot<'_>, number: u32) -> bool {
    slot.status() == libc::TP_STATUS_SEND_REQUEST && slot.mark() == mark_of(number)
}

fn copy(from: Slot<'_>, to: Slot<'_>, number: u32) {
    let length_bytes = from.sent_length();
    // SAFETY: the kernel leaves the slot alone, for its device is gone, and no driver runs.
    let frame = unsafe { from.data(TX_DATA_AT, length_bytes) };
    // SAFETY: a slot of a new socket is available, no driver runs, and there is no other reference.
    let room = unsafe { to.room() };
    match frame.zip(room.get_mut(..length_bytes)) {
        Some((frame, room)) => {
            room.copy_from_slice(frame);
            to.set_length(length_bytes);
        }
        // The kernel passes it by.
        None => to.set_length(0),
    }
    to.set_mark(mark_of(number));
    to.set_status(libc::TP_STATUS_SEND_REQUEST);
}
