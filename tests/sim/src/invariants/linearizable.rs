//! Histories are linearizable: there is one order of all requests and committed transactions, within the times that
//! clients saw, that explains every answer.
//!
//! Herlihy and Wing 1990. Promised by `docs/ARCHITECTURE.md`, "The log" (one log, commits by re-execution).

use lin::Verdict;

use crate::facts::Facts;
use crate::limits::CONFIGURATIONS_MAX;

/// Decides within [`CONFIGURATIONS_MAX`].
pub(super) fn verdict(facts: &Facts) -> Verdict {
    lin::check_bounded(&facts.history, CONFIGURATIONS_MAX)
}

pub(super) fn check(facts: &Facts) -> Vec<String> {
    match verdict(facts) {
        Verdict::Linearizable => Vec::new(),
        Verdict::NotLinearizable(finding) => {
            let last: Vec<_> = finding.longest.iter().rev().take(5).collect();
            vec![format!("no order explains {:?} after ... {last:?}", finding.stuck)]
        }
        // Many requests without a certain outcome: the report says so, it is no finding.
        Verdict::Undecided { .. } => Vec::new(),
    }
}
