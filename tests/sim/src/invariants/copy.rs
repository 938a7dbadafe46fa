//! etcd's copy of the log is the log, entry by entry, once faults have stopped.
//!
//! Promised in `docs/ARCHITECTURE.md`, "Engines". That it is complete within the bound is checked with the liveness.

use crate::facts::Facts;

pub(super) fn check(facts: &Facts) -> Vec<String> {
    facts.other_copies.iter().map(|index| format!("entry {index} is another one in etcd")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_entry_and_one_too_many_are_found() {
        let mut facts = Facts::default();
        facts.entries.insert(1, b"one".to_vec());
        facts.note_copy(1, b"one");
        assert_eq!(check(&facts), Vec::<String>::new());
        facts.note_copy(1, b"two");
        facts.note_copy(2, b"");
        assert_eq!(check(&facts).len(), 2);
    }
}
