//! How much a scrubber may do now.

use crate::limits::PACE_ARREARS_MAX_MS;

/// A rate in nodes per second. Time that was missed is made up for, up to [`PACE_ARREARS_MAX_MS`].
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    nodes_per_s: u32,
    last_ms: Option<u64>,
    /// Thousandths of nodes that are due and were not given.
    due_millinodes: u64,
}

impl Pace {
    /// At so many nodes per second; 0 is never.
    pub fn new(nodes_per_s: u32) -> Pace {
        Pace { nodes_per_s, last_ms: None, due_millinodes: 0 }
    }

    /// How many nodes are due at a time in milliseconds, of any origin. The first call only sets the clock; a clock
    /// that goes back gives none.
    pub fn due(&mut self, now_ms: u64) -> usize {
        let last_ms = self.last_ms.replace(now_ms).unwrap_or(now_ms);
        let passed_ms = now_ms.saturating_sub(last_ms).min(PACE_ARREARS_MAX_MS);
        self.due_millinodes += passed_ms * u64::from(self.nodes_per_s);
        let nodes = self.due_millinodes / 1000;
        self.due_millinodes %= 1000;
        usize::try_from(nodes).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn arrears_are_bounded() {
        let mut pace = Pace::new(500);
        assert_eq!(pace.due(1_000_000), 0);
        assert_eq!(pace.due(9_000_000), 500);
        assert_eq!(pace.due(8_000_000), 0);
        assert_eq!(Pace::new(0).due(5), 0);
    }

    proptest! {
        #[test]
        fn the_rate_holds_however_often_it_is_asked(
            nodes_per_s in 0u32..100_000, steps in proptest::collection::vec(0u64..=PACE_ARREARS_MAX_MS, 1..50),
        ) {
            let mut pace = Pace::new(nodes_per_s);
            pace.due(0);
            let (mut now_ms, mut nodes) = (0, 0);
            for step in steps {
                now_ms += step;
                nodes += pace.due(now_ms) as u64;
            }
            prop_assert_eq!(nodes, now_ms * u64::from(nodes_per_s) / 1000);
        }
    }
}
