//! Xen's own test program for stores (`test-xenstore` of xen-utils) passes, also while the leader is killed.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::{Duration, Instant};

use tests::{Killer, Stand};

fn run(stand: &Stand, iterations: &str) {
    let output =
        stand.stock("test-xenstore").args(["-i", iterations]).output().expect("test-xenstore starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn test_xenstore_passes() {
    run(&Stand::start(&[]), "1000");
}

#[test]
fn test_xenstore_passes_while_the_leader_is_killed_twice_a_second() {
    let stand = Stand::start(&[]);
    let killer = Killer::start(&stand, "leader", vec![Duration::from_millis(500)]);
    let began = Instant::now();
    let mut runs = 0;
    while began.elapsed() < Duration::from_secs(8) {
        run(&stand, "2000");
        runs += 1;
    }
    let kills = killer.finish();
    assert!(kills.hits >= 8, "{kills:?}");
    eprintln!("{runs} runs, {kills:?}");
}
