//! What must hold of every run, one file each, each with where it is promised.

mod accounts;
mod acknowledged;
mod answers;
mod copy;
mod events;
mod fencing;
mod linearizable;
mod once;
mod processes;
mod recovery;
mod roots;

use serde::Serialize;

use crate::facts::Facts;
use crate::limits::FINDINGS_MAX;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which one.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

/// Whether the history was too uncertain to say whether it is linearizable.
pub fn is_undecided(facts: &Facts) -> bool {
    matches!(linearizable::verdict(facts), lin::Verdict::Undecided { .. })
}

type Check = fn(&Facts) -> Vec<String>;

const ALL: [(&str, Check); 11] = [
    ("accounts", accounts::check),
    ("acknowledged", acknowledged::check),
    ("answers", answers::check),
    ("copy", copy::check),
    ("events", events::check),
    ("fencing", fencing::check),
    ("linearizable", linearizable::check),
    ("once", once::check),
    ("processes", processes::check),
    ("recovery", recovery::check),
    ("roots", roots::check),
];

/// All that does not hold, up to [`FINDINGS_MAX`].
pub fn check(facts: &Facts) -> Vec<Finding> {
    let findings = ALL
        .iter()
        .flat_map(|(invariant, check)| check(facts).into_iter().map(|what| Finding { invariant, what }));
    findings.take(FINDINGS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_bounded() {
        let facts = Facts { wrong_answers: vec![String::new(); 2 * FINDINGS_MAX], ..Facts::default() };
        assert_eq!(check(&facts).len(), FINDINGS_MAX);
        assert_eq!(check(&Facts::default()), []);
    }
}
