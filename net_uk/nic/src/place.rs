//! Which slot of a ring of the kernel belongs to which frame.
//!
//! The kernel and the drivers go round the ring in step, one slot for each frame of the lane. A driver word holds one
//! known pair of frame number and slot, so that any number of slots is possible although frame numbers wrap.

/// A known pair of frame number and slot, and the number of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    number: u32,
    slot: u32,
    slots: u32,
}

impl Place {
    /// How far the pair may fall behind before it must be renewed.
    const DISTANCE_MAX: u32 = 1 << 30;

    pub(crate) fn new(number: u32, slot: u32, slots: u32) -> Self {
        Self { number, slot, slots }
    }

    /// From a driver word. None if the slot is out of range.
    pub(crate) fn from_word(word: u64, slots: u32) -> Option<Self> {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        let (number, slot) = ((word >> 32) as u32, word as u32);
        (slot < slots).then_some(Self { number, slot, slots })
    }

    pub(crate) fn word(self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.slot)
    }

    /// The slot of a frame.
    pub(crate) fn slot_of(self, number: u32) -> u32 {
        #[expect(clippy::cast_possible_wrap, reason = "a little before the pair, or after it")]
        let distance = i64::from(number.wrapping_sub(self.number) as i32);
        let slot = (i64::from(self.slot) + distance).rem_euclid(i64::from(self.slots));
        u32::try_from(slot).expect("the remainder is less than the number of slots")
    }

    /// The pair to go on with, if this one is too old.
    pub(crate) fn renewed(self, number: u32) -> Option<Self> {
        (number.wrapping_sub(self.number) >= Self::DISTANCE_MAX).then(|| Self {
            number,
            slot: self.slot_of(number),
            slots: self.slots,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_go_round_across_the_wrap_of_numbers() {
        for slots in [15, 16, 4096] {
            let mut place = Place::new(u32::MAX - 40, 3, slots);
            let mut number = u32::MAX - 40;
            for step in 0..200 {
                assert_eq!(place.slot_of(number), (3 + step) % slots);
                number = number.wrapping_add(1);
                if step % 50 == 0 {
                    place = Place { number, slot: place.slot_of(number), slots };
                }
            }
            assert_eq!(place.slot_of(place.number.wrapping_sub(1)), (place.slot + slots - 1) % slots);
        }
    }

    #[test]
    fn an_old_pair_is_renewed_to_an_equal_one() {
        let place = Place::new(5, 7, 15);
        assert_eq!(place.renewed(5 + Place::DISTANCE_MAX - 1), None);
        let renewed = place.renewed(5 + Place::DISTANCE_MAX).unwrap();
        for number in [renewed.number, renewed.number + 20] {
            assert_eq!(renewed.slot_of(number), place.slot_of(number));
        }
        assert_eq!(Place::from_word(renewed.word(), 15), Some(renewed));
        assert_eq!(Place::from_word(15, 15), None);
    }
}
