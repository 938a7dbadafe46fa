//! How far drivers have come, as the kernel's rings tell: for a lane whose indices are lost.

use lane::Lane;

use crate::error::Result;
use crate::nic::COOKIE_WORD;
use crate::packet::held::PacketHeld;
use crate::packet::rings::{MARKED, Rings};
use crate::sys::cookie_of;

impl PacketHeld {
    /// Towards the wire and from it: the number of the frame that comes next. A slot bears the number of the frame that it
    /// carried last. None where no slot bears any.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn handed(&self, lane: &Lane) -> Result<[Option<u32>; 2]> {
        if lane.words().nic(COOKIE_WORD) != cookie_of(self)? {
            return Ok([None; 2]);
        }
        let rings = Rings::new(self, self.spec(), 0)?;
        let tx = (0..rings.tx.slots()).map(|slot| rings.tx_slot(slot).mark());
        let rx = (0..rings.rx.slots()).map(|slot| rings.rx_slot(slot).mark());
        // The shadow's own words, which it keeps right.
        let (near_tx, near_rx) = (lane.tx().produced().frames, lane.rx().consumed().frames);
        Ok([next_number(tx, near_tx), next_number(rx, near_rx)])
    }
}

/// The number after the newest mark; the highest bit is that of a number not far from `near`.
fn next_number(marks: impl Iterator<Item = u32>, near: u32) -> Option<u32> {
    let distance = |mark: u32| {
        // 31 bits of a difference, with their sign.
        (mark.wrapping_sub(near) << 1).cast_signed() >> 1
    };
    let newest = marks.filter(|mark| mark & MARKED != 0).map(distance).max()?;
    Some(near.wrapping_add_signed(newest).wrapping_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::rings::mark_of;

    #[test]
    fn the_newest_mark_is_found_across_the_wraps() {
        for first in [0, 1000, (1 << 31) - 3, u32::MAX - 3] {
            let marks = (0..8).map(|n| mark_of(first.wrapping_add(n)));
            for near in [-20, 0, 8, 30] {
                let near = first.wrapping_add_signed(near);
                assert_eq!(next_number(marks.clone(), near), Some(first.wrapping_add(8)), "{first} {near}");
            }
        }
        assert_eq!(next_number([0, 0].into_iter(), 5), None);
    }
}
