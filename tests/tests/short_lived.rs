//! A client that connects, asks and leaves gets its answer, whoever dies meanwhile: also one that the leader had only
//! just accepted, or that was asking for its first answer, when it was killed.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tests::Victim::{Follower, Gateway, Leader, Warden};
use tests::{PairKiller, Stand, Victim};

const WORKERS: u64 = 3;

/// `PPVMM_TEST_SECONDS` makes the runs longer than in CI.
fn load_time() -> Duration {
    let seconds = std::env::var("PPVMM_TEST_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(8))
}

/// `PPVMM_TEST_SEED` makes other pauses between the kills.
fn seed() -> u64 {
    std::env::var("PPVMM_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Counts up under its own path, with a fresh client for each read and each write; gives the number of clients.
fn count_up(stand: &Stand, path: &str, stop: &AtomicBool) -> u64 {
    stand.client().write(path, "0").unwrap();
    let (mut count, mut clients) = (0_u64, 1);
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..8 {
            assert_eq!(stand.client().read(path).unwrap(), count.to_string(), "client {clients}");
            clients += 1;
        }
        count += 1;
        stand.client().write(path, &count.to_string()).unwrap();
        clients += 1;
    }
    clients
}

fn survive(victims: &[&[Victim]]) {
    let stand = Stand::start(&["--respawn"]);
    let (stop, until) = (AtomicBool::new(false), Instant::now() + load_time());
    let (rounds, clients) = std::thread::scope(|scope| {
        let killer = scope.spawn(|| PairKiller::new(&stand, victims, seed()).run(&stop));
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (stand, stop) = (&stand, &stop);
                scope.spawn(move || count_up(stand, &format!("/c/{worker}"), stop))
            })
            .collect();
        while Instant::now() < until && !killer.is_finished() && !workers.iter().any(|worker| worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        let clients: u64 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        (killer.join().unwrap(), clients)
    });
    stand.run_stock("xenstore-control", &["check"]);
    assert!(rounds > 3 && clients > 100, "{rounds} rounds, {clients} clients");
    eprintln!("{victims:?}: {rounds} rounds, {clients} clients, each of them answered");
}

#[test]
fn under_kills_of_the_leader() {
    survive(&[&[Leader]]);
}

#[test]
fn under_kills_of_the_gateway_and_of_others_beside_the_leader() {
    survive(&[&[Gateway], &[Leader, Warden], &[Leader, Follower], &[Gateway, Warden]]);
}
