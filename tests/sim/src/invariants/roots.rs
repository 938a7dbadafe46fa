//! Replicas that have applied the same entries have the same root, and they apply the same entries.
//!
//! Promised in `docs/ARCHITECTURE.md`, "The log" (deterministic replicas) and "Checked answers".

use crate::facts::Facts;

pub(super) fn check(facts: &Facts) -> Vec<String> {
    let entries = facts.other_entries.iter();
    let entries = entries.map(|(replica, index)| format!("replica {replica} has another entry {index}"));
    let roots = facts.other_roots.iter();
    let roots = roots.map(|(replica, index)| format!("replica {replica} has another root at {index}"));
    entries.chain(roots).collect()
}
