//! Stores with a fault, each of which the checker must find, and one without.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use lin::{History, Nodes, Operation, Request, Step, Verdict, check};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Each seventh read shows the state before the last change.
    StaleRead,
    /// Each seventh change is acknowledged and not done.
    LostChange,
    /// Each seventh change is done again after the next one.
    DoubleApply,
    /// Each seventh transaction is done only to its first step.
    TornTransaction,
}

/// A few clients on a few paths; values are unique, and each change is read back.
fn run(fault: Fault, seed: u64) -> History {
    let (mut nodes, mut before, mut again) = (Nodes::default(), Nodes::default(), None);
    let mut operations = Vec::new();
    let mut random = seed;
    for i in 0..200_u64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let path = |n: u64| format!("/t/k{}", (random >> 33).wrapping_add(n) % 4);
        let due = i % 7 == 6;
        let request = Request(match (i % 2, (random >> 40) % 3) {
            (1, _) => vec![Step::Read(path(0)), Step::Read(path(1))],
            (_, 0) => vec![Step::Write(path(0), i.to_string()), Step::Write(path(1), i.to_string())],
            (_, 1) => vec![Step::Rm("/t/k0".into()), Step::Write(path(1), i.to_string())],
            _ => vec![Step::Write(path(0), i.to_string())],
        });
        let is_change = request.0.iter().any(Step::is_change);
        let mut shown = nodes.clone();
        let mut outcome = shown.apply(&request);
        if is_change {
            let redo = again.take();
            before = std::mem::replace(&mut nodes, shown);
            match fault {
                Fault::LostChange if due => nodes = before.clone(),
                Fault::DoubleApply if due => again = Some(request.clone()),
                Fault::TornTransaction if due => {
                    nodes = before.clone();
                    nodes.apply(&Request(request.0[..1].to_vec()));
                }
                _ => {}
            }
            if let Some(redo) = redo {
                nodes.apply(&redo);
            }
        } else if fault == Fault::StaleRead && i % 7 == 1 {
            outcome = before.apply(&request);
        }
        // Neighbours overlap a little, so that the search has something to choose.
        let (called, returned) = (10 * i, Some(10 * i + 5 + (random >> 50) % 9));
        let client = u32::try_from(i % 3).unwrap();
        operations.push(Operation { client, called, returned, request, outcome: Some(outcome) });
    }
    History { operations }
}

#[test]
fn a_store_without_fault_passes() {
    for seed in 0..20 {
        assert_eq!(check(&run(Fault::None, seed)), Verdict::Linearizable, "seed {seed}");
    }
}

#[test]
fn each_fault_is_found() {
    for fault in [Fault::StaleRead, Fault::LostChange, Fault::DoubleApply, Fault::TornTransaction] {
        for seed in 0..20 {
            let verdict = check(&run(fault, seed));
            assert!(matches!(verdict, Verdict::NotLinearizable(_)), "{fault:?}, seed {seed}: {verdict:?}");
        }
    }
}
