//! Durations by size, within 1/16 of their value.

use serde::Serialize;

const SUB_BITS: u32 = 4;
const SUBS: usize = 1 << SUB_BITS;
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) * SUBS;

/// Counts of durations.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    most: u64,
}

/// A summary, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say all")]
pub struct Latency {
    pub count: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], count: 0, most: 0 }
    }
}

impl Histogram {
    /// Counts a duration.
    pub fn add(&mut self, ns: u64) {
        self.counts[bucket(ns)] += 1;
        self.count += 1;
        self.most = self.most.max(ns);
    }

    /// The summary. A quantile is the least value of its bucket's successor, and at most the maximum.
    pub fn summary(&self) -> Latency {
        let [p50_ns, p99_ns, p999_ns] = [500, 990, 999].map(|permille| self.quantile(permille));
        Latency { count: self.count, p50_ns, p99_ns, p999_ns, max_ns: self.most }
    }

    fn quantile(&self, permille: u64) -> u64 {
        let rank = (self.count * permille).div_ceil(1000);
        let mut sum = 0;
        for (number, count) in self.counts.iter().enumerate() {
            sum += count;
            if sum >= rank && *count > 0 {
                return end(number).min(self.most);
            }
        }
        self.most
    }
}

fn bucket(ns: u64) -> usize {
    let exponent = (64 - ns.leading_zeros()).saturating_sub(SUB_BITS + 1);
    (exponent as usize) * SUBS + usize::try_from(ns >> exponent).expect("below 2 * SUBS")
}

fn end(bucket: usize) -> u64 {
    let exponent = (bucket / SUBS).saturating_sub(1);
    let sub = (bucket - exponent * SUBS + 1) as u128;
    u64::try_from(sub << exponent).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_hold_their_values() {
        let mut last = 0;
        for shift in 0..64 {
            for ns in [1u64 << shift, (1u64 << shift) + (1u64 << shift) / 3] {
                let bucket = bucket(ns);
                assert!(bucket >= last && bucket < BUCKETS, "{ns}");
                last = bucket;
                assert!(end(bucket) > ns || end(bucket) == u64::MAX, "{ns}");
                assert!(end(bucket) - ns <= ns / 8 + 1, "{ns} to {}", end(bucket));
            }
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_are_near() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.summary(), Latency::default());
        (1..=1000).for_each(|n| histogram.add(n * 1000));
        let latency = histogram.summary();
        assert!((500_000..560_000).contains(&latency.p50_ns), "{latency:?}");
        assert!((990_000..=1_000_000).contains(&latency.p99_ns), "{latency:?}");
        assert_eq!((latency.count, latency.max_ns), (1000, 1_000_000));
    }
}
