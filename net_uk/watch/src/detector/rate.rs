//! How fast a process works when there is enough to do.

use super::pace::Interval;
use super::stall::Moved;
use crate::TimeNs;
use crate::limits::{
    RATE_FORGET_DIVISOR, RATE_JUDGED_MIN_PER_S, RATE_WINDOW_NS, RATE_WINDOWS_MIN, SLOW_RATIO, SLOW_WINDOWS,
};

const NS_PER_S: u128 = 1_000_000_000;

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    units: u64,
    ns: u64,
}

impl Window {
    fn add(&mut self, units: u64, ns: u64) {
        self.units = self.units.saturating_add(units);
        self.ns = self.ns.saturating_add(ns);
    }

    /// The window, if it is full; then the next one begins.
    fn take(&mut self) -> Option<Self> {
        (self.ns >= RATE_WINDOW_NS).then(|| std::mem::take(self))
    }

    fn per_s(self) -> u64 {
        let per_s = u128::from(self.units) * NS_PER_S / u128::from(self.ns.max(1));
        u64::try_from(per_s).unwrap_or(u64::MAX)
    }
}

/// The learned rate and the present one. What is learned is taken in real time, so it is never too high because the
/// process was not watched; what is judged is taken in credited time, so it is never too low because of that.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    learned_per_s: u64,
    windows: u32,
    learning: Window,
    judged: Window,
    slow_windows: u32,
    slow_since: TimeNs,
}

impl Rate {
    pub fn step(&mut self, interval: &Interval, moved: Moved) {
        if moved.refused {
            return;
        }
        if moved.units > 0 || moved.busy_throughout {
            self.learning.add(moved.units, interval.elapsed_ns);
            self.learn();
        }
        if moved.busy_throughout {
            if self.slow_windows == 0 && self.judged.ns == 0 {
                self.slow_since = interval.from;
            }
            self.judged.add(moved.units, interval.credit_ns);
            self.judge();
        } else {
            (self.judged, self.slow_windows) = (Window::default(), 0);
        }
    }

    fn learn(&mut self) {
        let Some(window) = self.learning.take() else { return };
        let per_s = window.per_s();
        let fall = self.learned_per_s.saturating_sub(per_s) / RATE_FORGET_DIVISOR;
        self.learned_per_s = per_s.max(self.learned_per_s - fall);
        self.windows = self.windows.saturating_add(1);
    }

    fn judge(&mut self) {
        let Some(window) = self.judged.take() else { return };
        let slow = window.per_s() < self.learned_per_s / SLOW_RATIO;
        let judged = self.windows >= RATE_WINDOWS_MIN && self.learned_per_s >= RATE_JUDGED_MIN_PER_S;
        self.slow_windows = if slow && judged { self.slow_windows + 1 } else { 0 };
    }

    pub fn learned_per_s(&self) -> u64 {
        self.learned_per_s
    }

    /// Since when it is slow, if it is.
    pub fn slow_since(&self) -> TimeNs {
        self.slow_since
    }

    pub fn is_suspect(&self) -> bool {
        self.slow_windows > 0
    }

    pub fn is_slow(&self) -> bool {
        self.slow_windows >= SLOW_WINDOWS
    }
}
