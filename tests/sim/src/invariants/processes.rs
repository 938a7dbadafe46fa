//! No process ends by itself but for two reasons: a leader was fenced, or a follower that was stopped for too long finds
//! that what it wants to read was let go, and starts anew from a snapshot.
//!
//! Damage of one copy of the log is mended (`docs/ARCHITECTURE.md`, "The log"); nothing else may end a process.

use crate::facts::Facts;

pub(super) fn check(facts: &Facts) -> Vec<String> {
    let allowed = ["is fenced by epoch", "was let go"];
    let failures = facts.failures.iter();
    failures.filter(|why| !allowed.iter().any(|reason| why.contains(reason))).cloned().collect()
}
