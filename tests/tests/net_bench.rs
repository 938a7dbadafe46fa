//! `net_uk bench` measures all contenders, counts every frame, and tells so in a form that programs read.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::process::{Command, Output};

use tests::{binary, may_make_interfaces};

fn bench(args: &[&str]) -> Output {
    Command::new(binary("net_uk")).arg("bench").args(args).output().unwrap()
}

#[test]
fn quick_lines_have_figures_of_all_and_lose_nothing() {
    if !may_make_interfaces() {
        return;
    }
    let lines = "load-to-wire-64,load-from-wire-1514,rtt-64";
    let output = bench(&["--quick", "--rounds", "1", "--rate", "2000", "-o", "json", "--lines", lines]);
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines = report["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 3);
    for line in lines {
        for figure in line["figures"].as_array().unwrap() {
            let of = |who: &str| figure["medians"][who].as_f64();
            match figure["name"].as_str().unwrap() {
                "lost" | "doubled" | "reordered" => assert_eq!(of("net_uk"), Some(0.0), "{line}"),
                "rate" | "median" | "p99" => {
                    assert!(
                        ["net_uk", "plain", "driver", "veth"]
                            .iter()
                            .all(|who| of(who).is_some_and(|v| v > 0.0)),
                        "{line}"
                    );
                }
                "CPU shadow" | "CPU keeper" => {
                    let others = of("driver").is_none() && of("plain").is_none();
                    assert!(of("net_uk").is_some() && others, "{line}")
                }
                "CPU driver" => {
                    assert!(of("driver").is_some() && of("plain").is_some() && of("veth").is_none(), "{line}")
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_ratio_that_nobody_reaches_fails_with_1_and_nonsense_with_2() {
    assert_eq!(bench(&["--lines", "nonsense"]).status.code(), Some(2));
    assert_eq!(bench(&["--nonsense"]).status.code(), Some(2));
    assert_eq!(bench(&["--list"]).status.code(), Some(0));
    if may_make_interfaces() {
        let output = bench(&["--quick", "--rounds", "1", "--lines", "rtt-64", "--require", "1000"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("without a shadow"), "{output:?}");
    }
}
