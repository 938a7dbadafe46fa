//! Counters that wrap.

/// A wrapping 32-bit counter as one of 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Widened {
    value: u64,
    seen: bool,
}

impl Widened {
    /// Takes the counter's present value. What lies less than half the range behind the last one is taken for a step
    /// back, so that it shows.
    pub fn take(&mut self, low: u32) -> u64 {
        if !self.seen {
            *self = Self { value: (1 << 32) | u64::from(low), seen: true };
            return self.value;
        }
        let step = low.wrapping_sub(self.low()).cast_signed();
        self.value = self.value.saturating_add_signed(i64::from(step));
        self.value
    }

    fn low(self) -> u32 {
        u32::try_from(self.value & u64::from(u32::MAX)).expect("masked")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_behind_the_end_and_shows_steps_back() {
        let mut widened = Widened::default();
        let first = widened.take(u32::MAX - 1);
        assert_eq!(widened.take(3), first + 5);
        assert_eq!(widened.take(1), first + 3);
    }
}
