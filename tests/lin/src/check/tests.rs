use proptest::prelude::*;

use super::*;
use crate::xenstore::{Outcome, Reply, Request};

fn operation(called: u64, returned: Option<u64>, step: Step, reply: Option<Reply>) -> Operation {
    let outcome = reply.map(|reply| Outcome(vec![reply]));
    Operation { client: 0, called, returned, request: Request(vec![step]), outcome }
}

fn write(called: u64, returned: u64, value: &str) -> Operation {
    operation(called, Some(returned), Step::Write("/t/a".into(), value.into()), Some(Reply::Done))
}

fn lost(called: u64, value: &str) -> Operation {
    operation(called, None, Step::Write("/t/a".into(), value.into()), None)
}

fn read(called: u64, returned: u64, value: &str) -> Operation {
    operation(called, Some(returned), Step::Read("/t/a".into()), Some(Reply::Value(value.into())))
}

fn verdict(operations: Vec<Operation>) -> bool {
    match check(&History { operations }) {
        Verdict::Linearizable => true,
        Verdict::NotLinearizable(_) => false,
        Verdict::Undecided { .. } => panic!("small histories are decided"),
    }
}

#[test]
fn concurrent_operations_take_either_order() {
    assert!(verdict(vec![write(0, 10, "1"), write(1, 9, "2"), read(11, 12, "1")]));
    assert!(verdict(vec![write(0, 10, "1"), write(1, 9, "2"), read(11, 12, "2")]));
    assert!(!verdict(vec![write(0, 10, "1"), write(1, 9, "2"), read(11, 12, "1"), read(13, 14, "2")]));
}

#[test]
fn a_stale_read_is_found() {
    assert!(!verdict(vec![write(0, 1, "1"), write(2, 3, "2"), read(4, 5, "1")]));
}

#[test]
fn a_lost_write_is_found() {
    let missing = operation(2, Some(3), Step::Read("/t/a".into()), Some(Reply::Missing));
    assert!(!verdict(vec![write(0, 1, "1"), missing]));
}

#[test]
fn a_write_done_twice_is_found() {
    assert!(!verdict(vec![write(0, 1, "1"), write(2, 3, "2"), read(4, 5, "2"), read(6, 7, "1")]));
}

#[test]
fn what_had_no_answer_may_come_later_or_never_but_once() {
    assert!(verdict(vec![lost(0, "1"), write(1, 2, "2"), read(3, 4, "2"), read(5, 6, "1")]));
    assert!(verdict(vec![lost(0, "1"), write(1, 2, "2"), read(3, 4, "2")]));
    assert!(!verdict(vec![lost(0, "1"), write(1, 2, "2"), read(3, 4, "1"), read(5, 6, "2")]));
    assert!(!verdict(vec![write(0, 1, "2"), read(2, 3, "1"), lost(4, "1")]));
}

#[test]
fn a_transaction_is_one_operation_on_both_objects() {
    let both = |called, returned, value: &str| Operation {
        client: 0,
        called,
        returned: Some(returned),
        request: Request(vec![
            Step::Write("/t/a".into(), value.into()),
            Step::Write("/u/b".into(), value.into()),
        ]),
        outcome: Some(Outcome(vec![Reply::Done, Reply::Done])),
    };
    let read_b = |called, returned, value: &str| {
        operation(called, Some(returned), Step::Read("/u/b".into()), Some(Reply::Value(value.into())))
    };
    assert!(verdict(vec![both(0, 1, "1"), both(2, 9, "2"), read(3, 4, "2"), read_b(5, 6, "2")]));
    // By itself each of the two objects would allow this.
    assert!(!verdict(vec![both(0, 1, "1"), both(2, 9, "2"), read(3, 4, "2"), read_b(5, 6, "1")]));
}

#[test]
fn a_finding_tells_how_far_the_search_came() {
    let operations = vec![write(0, 1, "1"), write(2, 3, "2"), read(4, 5, "1")];
    let Verdict::NotLinearizable(finding) = check(&History { operations }) else { panic!("it is not") };
    assert_eq!((finding.longest.len(), finding.stuck.len()), (2, 1));
}

#[test]
fn the_bound_on_configurations_is_reached() {
    let operations = (0..20).map(|i| write(i, 100, &i.to_string())).chain([read(200, 201, "none")]).collect();
    let verdict = check_bounded(&History { operations }, 100);
    assert_eq!(verdict, Verdict::Undecided { operations: 21 });
}

/// All orders of all subsets that hold every answered operation.
fn brute_force(operations: &[Operation], nodes: &Nodes, done: &mut Vec<usize>) -> bool {
    let rest: Vec<usize> = (0..operations.len()).filter(|i| !done.contains(i)).collect();
    if rest.iter().all(|i| operations[*i].outcome.is_none()) {
        return true;
    }
    rest.iter().any(|i| {
        let operation = &operations[*i];
        let too_early =
            rest.iter().any(|j| operations[*j].returned.is_some_and(|end| end < operation.called));
        let mut after = nodes.clone();
        let outcome = after.apply(&operation.request);
        if too_early || operation.outcome.as_ref().is_some_and(|told| *told != outcome) {
            return false;
        }
        done.push(*i);
        let found = brute_force(operations, &after, done);
        done.pop();
        found
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    let path = proptest::sample::select(vec!["/t/a", "/t/a/x", "/t/b", "/t/b/y"]);
    (0..6, path, 0_u8..3).prop_map(|(kind, path, value)| match kind {
        0 | 1 => Step::Write(path.into(), value.to_string()),
        2 => Step::Rm(path.into()),
        3 => Step::Directory(path.into()),
        4 => Step::Exists(path.into()),
        _ => Step::Read(path.into()),
    })
}

/// Operations that one store did in their order, at times that make them overlap; then some replies are forgotten and
/// some are exchanged, so that about half of the histories are wrong.
fn any_history() -> impl Strategy<Value = Vec<Operation>> {
    let operation = (proptest::collection::vec(any_step(), 1..3), 0u64..25, 0u64..25, 0u32..8);
    (proptest::collection::vec(operation, 1..7), proptest::option::of((0usize..7, 0usize..7))).prop_map(
        |(drawn, exchange)| {
            let mut nodes = Nodes::default();
            let mut operations: Vec<Operation> = Vec::new();
            for (i, (steps, before, after, fate)) in drawn.into_iter().enumerate() {
                let (request, at) = (Request(steps), 30 + 10 * i as u64);
                // One in eight was never done, and one in eight was done without an answer.
                let outcome = if fate == 0 { None } else { Some(nodes.apply(&request)) };
                let outcome = outcome.filter(|_| fate > 1);
                let returned = outcome.is_some().then_some(at + after);
                operations.push(Operation { client: 0, called: at - before, returned, request, outcome });
            }
            if let Some((a, b)) = exchange.filter(|(a, b)| a.max(b) < &operations.len()) {
                let (first, second) = (operations[a].outcome.clone(), operations[b].outcome.clone());
                if first.is_some() && second.is_some() {
                    (operations[a].outcome, operations[b].outcome) = (second, first);
                }
            }
            operations
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_search_says_what_brute_force_says(operations in any_history()) {
        let expected = brute_force(&operations, &Nodes::default(), &mut Vec::new());
        prop_assert_eq!(verdict(operations), expected);
    }

    #[test]
    fn histories_survive_being_written(operations in any_history()) {
        let history = History { operations };
        let mut text = Vec::new();
        history.write_jsonl(&mut text).unwrap();
        prop_assert_eq!(History::read_jsonl(&String::from_utf8(text).unwrap()).unwrap(), history);
    }
}
