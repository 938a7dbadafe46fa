//! A replica whose state is wrong does not come to serve.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::fs::OpenOptions;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::Stand;
use xs_shm::Roots;

const WAIT: Duration = Duration::from_secs(20);

fn replicas(status: &Value) -> Vec<Value> {
    let services = status["services"].as_array().unwrap();
    services.iter().filter(|service| service["replica"].is_u64()).cloned().collect()
}

/// Waits until all replicas have applied the same entry; gives the replicas and that entry's index.
fn level(stand: &Stand) -> (Vec<Value>, u64) {
    let began = Instant::now();
    loop {
        let replicas = replicas(&stand.status());
        let applied: Vec<u64> = replicas.iter().map(|one| one["applied"].as_u64().unwrap()).collect();
        if applied.windows(2).all(|two| two[0] == two[1]) {
            return (replicas, applied[0]);
        }
        assert!(began.elapsed() < WAIT, "{applied:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn pid_of(service: &Value) -> u64 {
    service["pid"].as_u64().unwrap()
}

/// The memory in which replicas compare what they have, through the descriptor of one of them.
fn roots_of(pid: u64) -> Roots {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut descriptors = descriptors.map(|entry| entry.path());
    let is_roots = |path: &std::path::PathBuf| {
        std::fs::read_link(path).is_ok_and(|link| link.to_string_lossy().starts_with("/memfd:roots"))
    };
    let path = descriptors.find(is_roots).expect("a replica has the roots");
    Roots::open(OpenOptions::new().read(true).write(true).open(path).unwrap().into()).unwrap()
}

fn events(stand: &Stand) -> Vec<Value> {
    let output = stand.ppvmm(&["events", "-o", "json"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// When the leader dies before anybody has compared the last entry, the next one may be the one that is wrong. Here two
/// are made to say so of it, right before the leader is killed.
#[test]
fn a_new_leader_that_the_others_out_vote_does_not_serve() {
    let stand = Stand::start(&[]);
    let mut client = stand.client();
    client.write("/a", "1").unwrap();
    // A death that changes who is who would be another test.
    let (replicas, index) = level(&stand);
    let leader = replicas.iter().position(|one| one["role"] == "leader").unwrap();
    let next = (0..3).find(|number| *number != leader).unwrap();
    let roots = roots_of(pid_of(&replicas[leader]));
    let number = |number: usize| u32::try_from(number).unwrap();
    let own = roots.at(number(next), index).expect("the root after the last entry");
    for other in (0..3).filter(|number| *number != next) {
        assert_eq!(roots.at(number(other), index), Some(own));
        roots.note(number(other), index, &own.map(|byte| !byte));
    }
    let pid = Pid::from_raw(i32::try_from(pid_of(&replicas[leader])).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(client.read("/a").unwrap(), "1");
    client.write("/a", "2").unwrap();
    let events = events(&stand);
    let of = |kind: &str| events.iter().filter(|event| event["kind"] == kind).collect::<Vec<_>>();
    let promoted = of("leader_promoted");
    assert_eq!(promoted[1]["service"], format!("replica/{next}"), "{promoted:#?}");
    let epoch = &promoted[1]["epoch"];
    let served = of("leader_serving");
    assert!(served.iter().all(|event| event["epoch"] != *epoch), "it served: {served:#?}");
    assert!(served.len() >= 2, "somebody else does: {served:#?}");
}
