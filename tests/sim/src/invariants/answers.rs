//! No wrong answer: each answer is one to the request that waits, of its kind, in a form that the protocol knows.
//!
//! `docs/misc/xenstore.txt` in Xen. Whether the contents are right is for `linearizable` to say.

use crate::facts::Facts;

pub(super) fn check(facts: &Facts) -> Vec<String> {
    facts.wrong_answers.clone()
}
