//! No request is done twice: each sequence number of a connection is in the log once, without gaps that are no reads.
//!
//! Promised in `docs/ARCHITECTURE.md`, "Deaths": a new leader skips what was logged but not yet marked as consumed.

use crate::facts::Facts;

pub(super) fn check(facts: &Facts) -> Vec<String> {
    let twice = facts.requests.iter().filter(|(_, indices)| indices.len() > 1);
    twice
        .map(|((conn, seq), indices)| format!("request {seq} of connection {conn:#x} is at {indices:?}"))
        .collect()
}
