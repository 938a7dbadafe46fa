//! Some sequences in every run of the tests. `PPVMM_TEST_SECONDS=1200` goes on for longer, with other seeds.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use differential::{Op, Profile, compare, generate, rules, run_all, shrink};
use peers::Kind;

const SEQUENCES: u64 = 12;
const LENGTH: usize = 100;

fn profile(seed: u64) -> Profile {
    if seed.is_multiple_of(3) { Profile::Tight } else { Profile::Stock }
}

fn finding(ops: &[Op], profile: Profile) -> Option<differential::Difference> {
    let [ours, c, ocaml] = run_all(ops, profile).unwrap();
    let with_c = compare(Kind::Xenstored, ops, &ours, &c).finding;
    // oxenstored's quotas have other meanings.
    let too = profile == Profile::Stock;
    with_c.or_else(|| too.then(|| compare(Kind::Oxenstored, ops, &ours, &ocaml).finding)?)
}

#[test]
fn only_the_listed_differences() {
    let seconds = std::env::var("PPVMM_TEST_SECONDS").ok().and_then(|text| text.parse().ok());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(0));
    let mut seed = 0;
    while seed < SEQUENCES || Instant::now() < until {
        seed += 1;
        let (ops, profile) = (generate(seed, LENGTH), profile(seed));
        if let Some(found) = finding(&ops, profile) {
            let ops = &ops[..ops.len().min(found.at + 1)];
            let shrunk = shrink(ops, |ops| {
                finding(ops, profile).is_some_and(|other| other.op == found.op && other.peer == found.peer)
            });
            let text: String = shrunk.iter().map(|op| format!("    {op}\n")).collect();
            panic!("seed {seed}, {profile:?}, {} operations:\n{text}{found}", shrunk.len());
        }
    }
}

#[test]
fn every_rule_is_in_the_document_and_the_other_way_round() {
    let document = include_str!("../../../docs/DIFFERENCES.md");
    let documented: BTreeSet<&str> = document.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let rules: BTreeSet<&str> = rules::ALL.iter().map(|rule| rule.name).collect();
    assert_eq!(documented, rules);
}
