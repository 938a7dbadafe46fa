//! Quotas are accounted: what each domain is charged for is what it has.
//!
//! Promised in `docs/ARCHITECTURE.md`, "Hostile guests"; counted by `xs_store::Store::check`.

use crate::facts::Facts;

pub(super) fn check(facts: &Facts) -> Vec<String> {
    let finals = facts.finals.iter();
    finals
        .flat_map(|(replica, is)| is.faults.iter().map(move |fault| format!("replica {replica}: {fault}")))
        .collect()
}
