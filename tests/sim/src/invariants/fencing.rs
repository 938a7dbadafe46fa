//! One leader for each epoch, epochs only grow, and nothing of an older one reaches a client after a newer one serves.
//!
//! Promised in `docs/ARCHITECTURE.md`: a leader is fenced by its death; the log refuses an append with an old epoch.

use crate::facts::Facts;

pub(super) fn check(facts: &Facts) -> Vec<String> {
    let mut wrong: Vec<String> = facts
        .leaders
        .windows(2)
        .filter(|pair| pair[1].0 <= pair[0].0)
        .map(|pair| format!("epoch {} of replica {} follows {:?}", pair[1].0, pair[1].1, pair[0]))
        .collect();
    wrong.extend(
        facts.late_sends.iter().map(|(replica, epoch, newer)| {
            format!("replica {replica} sends in epoch {epoch}, {newer} serves")
        }),
    );
    wrong
}
