//! When a guest that takes no frames counts as stalled.

use std::time::Duration;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StallChange {
    /// Frames for this guest are to be dropped from now on, at once.
    Stalled,
    /// It takes frames again.
    Ready,
}

/// Measures how long a receive ring has been [starved](crate::RxRing::is_starved), as Linux's backend does with
/// `rx_stall_timeout`. It is of use only with a guest that sends events for the slots it posts
/// (`feature-rx-notify`).
///
/// Times are those since any fixed moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StallClock {
    timeout: Duration,
    starved_since: Option<Duration>,
    stalled: bool,
}

impl StallClock {
    /// A guest that takes frames. It counts as stalled when it has been starved for `timeout`.
    pub const fn new(timeout: Duration) -> Self {
        Self { timeout, starved_since: None, stalled: false }
    }

    /// Notes whether the ring is starved now.
    pub fn update(&mut self, now: Duration, starved: bool) -> Option<StallChange> {
        if !starved {
            self.starved_since = None;
            return std::mem::take(&mut self.stalled).then_some(StallChange::Ready);
        }
        let since = *self.starved_since.get_or_insert(now);
        if self.stalled || now.saturating_sub(since) < self.timeout {
            return None;
        }
        self.stalled = true;
        Some(StallChange::Stalled)
    }

    /// Is the guest stalled?
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// When it will be if nothing changes.
    pub fn deadline(&self) -> Option<Duration> {
        if self.stalled { None } else { self.starved_since.map(|since| since.saturating_add(self.timeout)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::RX_STALL_TIMEOUT;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_guest_stalls_after_the_timeout_and_recovers_at_once() {
        let mut clock = StallClock::new(RX_STALL_TIMEOUT);
        assert_eq!(clock.update(SECOND, true), None);
        assert_eq!(clock.deadline(), Some(SECOND * 61));
        assert_eq!(clock.update(SECOND * 60, true), None);
        assert_eq!(clock.update(SECOND * 61, true), Some(StallChange::Stalled));
        assert_eq!(clock.update(SECOND * 62, true), None);
        assert!(clock.is_stalled() && clock.deadline().is_none());
        assert_eq!(clock.update(SECOND * 63, false), Some(StallChange::Ready));
        assert_eq!(clock.update(SECOND * 64, false), None);
    }

    #[test]
    fn slots_in_time_start_the_clock_anew() {
        let mut clock = StallClock::new(SECOND * 2);
        assert_eq!(clock.update(SECOND, true), None);
        assert_eq!(clock.update(SECOND * 2, false), None);
        assert_eq!(clock.update(SECOND * 3, true), None);
        assert_eq!(clock.update(SECOND * 4, true), None);
        assert_eq!(clock.update(SECOND * 5, true), Some(StallChange::Stalled));
    }

    #[test]
    fn time_that_goes_back_does_no_harm() {
        let mut clock = StallClock::new(SECOND);
        assert_eq!(clock.update(SECOND * 9, true), None);
        assert_eq!(clock.update(SECOND, true), None);
        assert_eq!(clock.update(Duration::MAX, true), Some(StallChange::Stalled));
    }
}
