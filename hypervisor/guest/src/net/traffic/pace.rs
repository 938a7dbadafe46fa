//! When the next frame is due.

use crate::limits::CATCH_UP_FRAMES;

/// A rate.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Frames a second; 0 is no bound.
    rate: u64,
    start_ns: u64,
    sent: u64,
}

impl Pace {
    /// A rate from `now_ns` on.
    pub fn new(rate: u64, now_ns: u64) -> Self {
        Self { rate, start_ns: now_ns, sent: 0 }
    }

    /// How many frames are due. What is further behind than [`CATCH_UP_FRAMES`] is forgotten.
    pub fn due(&mut self, now_ns: u64) -> u64 {
        if self.rate == 0 {
            return u64::MAX;
        }
        let passed = u128::from(now_ns.saturating_sub(self.start_ns));
        let wanted = u64::try_from(passed * u128::from(self.rate) / 1_000_000_000).unwrap_or(u64::MAX);
        self.sent = self.sent.max(wanted.saturating_sub(CATCH_UP_FRAMES));
        wanted.saturating_sub(self.sent)
    }

    /// A frame was sent.
    pub fn sent(&mut self) {
        self.sent += 1;
    }

    /// How long until the next frame is due, in nanoseconds.
    pub fn wait_ns(&self, now_ns: u64) -> u64 {
        if self.rate == 0 {
            return 0;
        }
        let due = (u128::from(self.sent) + 1) * 1_000_000_000 / u128::from(self.rate);
        u64::try_from(due).unwrap_or(u64::MAX).saturating_add(self.start_ns + 1).saturating_sub(now_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_on_average() {
        let mut pace = Pace::new(1000, 5);
        assert_eq!(pace.due(5), 0);
        let wait = pace.wait_ns(5);
        assert_eq!(pace.due(5 + wait), 1);
        pace.sent();
        assert_eq!(pace.due(5 + wait), 0);
        assert_eq!(pace.due(5 + 1_000_000_000), 999);
    }

    #[test]
    fn the_bound_on_catching_up_is_reached_and_kept() {
        let mut pace = Pace::new(1000, 0);
        assert_eq!(pace.due(1_024_000_000), CATCH_UP_FRAMES);
        assert_eq!(pace.due(60_000_000_000), CATCH_UP_FRAMES);
        assert_eq!(pace.wait_ns(60_000_000_000), 0);
        assert_eq!(Pace::new(0, 0).due(0), u64::MAX);
    }
}
