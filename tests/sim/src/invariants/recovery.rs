//! When faults stop, everything recovers within the bound: all clients get their answers, and all replicas come to the
//! same state.
//!
//! The liveness half of the test; the bounds are those of `Options::recovery_ms`.

use crate::facts::Facts;

pub(super) fn check(facts: &Facts) -> Vec<String> {
    facts.late.clone()
}
