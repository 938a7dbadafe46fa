//! A bound on how often something is told for each service. Pure.

use std::collections::BTreeMap;

use crate::ids::{ServiceId, TimeUs};

const SECOND_MS: u64 = 1_000;

#[derive(Debug)]
struct Window {
    ends_at: TimeUs,
    taken: u32,
    left_out: u64,
}

/// At most so many in a second for each service, and for all that is about none.
#[derive(Debug)]
pub struct Rate {
    per_second: u32,
    windows: BTreeMap<Option<ServiceId>, Window>,
}

impl Rate {
    /// A bound of `per_second`.
    pub fn new(per_second: u32) -> Self {
        Self { per_second, windows: BTreeMap::new() }
    }

    /// Whether one more fits: none if not, else how many were left out since the last one that did.
    pub fn take(&mut self, now: TimeUs, service: Option<ServiceId>) -> Option<u64> {
        let fresh = || Window { ends_at: now.plus_ms(SECOND_MS), taken: 0, left_out: 0 };
        let window = self.windows.entry(service).or_insert_with(fresh);
        if now >= window.ends_at {
            *window = Window { left_out: window.left_out, ..fresh() };
        }
        if window.taken >= self.per_second {
            window.left_out += 1;
            return None;
        }
        window.taken += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_reached_and_what_exceeds_it_is_counted() {
        let mut rate = Rate::new(2);
        let (service, other) = (Some(ServiceId::Gateway), Some(ServiceId::Replica(0)));
        assert_eq!(rate.take(TimeUs(0), service), Some(0));
        assert_eq!(rate.take(TimeUs(0), service), Some(0));
        assert_eq!(rate.take(TimeUs(0), service), None);
        assert_eq!(rate.take(TimeUs(0), other), Some(0));
        assert_eq!(rate.take(TimeUs(0).plus_ms(SECOND_MS), service), Some(1));
    }
}
