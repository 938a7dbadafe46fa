//! A reply to a refused request came after all.
//!
//! With etcd cut off, a request waits longer than the bound and the client hears EIO; the slot notes the request's
//! number as refused. etcd comes back and the entry is committed. A successor dropped the reply that it found for the client if
//! the refused request was the last one logged. But the leader that had dropped the reply (its own copy of it) took another
//! request of that client, and died between that entry's commit and the slot's: for its successor the refused request
//! was not the last one, so the client got the old reply while it waited for another. The same came of two requests
//! of one client refused one after the other.
//!
//! The successor drops all replies but the newest if the newest is one to a later request:
//! `xs_store::Store::discard_refused`.

use sim::{Engine, Mutant, Options, run};

fn answers_are_right(seed: u64, mutant: Option<Mutant>) -> bool {
    let options = Options { mutant, ..Options::of_seed(seed, Engine::Etcd) };
    run(&options, false).unwrap().findings.iter().all(|finding| finding.invariant != "answers")
}

/// A seed's world changes with the harness. If the first assertion fails, look for a seed that shows the error again:
/// `sim --engine etcd --mutant refused-once`.
#[test]
fn a_later_request_was_logged() {
    assert!(!answers_are_right(8, Some(Mutant::RefusedOnce)));
    assert!(answers_are_right(8, None));
}
