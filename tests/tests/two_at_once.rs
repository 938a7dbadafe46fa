//! No two deaths at once lose or repeat an answer or an event, or close a connection: not of sockets, not of rings.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tests::Victim::{Follower, Gateway, Leader, Warden};
use tests::{PairKiller, RawClient, Stand, Victim};
use xs_protocol::MessageType;

/// `PPVMM_TEST_SECONDS` makes the runs longer than in CI.
fn load_time() -> Duration {
    let seconds = std::env::var("PPVMM_TEST_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(8))
}

/// One connection that counts up under its own path, with a watch on it: each write is answered once, and gives one
/// event.
fn count_by_socket(client: &mut RawClient, path: &str, stop: &AtomicBool) -> u64 {
    client.write(path, "0").unwrap();
    client.request(MessageType::WATCH, 0, format!("{path}\0t\0").as_bytes()).unwrap();
    client.event().unwrap();
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(client.read(path).unwrap(), count.to_string());
        count += 1;
        client.write(path, &count.to_string()).unwrap();
        assert_eq!(client.event().unwrap().payload, format!("{path}\0t\0").as_bytes());
        assert_eq!(client.kept_events(), 0, "an event came twice");
    }
    count
}

fn count_by_ring(stand: &Stand, stop: &AtomicBool) -> u64 {
    let (_, mut guest) = stand.guest();
    guest.write("data/count", b"0").unwrap();
    guest.watch("data/count", "t").unwrap();
    guest.next_event(Duration::from_secs(20)).unwrap().expect("the first event");
    let mut count = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(guest.read("data/count").unwrap(), count.to_string().as_bytes());
        count += 1;
        guest.write("data/count", count.to_string().as_bytes()).unwrap();
        guest.next_event(Duration::from_secs(20)).unwrap().expect("an event for each write");
    }
    assert!(guest.next_event(Duration::from_millis(100)).unwrap().is_none(), "an event came twice");
    count
}

fn survive(pairs: &[&[Victim]], seed: u64) {
    let stand = Stand::start(&["--respawn"]);
    let (stop, total, until) = (AtomicBool::new(false), AtomicU64::new(0), Instant::now() + load_time());
    stand.client().write("/shared", "0").unwrap();
    let rounds = std::thread::scope(|scope| {
        for worker in 0..8 {
            // Connected before the first kill: a client that is being accepted at that instant may be closed.
            let mut client = stand.client();
            client.read("/").unwrap();
            let (stop, total) = (&stop, &total);
            scope.spawn(move || {
                total
                    .fetch_add(count_by_socket(&mut client, &format!("/c/{worker}"), stop), Ordering::Relaxed)
            });
        }
        for _ in 0..3 {
            scope.spawn(|| total.fetch_add(count_by_ring(&stand, &stop), Ordering::Relaxed));
        }
        std::thread::sleep(Duration::from_millis(300));
        let killer = scope.spawn(|| PairKiller::new(&stand, pairs, seed).run(&stop));
        while Instant::now() < until && !killer.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        killer.join().unwrap()
    });
    stand.run_stock("xenstore-control", &["check"]);
    let counted = total.into_inner();
    assert!(rounds > 3 && counted > 100, "{rounds} rounds, {counted} counted");
    eprintln!("{pairs:?}: {rounds} rounds, {counted} writes, each with a read and an event");
}

#[test]
fn the_warden_with_any_other_at_any_instant() {
    survive(&[&[Warden], &[Warden, Leader], &[Gateway, Warden], &[Follower, Warden], &[Leader, Warden]], 1);
}

#[test]
fn gateway_and_leader_at_once() {
    survive(&[&[Gateway, Leader], &[Leader, Gateway]], 2);
}

#[test]
fn any_other_two_at_once() {
    survive(&[&[Leader, Follower], &[Gateway, Follower], &[Follower], &[Gateway], &[Leader]], 3);
}

#[test]
fn a_warden_that_is_stopped_blames_nobody_when_it_goes_on() {
    let stand = Stand::start(&[]);
    let before = stand.status();
    let mut client = stand.client();
    for signal in ["stop", "cont"] {
        let warden = before["warden"]["pid"].to_string();
        assert!(
            std::process::Command::new("kill")
                .args([&format!("-{}", signal.to_uppercase()), &warden])
                .status()
                .unwrap()
                .success()
        );
        let until = Instant::now() + Duration::from_millis(2_500);
        while Instant::now() < until {
            client.write("/a", signal).unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let pids = |status: &serde_json::Value| -> Vec<_> {
        status["services"].as_array().unwrap().iter().map(|service| service["pid"].clone()).collect()
    };
    assert_eq!(pids(&stand.status()), pids(&before));
}
