//! What a measurement gives.

use std::time::Duration;

use serde::Serialize;

use crate::limits::LATENCIES_MAX;

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// The higher.
    Higher,
    /// The lower.
    Lower,
}

impl Better {
    /// Ours to theirs, over 1 if ours is better. `None` if there is no such number.
    pub fn ratio(self, ours: f64, theirs: f64) -> Option<f64> {
        let ratio = match self {
            Self::Higher => ours / theirs,
            Self::Lower => theirs / ours,
        };
        ratio.is_finite().then_some(ratio)
    }
}

/// A figure that a line gives.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figure {
    /// Its name within the line.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Which values are good.
    pub better: Better,
    /// Whether `--require` looks at it.
    pub main: bool,
}

impl Figure {
    /// One that `--require` looks at.
    pub const fn main(name: &'static str, unit: &'static str, better: Better) -> Self {
        Self { name, unit, better, main: true }
    }

    /// One for orientation.
    pub const fn other(name: &'static str, unit: &'static str, better: Better) -> Self {
        Self { name, unit, better, main: false }
    }
}

/// The latencies of one client.
#[derive(Debug, Default)]
pub struct Latencies {
    nanos: Vec<u32>,
    /// All that was done, noted or not.
    pub count: u64,
}

impl Latencies {
    /// With room for many, so that noting one never waits for memory.
    pub fn new() -> Self {
        Self { nanos: Vec::with_capacity(1 << 16), count: 0 }
    }

    /// Notes one.
    pub fn note(&mut self, latency: Duration) {
        self.count += 1;
        if self.nanos.len() < LATENCIES_MAX {
            self.nanos.push(u32::try_from(latency.as_nanos()).unwrap_or(u32::MAX));
        }
    }

    /// Those of several clients.
    pub fn merge(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().fold(Self::default(), |mut sum, one| {
            sum.count += one.count;
            sum.nanos.extend(one.nanos);
            sum
        })
    }

    /// Median, 99th percentile and worst, in microseconds; zeros if there are none.
    pub fn summary_us(mut self) -> [f64; 3] {
        self.nanos.sort_unstable();
        let last = self.nanos.len().saturating_sub(1);
        let at = |index: usize| self.nanos.get(index).map_or(0.0, |nanos| f64::from(*nanos) / 1e3);
        [at(last / 2), at(last * 99 / 100), at(last)]
    }
}

/// The middle of some values; `None` if there are none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (low, high) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

/// A value for people: three digits where they matter, whole numbers else.
pub fn number(value: f64) -> String {
    if value.abs() < 10.0 {
        format!("{value:.2}")
    } else if value.abs() < 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_over_one_for_the_better() {
        assert_eq!(Better::Higher.ratio(2.0, 1.0), Some(2.0));
        assert_eq!(Better::Lower.ratio(2.0, 1.0), Some(0.5));
        assert_eq!(Better::Lower.ratio(0.0, 0.0), None);
        assert_eq!([1.234, 12.34, 123.4].map(number), ["1.23", "12.3", "123"]);
    }

    #[test]
    fn percentiles_of_many_clients() {
        let client = |from: u64| {
            let mut latencies = Latencies::new();
            (from..from + 50).for_each(|us| latencies.note(Duration::from_micros(us)));
            latencies
        };
        let all = Latencies::merge([client(1), client(51)]);
        assert_eq!(all.count, 100);
        assert_eq!(all.summary_us(), [50.0, 99.0, 100.0]);
        assert_eq!(Latencies::new().summary_us(), [0.0; 3]);
    }

    #[test]
    fn what_is_over_the_bound_is_only_counted() {
        let mut latencies = Latencies { nanos: vec![1; LATENCIES_MAX], count: 7 };
        latencies.note(Duration::from_secs(1));
        assert_eq!((latencies.nanos.len(), latencies.count), (LATENCIES_MAX, 8));
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
