//! How long a healthy process stands still now and then.

use super::Peak;
use crate::TimeNs;
use crate::limits::{STILL_CEILING_NS, STILL_RARE, STILL_TAIL_FACTOR, STILLS_KEPT_MAX};

/// Four buckets for each doubling: a quantile is exact to a fifth.
const BUCKETS_PER_OCTAVE: u64 = 4;
/// The first bucket holds all below 2^16 ns = 66 us.
const FIRST_OCTAVE: u64 = 16;
/// The last bucket begins above [`STILL_CEILING_NS`].
const BUCKETS: usize = 52;

/// The distribution of standstills that ended well. Bounded memory; old ones are forgotten.
#[derive(Clone, Debug)]
pub(super) struct Gaps {
    counts: [u64; BUCKETS],
    total: u64,
    peak: Peak,
}

impl Gaps {
    pub fn new() -> Self {
        Self { counts: [0; BUCKETS], total: 0, peak: Peak::default() }
    }

    pub fn learn(&mut self, now: TimeNs, gap_ns: u64) {
        self.counts[bucket(gap_ns)] += 1;
        self.total += 1;
        if self.total > STILLS_KEPT_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
        self.peak.note(now, gap_ns);
    }

    /// The length from which a standstill is taken for a hang.
    pub fn bound_ns(&self, now: TimeNs, floor_ns: u64) -> u64 {
        let tail = self.rare_ns().saturating_mul(STILL_TAIL_FACTOR);
        let outlier = self.peak.ns(now).saturating_mul(3) / 2;
        tail.max(outlier).min(STILL_CEILING_NS).max(floor_ns)
    }

    /// The length that all but one in [`STILL_RARE`] stay below.
    fn rare_ns(&self) -> u64 {
        let mut above = self.total / STILL_RARE;
        for (index, count) in self.counts.iter().enumerate().rev() {
            if *count > above {
                return upper_edge_ns(index);
            }
            above -= count;
        }
        0
    }
}

fn bucket(gap_ns: u64) -> usize {
    let octave = u64::from(gap_ns.max(1).ilog2());
    let Some(above) = octave.checked_sub(FIRST_OCTAVE) else { return 0 };
    let quarter = (gap_ns >> (octave - 2)) & (BUCKETS_PER_OCTAVE - 1);
    usize::try_from(above * BUCKETS_PER_OCTAVE + quarter).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

fn upper_edge_ns(index: usize) -> u64 {
    let next = index as u64 + 1;
    let (octave, quarter) = (FIRST_OCTAVE + next / BUCKETS_PER_OCTAVE, next % BUCKETS_PER_OCTAVE);
    (BUCKETS_PER_OCTAVE + quarter) << (octave - 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{MS, STILL_FLOOR_NS, STILL_PEAK_HALF_LIFE_NS};

    #[test]
    fn edges_lie_above_what_is_in_the_bucket() {
        for gap_ns in (0..200 * MS).step_by(99_991) {
            let edge = upper_edge_ns(bucket(gap_ns));
            assert!(edge > gap_ns && (gap_ns < 66_000 || edge <= gap_ns + gap_ns / 4 + 1), "{gap_ns} {edge}");
        }
        assert!(upper_edge_ns(BUCKETS - 2) > STILL_CEILING_NS);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_bound_has_a_floor_and_a_ceiling() {
        let mut gaps = Gaps::new();
        assert_eq!(gaps.bound_ns(TimeNs(0), STILL_FLOOR_NS), STILL_FLOOR_NS);
        for _ in 0..100 {
            gaps.learn(TimeNs(0), 2 * STILL_CEILING_NS);
        }
        assert_eq!(gaps.bound_ns(TimeNs(0), STILL_FLOOR_NS), STILL_CEILING_NS);
    }

    #[test]
    fn a_single_long_one_among_many_counts_as_a_peak_only() {
        let mut gaps = Gaps::new();
        for _ in 0..2_000 {
            gaps.learn(TimeNs(0), MS);
        }
        gaps.learn(TimeNs(0), 18 * MS);
        assert_eq!(gaps.bound_ns(TimeNs(0), STILL_FLOOR_NS), 27 * MS);
        let later = TimeNs(STILL_PEAK_HALF_LIFE_NS);
        assert_eq!(gaps.bound_ns(later, STILL_FLOOR_NS), STILL_FLOOR_NS);
    }

    #[test]
    fn the_counts_are_bounded_and_the_present_load_wins() {
        let mut gaps = Gaps::new();
        for _ in 0..STILLS_KEPT_MAX {
            gaps.learn(TimeNs(0), 20 * MS);
        }
        let later = TimeNs(10 * STILL_PEAK_HALF_LIFE_NS);
        for _ in 0..20 * STILLS_KEPT_MAX {
            gaps.learn(later, MS);
            assert!(gaps.total <= STILLS_KEPT_MAX);
        }
        assert_eq!(gaps.bound_ns(later, STILL_FLOOR_NS), STILL_FLOOR_NS);
    }
}
