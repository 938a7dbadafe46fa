//! How far a side of a ring has come.

use std::fmt;

use crate::error::LaneError;

/// How far a side of a ring has come: frames and slots since the ring was made, both modulo 2^32. It is one word in
/// memory, so that one store moves both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Frames.
    pub frames: u32,
    /// Slots.
    pub slots: u32,
}

impl Cursor {
    pub(crate) fn from_word(word: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        Self { frames: (word >> 32) as u32, slots: word as u32 }
    }

    pub(crate) fn word(self) -> u64 {
        u64::from(self.frames) << 32 | u64::from(self.slots)
    }

    pub(crate) fn after_frame(self, slots: u32) -> Self {
        Self { frames: self.frames.wrapping_add(1), slots: self.slots.wrapping_add(slots) }
    }

    pub(crate) fn ahead_by(self, slots: u32) -> Self {
        Self { frames: self.frames.wrapping_add(slots), slots: self.slots.wrapping_add(slots + 1) }
    }

    /// Slots that `produced` is ahead of `consumed`.
    pub(crate) fn used(produced: Self, consumed: Self, slots: u32) -> Result<u32, LaneError> {
        let used = produced.slots.wrapping_sub(consumed.slots);
        let frames = produced.frames.wrapping_sub(consumed.frames);
        if used > slots || frames > used || (frames == 0) != (used == 0) {
            return Err(LaneError::Indices { produced, consumed, slots });
        }
        Ok(used)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames in {} slots", self.frames, self.slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_wrap() {
        let consumed = Cursor { frames: u32::MAX, slots: u32::MAX - 2 };
        let produced = consumed.after_frame(3).after_frame(1);
        assert_eq!(produced, Cursor { frames: 1, slots: 1 });
        assert_eq!(Cursor::used(produced, consumed, 64), Ok(4));
        assert_eq!(Cursor::from_word(produced.word()), produced);
    }

    #[test]
    fn nonsense_is_refused() {
        let at = |frames, slots| Cursor { frames, slots };
        assert_eq!(Cursor::used(at(64, 64), at(0, 0), 64), Ok(64));
        for (produced, consumed) in [
            (at(1, 65), at(0, 0)),
            (at(0, 0), at(1, 1)),
            (at(3, 2), at(0, 0)),
            (at(0, 1), at(0, 0)),
            (at(1, 0), at(0, 0)),
        ] {
            assert_eq!(
                Cursor::used(produced, consumed, 64),
                Err(LaneError::Indices { produced, consumed, slots: 64 })
            );
        }
    }
}
