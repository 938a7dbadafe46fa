//! No acknowledged request is lost: what a client was told to be written is there at the end.
//!
//! Promised in `docs/ARCHITECTURE.md`, "Processes of the store" (the table of commit points) and "Deaths".

use crate::facts::Facts;

pub(super) fn check(facts: &Facts) -> Vec<String> {
    let mut lost = Vec::new();
    for (reader, names) in facts.listed.iter().enumerate() {
        for name in facts.acknowledged.difference(names) {
            lost.push(format!("/e/{name} was acknowledged; reader {reader} does not find it"));
        }
        for name in names
            .iter()
            .filter(|name| !facts.acknowledged.contains(*name) && !facts.uncertain.contains(*name))
        {
            lost.push(format!("/e/{name} is there; nobody was told so, nor left in doubt"));
        }
    }
    lost
}
