//! Roots that replicas noted, by log index: which replica differs from the others.

use std::collections::BTreeMap;

use crate::{
    Digest,
    limits::HISTORY_MAX,
    vote::{self, Verdict},
};

/// What the noted roots say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// No two replicas noted different roots for an index.
    Agreement,
    /// Some differ, but too few have noted that index to tell who is right.
    Undecided {
        /// The lowest such index.
        index: u64,
    },
    /// More than half agree, and some do not.
    Differs {
        /// The lowest such index.
        index: u64,
        /// The replicas that are out-voted.
        bad: Vec<usize>,
    },
    /// All have noted an index, and no more than half agree.
    Disputed {
        /// The lowest such index.
        index: u64,
    },
}

/// The roots of all replicas in a window of the highest indices noted.
#[derive(Clone, Debug)]
pub struct History {
    replicas: usize,
    window: usize,
    rows: BTreeMap<u64, Vec<Option<Digest>>>,
}

impl History {
    /// For so many replicas, keeping at most `window` indices, no more than [`HISTORY_MAX`].
    pub fn new(replicas: usize, window: usize) -> History {
        History { replicas, window: window.clamp(1, HISTORY_MAX), rows: BTreeMap::new() }
    }

    /// Notes a replica's root after the entry at `index`. One of an unknown replica, or below the window, is left out.
    pub fn note(&mut self, replica: usize, index: u64, root: Digest) {
        let full = self.rows.len() >= self.window;
        let below = self.rows.first_key_value().is_some_and(|(lowest, _)| index < *lowest);
        if replica >= self.replicas || full && below {
            return;
        }
        self.rows.entry(index).or_insert_with(|| vec![None; self.replicas])[replica] = Some(root);
        while self.rows.len() > self.window {
            self.rows.pop_first();
        }
    }

    /// Forgets what a replica noted: it starts anew.
    pub fn forget(&mut self, replica: usize) {
        for row in self.rows.values_mut() {
            if let Some(root) = row.get_mut(replica) {
                *root = None;
            }
        }
    }

    /// Compares, from the lowest index on.
    pub fn compare(&self) -> Comparison {
        let differing = self.rows.iter().find(|(_, row)| {
            let mut noted = row.iter().flatten();
            let first = noted.next();
            noted.any(|root| Some(root) != first)
        });
        let Some((&index, row)) = differing else { return Comparison::Agreement };
        match vote::roots(row) {
            Verdict::Majority { bad, .. } => Comparison::Differs { index, bad },
            Verdict::NoMajority if row.iter().all(Option::is_some) => Comparison::Disputed { index },
            Verdict::NoMajority => Comparison::Undecided { index },
        }
    }

    /// How many indices are kept.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn root(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    #[test]
    fn decided_when_enough_have_noted() {
        let mut history = History::new(3, 8);
        history.note(0, 5, root(1));
        assert_eq!(history.compare(), Comparison::Agreement);
        history.note(1, 5, root(2));
        assert_eq!(history.compare(), Comparison::Undecided { index: 5 });
        history.note(2, 5, root(2));
        assert_eq!(history.compare(), Comparison::Differs { index: 5, bad: vec![0] });
        history.forget(0);
        assert_eq!(history.compare(), Comparison::Agreement);
        history.note(0, 5, root(3));
        history.note(1, 5, root(4));
        assert_eq!(history.compare(), Comparison::Disputed { index: 5 });
    }

    #[test]
    fn the_window_is_bounded() {
        let mut history = History::new(2, usize::MAX);
        for index in 0..HISTORY_MAX as u64 + 10 {
            history.note(0, index, root(1));
        }
        history.note(1, 3, root(9));
        history.note(2, 3, root(9));
        assert_eq!((history.len(), history.compare()), (HISTORY_MAX, Comparison::Agreement));
        assert!(!history.is_empty());
    }

    proptest! {
        #[test]
        fn one_that_differs_is_found_whatever_the_order(
            notes in Just((0..3usize).flat_map(|replica| (0..6u64).map(move |index| (replica, index))).collect::<Vec<_>>()).prop_shuffle(),
            bad in 0usize..3, since in 0u64..6,
        ) {
            let mut history = History::new(3, 6);
            for (replica, index) in notes {
                let wrong = replica == bad && index >= since;
                history.note(replica, index, root(u8::try_from(index).unwrap() + 100 * u8::from(wrong)));
                match history.compare() {
                    Comparison::Differs { index, bad: blamed } => {
                        prop_assert!(index >= since);
                        prop_assert_eq!(blamed, vec![bad]);
                    }
                    Comparison::Disputed { index } => prop_assert!(false, "disputed at {}", index),
                    Comparison::Agreement | Comparison::Undecided { .. } => {}
                }
            }
            prop_assert_eq!(history.compare(), Comparison::Differs { index: since, bad: vec![bad] });
        }
    }
}
