//! The stock clients of Debian's packages work against the store, unchanged.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use tests::Stand;

#[test]
fn reads_writes_lists_permissions_and_removal() {
    let stand = Stand::start(&[]);
    stand.run_stock("xenstore-write", &["/e2e/a", "one", "/e2e/b/c", "two"]);
    assert_eq!(stand.run_stock("xenstore-read", &["/e2e/a", "/e2e/b/c"]), "one\ntwo\n");
    assert_eq!(stand.run_stock("xenstore-list", &["/e2e"]), "a\nb\n");
    stand.run_stock("xenstore-chmod", &["/e2e/a", "n0", "r7"]);
    let listing = stand.run_stock("xenstore-ls", &["-f", "-p", "/e2e"]);
    assert!(listing.contains("/e2e/a = \"one\"") && listing.contains("(n0,r7)"), "{listing}");
    stand.run_stock("xenstore-exists", &["/e2e/b/c"]);
    stand.run_stock("xenstore-rm", &["/e2e"]);
    assert!(!stand.stock("xenstore-exists").arg("/e2e").status().unwrap().success());
}

#[test]
fn xenstore_watch_sees_a_change() {
    let stand = Stand::start(&[]);
    let mut watch =
        stand.stock("xenstore-watch").args(["-n", "2", "/seen"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "/seen");
    stand.run_stock("xenstore-write", &["/seen/x", "1"]);
    assert_eq!(lines.next().unwrap().unwrap(), "/seen/x");
    assert!(watch.wait().unwrap().success());
}

#[test]
fn xenstore_control_answers() {
    let stand = Stand::start(&[]);
    stand.run_stock("xenstore-control", &["check"]);
    assert!(stand.run_stock("xenstore-control", &["help"]).contains("quota"));
    assert!(stand.run_stock("xenstore-control", &["quota"]).contains("nodes"));
}

#[test]
fn the_status_shows_one_leader_and_two_followers() {
    let stand = Stand::start(&[]);
    let status = stand.status();
    let roles: Vec<&str> = status["services"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|service| service["role"].as_str())
        .collect();
    for (role, count) in [("leader", 1), ("follower", 2), ("gateway", 1)] {
        assert_eq!(roles.iter().filter(|have| **have == role).count(), count, "{role}: {status}");
    }
}

#[test]
fn xenstore_rs_works() {
    let stand = Stand::start(&[]);
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_xenstore-rs-client"))
        .env("XENSTORED_PATH", stand.socket())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}
