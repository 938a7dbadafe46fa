//! Worlds of many seeds, worlds twice, and worlds with an error built in.
//!
//! `SIM_SEEDS` sets the number of seeds for the embedded engine (a sixth of it runs with etcd, and a sixth with a log that is copied there), `SIM_FROM` the first.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use sim::{Engine, Mutant, Options, Report, run};

const SEEDS: u64 = 240;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let from = number("SIM_FROM", 0);
    from..from + count
}

fn world(seed: u64, engine: Engine) -> Report {
    run(&Options::of_seed(seed, engine), false).unwrap()
}

#[test]
fn nothing_is_found_with_the_embedded_engine() {
    for seed in seeds(number("SIM_SEEDS", SEEDS)) {
        let report = world(seed, Engine::Embedded);
        assert!(report.findings.is_empty(), "{report:#?}");
    }
}

#[test]
fn nothing_is_found_with_etcd() {
    for seed in seeds(number("SIM_SEEDS", SEEDS) / 6) {
        let report = world(seed, Engine::Etcd);
        assert!(report.findings.is_empty(), "{report:#?}");
    }
}

#[test]
fn nothing_is_found_with_a_log_that_is_copied_to_etcd() {
    for seed in seeds(number("SIM_SEEDS", SEEDS) / 6) {
        let report = world(seed, Engine::Copied);
        assert!(report.findings.is_empty(), "{report:#?}");
    }
}

/// A harness in which nothing happens would find nothing either.
#[test]
fn worlds_are_eventful() {
    let reports: Vec<Report> = (0..30).map(|seed| world(seed, Engine::Embedded)).collect();
    assert!(reports.iter().any(|report| report.leaders > 5), "leaders come and go");
    assert!(reports.iter().all(|report| report.operations > 50 && report.entries > 50));
    assert!(reports.iter().any(|report| report.snapshots > 1), "the log wraps around");
    assert!(reports.iter().any(|report| report.repairs > 0), "flipped bits of the log are met");
    let reports: Vec<Report> = (0..30).map(|seed| world(seed, Engine::Etcd)).collect();
    assert!(reports.iter().any(|report| report.uncertain > 0), "etcd is out of reach for too long");
    assert!(reports.iter().filter(|report| report.undecided).count() <= 3, "most histories can be judged");
    let reports: Vec<Report> = (0..30).map(|seed| world(seed, Engine::Copied)).collect();
    assert!(reports.iter().any(|report| report.leaders > 3), "leaders come and go");
    assert!(reports.iter().any(|report| report.uncertain > 0), "etcd is away for too long");
}

#[test]
fn equal_seeds_give_equal_traces() {
    for engine in [Engine::Embedded, Engine::Etcd, Engine::Copied] {
        let mut hashes: Vec<String> = Vec::new();
        for seed in 1000..1006 {
            let (first, second) = (world(seed, engine), world(seed, engine));
            assert_eq!(first.trace_hash, second.trace_hash, "{engine:?}, seed {seed}");
            assert_eq!(first.history, second.history);
            hashes.push(first.trace_hash);
        }
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 6, "different seeds give different traces");
    }
}

/// Each error must show in one of its first seeds, by one of the invariants that are there for it.
#[test]
fn built_in_errors_are_found() {
    let found = |mutant, engine, by: &[&str]| {
        (0..150).any(|seed| {
            let mut options = Options::of_seed(seed, engine);
            options.mutant = Some(mutant);
            if mutant == Mutant::NoFence {
                options.faults.pause_ppm = 30_000;
            }
            let findings = run(&options, false).unwrap().findings;
            findings.iter().any(|finding| by.contains(&finding.invariant))
        })
    };
    assert!(found(Mutant::ForgetLogged, Engine::Embedded, &["once"]));
    assert!(found(Mutant::AnswerFirst, Engine::Embedded, &["acknowledged"]));
    assert!(found(Mutant::AnswerFirst, Engine::Embedded, &["linearizable"]));
    assert!(found(Mutant::Redeliver, Engine::Embedded, &["events"]));
    assert!(found(Mutant::DeliveredTooMuch, Engine::Embedded, &["events"]));
    assert!(found(Mutant::LeadEarly, Engine::Embedded, &["once", "acknowledged", "events"]));
    assert!(found(Mutant::RefusedOnce, Engine::Etcd, &["answers"]));
    assert!(found(Mutant::OwnRoot, Engine::Embedded, &["roots"]));
    assert!(found(Mutant::NoFence, Engine::Embedded, &["fencing"]));
}

/// One client more than there is room for.
#[test]
fn clients_are_bounded() {
    let mut options = Options::of_seed(0, Engine::Embedded);
    options.clients = sim::limits::CLIENTS_MAX + 1;
    assert!(run(&options, false).is_err());
}
