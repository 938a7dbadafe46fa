//! `xs_uk bench` measures all three stores and tells so in a form that programs read.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::process::Command;

use tests::binary;

fn bench(args: &[&str]) -> std::process::Output {
    Command::new(binary("xs_uk")).arg("bench").args(args).output().unwrap()
}

#[test]
fn quick_lines_have_figures_of_all_three() {
    let output = bench(&[
        "--quick",
        "--rounds",
        "2",
        "-o",
        "json",
        "--lines",
        "sync-write-1,tx-rmw,memory-40,watch-1k",
    ]);
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines = report["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 4);
    for figure in lines.iter().flat_map(|line| line["figures"].as_array().unwrap()) {
        assert!(figure["ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{figure}");
        for store in ["xs_uk", "xenstored", "oxenstored"] {
            assert_eq!(figure["values"][store].as_array().unwrap().len(), 2, "{figure}");
        }
    }
}

#[test]
fn bare_puts_to_etcd_are_measured_beside_our_store() {
    let lines = "sync-write-8,pipe-write,tx-rmw,sync-read-1";
    let output = bench(&[
        "--quick", "--rounds", "1", "-o", "json", "--engine", "etcd", "--stores", "xs_uk", "--lines", lines,
    ]);
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for line in report["lines"].as_array().unwrap() {
        for figure in line["figures"].as_array().unwrap() {
            let ratio = figure["bare_etcd"]["ratio"].as_f64();
            assert_eq!(ratio.is_some_and(|ratio| ratio > 0.0), line["name"] != "sync-read-1", "{line}");
        }
    }
}

#[test]
fn a_ratio_that_nobody_reaches_fails_with_1_and_nonsense_with_2() {
    let output = bench(&["--quick", "--rounds", "1", "--lines", "sync-read-1", "--require", "1000"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(bench(&["--lines", "nonsense"]).status.code(), Some(2));
    assert_eq!(bench(&["--nonsense"]).status.code(), Some(2));
    assert_eq!(bench(&["--list"]).status.code(), Some(0));
}
