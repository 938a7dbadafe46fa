//! Time, which is always an argument.

const NS_PER_MS: u64 = 1_000_000;

/// A point in time: nanoseconds of a clock that never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeNs(pub u64);

impl TimeNs {
    /// The point in time so many nanoseconds later.
    #[must_use]
    pub fn plus_ns(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// The point in time so many milliseconds later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        self.plus_ns(ms.saturating_mul(NS_PER_MS))
    }

    /// Nanoseconds from `earlier` to here, 0 if it is later.
    pub fn since_ns(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
