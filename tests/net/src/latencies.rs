//! Times of round trips.

use crate::limits::LATENCIES_MAX;

/// Times of round trips, each kept, so that medians are exact.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    nanos: Vec<u32>,
}

impl Latencies {
    /// Notes one.
    pub fn note(&mut self, ns: u64) {
        if self.nanos.len() < LATENCIES_MAX {
            self.nanos.push(u32::try_from(ns).unwrap_or(u32::MAX));
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.nanos.clear();
    }

    /// How many were kept, and their median and 99th percentile in nanoseconds; zeros if there are none.
    pub fn summary(&self) -> (usize, [u32; 2]) {
        let mut sorted = self.nanos.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(0);
        (sorted.len(), [at(last / 2), at(last * 99 / 100)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.summary(), (0, [0, 0]));
        (1..=100).rev().for_each(|ns| latencies.note(ns));
        assert_eq!(latencies.summary(), (100, [50, 99]));
    }

    #[test]
    fn the_bound_is_reached_and_kept() {
        let mut latencies = Latencies { nanos: vec![1; LATENCIES_MAX - 1] };
        latencies.note(u64::MAX);
        latencies.note(7);
        assert_eq!(latencies.nanos.len(), LATENCIES_MAX);
        assert_eq!(latencies.nanos.last(), Some(&u32::MAX));
    }
}
