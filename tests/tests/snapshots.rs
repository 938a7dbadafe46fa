//! The log stays bounded: snapshots let old entries go, and a fresh replica starts from one.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::{Duration, Instant};

use tests::Stand;
use xs_protocol::MessageType;

const WAIT: Duration = Duration::from_secs(20);

fn snapshot_index(stand: &Stand) -> u64 {
    stand.status()["snapshot_index"].as_u64().unwrap_or_default()
}

/// Enough writes for several snapshots, pipelined; gives the last value.
fn fill(stand: &Stand, rounds: u32) -> String {
    let mut client = stand.client();
    let filler = "x".repeat(1500);
    for round in 0..rounds {
        for i in 0..16 {
            let payload = format!("/fill/{i}\0{round} {filler}");
            client.send(MessageType::WRITE, 0, payload.as_bytes()).unwrap();
        }
        for _ in 0..16 {
            assert_eq!(client.answer().unwrap().kind, MessageType::WRITE);
        }
    }
    format!("{} {filler}", rounds - 1)
}

#[test]
fn a_long_run_takes_snapshots_and_every_replica_can_lead_from_one() {
    let stand = Stand::start(&[]);
    // 1,000 rounds of 16 writes of 1.6 kB are 25 MB of log: more than the bound for a snapshot several times over.
    let last = fill(&stand, 1000);
    let began = Instant::now();
    while snapshot_index(&stand) == 0 {
        assert!(began.elapsed() < WAIT, "no snapshot: {}", stand.status());
        std::thread::sleep(Duration::from_millis(50));
    }
    // Each leader in turn dies, so the last one to lead started from the snapshot.
    for turn in 0..4 {
        assert!(stand.ppvmm(&["inject", "kill", "leader"]).status.success());
        assert_eq!(stand.client().read("/fill/15").unwrap(), last, "turn {turn}");
        std::thread::sleep(Duration::from_millis(300));
    }
    stand.run_stock("xenstore-control", &["check"]);
}

#[test]
fn the_gateway_may_die_and_its_clients_stay_connected() {
    let stand = Stand::start(&[]);
    let mut client = stand.client();
    client.request(MessageType::WATCH, 0, b"/g\0t\0").unwrap();
    client.event().unwrap();
    for turn in 0..5 {
        assert!(stand.ppvmm(&["inject", "kill", "gateway"]).status.success());
        client.write("/g", &turn.to_string()).unwrap();
        assert_eq!(client.event().unwrap().payload, b"/g\0t\0");
        // The listening socket outlives the gateway, so a new client waits instead of being refused.
        assert_eq!(stand.client().read("/g").unwrap(), turn.to_string());
        // The new gateway has the old clients again: they outlive the next leader too.
        std::thread::sleep(Duration::from_millis(200));
        assert!(stand.ppvmm(&["inject", "kill", "leader"]).status.success());
        client.write("/g", "after").unwrap();
        assert_eq!(client.event().unwrap().payload, b"/g\0t\0");
    }
    assert_eq!(client.kept_events(), 0);
}

/// The memory of the kept snapshots, newest first, through the warden's descriptors.
fn kept_snapshots(stand: &Stand) -> Vec<std::path::PathBuf> {
    let warden = stand.status()["warden"]["pid"].as_u64().unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{warden}/fd")).unwrap().flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        if target.to_string_lossy().starts_with("/memfd:snapshot") {
            let bytes = std::fs::read(entry.path()).unwrap();
            // The place in the log, whose first word is the index, is behind the mark, the version and a zero.
            found.push((u64::from_le_bytes(bytes[16..24].try_into().unwrap()), entry.path()));
        }
    }
    found.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
    found.dedup_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, path)| path).collect()
}

#[test]
fn a_damaged_snapshot_is_passed_over_for_the_older_one() {
    let stand = Stand::start(&[]);
    let mut last = String::new();
    let began = Instant::now();
    while kept_snapshots(&stand).len() < 2 {
        assert!(began.elapsed() < WAIT, "no two snapshots: {}", stand.status());
        last = fill(&stand, 300);
    }
    let snapshots = kept_snapshots(&stand);
    let mut bytes = std::fs::read(&snapshots[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::os::unix::fs::FileExt::write_all_at(
        &std::fs::File::options().write(true).open(&snapshots[0]).unwrap(),
        &bytes,
        0,
    )
    .unwrap();
    assert!(stand.ppvmm(&["inject", "kill", "follower"]).status.success());
    let events = || String::from_utf8_lossy(&stand.ppvmm(&["events"]).stdout).into_owned();
    while !events().contains("snapshot_dropped") {
        assert!(began.elapsed() < WAIT * 2, "the damage was not noticed: {}", events());
        std::thread::sleep(Duration::from_millis(20));
    }
    // A fresh one takes the place of the damaged one, and whoever starts from it can lead.
    while kept_snapshots(&stand).len() < 2 {
        assert!(began.elapsed() < WAIT * 2, "no fresh snapshot: {}", events());
        // Two may have been taken at the same entry, at the end of the log: the next one needs another entry.
        last = fill(&stand, 20);
    }
    for turn in 0..3 {
        std::thread::sleep(Duration::from_millis(300));
        assert!(stand.ppvmm(&["inject", "kill", "leader"]).status.success());
        assert_eq!(stand.client().read("/fill/15").unwrap(), last, "turn {turn}");
    }
    stand.run_stock("xenstore-control", &["check"]);
}
