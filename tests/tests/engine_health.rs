//! How the engine fares is seen from outside: in the status, in `grpc.health.v1`, in events.
//!
//! Real etcd members are stopped as they are (SIGSTOP) and go on. Bounds: what the engine calls slow is two poll intervals
//! (300 ms here), the leader looks ten times a second, and each member is asked once in a status interval (600 ms).

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::{Duration, Instant};

use etcd_stand::{EtcdStand, StandOptions};
use serde_json::Value;
use tests::Stand;

/// Far more than the bounds, for machines with other work.
const WAIT: Duration = Duration::from_secs(10);

fn start(etcd: &EtcdStand) -> Stand {
    start_with(etcd, "60000", "memory")
}

fn start_with(etcd: &EtcdStand, request_wait_ms: &str, ack: &str) -> Stand {
    let endpoints = etcd.endpoints().join(",");
    Stand::start(&[
        "--engine",
        "etcd",
        "--etcd-endpoints",
        &endpoints,
        "--etcd-poll-interval-ms",
        "300",
        "--etcd-status-interval-ms",
        "600",
        "--request-wait-ms",
        request_wait_ms,
        "--etcd-ack",
        ack,
    ])
}

/// What `ppvmm health xs_uk.engine` says, with its exit status.
fn health(stand: &Stand) -> (String, Option<i32>) {
    let output = stand.ppvmm(&["health", "xs_uk.engine"]);
    (String::from_utf8(output.stdout).unwrap().trim().to_owned(), output.status.code())
}

fn engine(stand: &Stand) -> Value {
    stand.status()["engine"].clone()
}

fn wait_until(stand: &Stand, what: &str, is: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < WAIT, "never {what}: {}", stand.status());
        std::thread::sleep(Duration::from_millis(50));
    }
    began.elapsed()
}

fn wait_serving(stand: &Stand, serving: bool) -> Duration {
    let expected = if serving { ("SERVING", Some(0)) } else { ("NOT_SERVING", Some(4)) };
    wait_until(stand, expected.0, || health(stand) == (expected.0.to_owned(), expected.1))
}

/// Kinds of all events, with their details.
fn events(stand: &Stand) -> Vec<String> {
    let output = stand.ppvmm(&["events", "-o", "json"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let engine = events.filter(|event| event["kind"] == "engine_changed");
    engine.map(|event| event["detail"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_embedded_engine_is_healthy() {
    let stand = Stand::start(&[]);
    wait_serving(&stand, true);
    assert_eq!((&engine(&stand)["name"], &engine(&stand)["health"]), (&"embedded".into(), &"healthy".into()));
    assert_eq!(events(&stand), Vec::<String>::new());
}

#[test]
fn a_stopped_member_is_seen_and_that_it_goes_on_too() {
    let etcd = EtcdStand::start_in_memory(1, StandOptions::default()).unwrap();
    let stand = start(&etcd);
    wait_serving(&stand, true);
    let mut client = stand.client();
    client.write("/a", "1").unwrap();
    wait_until(&stand, "latency", || engine(&stand)["latency_us"].as_u64().is_some());
    for _ in 0..2 {
        etcd.stop(0);
        wait_serving(&stand, false);
        wait_until(&stand, "without quorum", || engine(&stand)["health"] == "no_quorum");
        assert_eq!(engine(&stand)["members"][0]["reachable"], false);
        assert_eq!(client.read("/a").unwrap(), "1", "reads need no log, unlike a client that comes");
        assert_eq!(stand.ppvmm(&["health"]).status.code(), Some(0), "the store as a whole goes on");
        etcd.cont(0);
        wait_serving(&stand, true);
    }
    client.write("/a", "2").unwrap();
    let events = events(&stand);
    assert!(events.iter().any(|detail| detail.starts_with("etcd is without quorum")), "{events:?}");
    assert!(events.last().unwrap().starts_with("etcd is healthy"), "{events:?}");
}

#[test]
fn one_member_of_three_is_missed_and_no_outage_and_a_second_one_is() {
    let etcd = EtcdStand::start_in_memory(3, StandOptions::default()).unwrap();
    let stand = start(&etcd);
    wait_serving(&stand, true);
    let reachable = || {
        let members = engine(&stand)["members"].as_array().cloned().unwrap_or_default();
        members.iter().filter(|member| member["reachable"] == true).count()
    };
    wait_until(&stand, "all there", || reachable() == 3);
    etcd.stop(0);
    wait_until(&stand, "one away", || reachable() == 2);
    wait_serving(&stand, true);
    stand.client().write("/a", "1").unwrap();
    etcd.stop(1);
    wait_serving(&stand, false);
    etcd.cont(0);
    etcd.cont(1);
    wait_serving(&stand, true);
    wait_until(&stand, "all back", || reachable() == 3);
}

#[test]
fn another_leader_of_the_members_is_told() {
    let mut etcd = EtcdStand::start_in_memory(3, StandOptions::default()).unwrap();
    let stand = start(&etcd);
    let leads = || {
        let members = engine(&stand)["members"].as_array().cloned().unwrap_or_default();
        members.iter().position(|member| member["leads"] == true)
    };
    wait_until(&stand, "led", || leads().is_some());
    etcd.kill(leads().unwrap());
    wait_until(&stand, "led by another", || engine(&stand)["leader_changes"] == 1);
    let events = events(&stand);
    assert!(events.iter().any(|detail| detail.contains("led by")), "{events:?}");
}

#[test]
fn a_replica_that_waits_for_the_engine_to_lead_tells_of_it() {
    let etcd = EtcdStand::start_in_memory(1, StandOptions::default()).unwrap();
    let stand = start_with(&etcd, "60000", "etcd");
    wait_serving(&stand, true);
    assert!(stand.ppvmm(&["inject", "kill", "leader"]).status.success());
    wait_serving(&stand, true);
    etcd.stop(0);
    wait_serving(&stand, false);
    // The one that is told to lead cannot, and tells why.
    assert!(stand.ppvmm(&["inject", "kill", "leader"]).status.success());
    std::thread::sleep(Duration::from_secs(1));
    wait_until(&stand, "without quorum", || engine(&stand)["health"] == "no_quorum");
    etcd.cont(0);
    wait_serving(&stand, true);
    stand.client().write("/a", "1").unwrap();
}

/// What memory acknowledged outlives the leader although etcd never had it; how much etcd lacks is in the status.
#[test]
fn with_etcd_away_the_store_goes_on_for_a_while_and_so_do_its_leaders() {
    let etcd = EtcdStand::start_in_memory(1, StandOptions::default()).unwrap();
    let stand = start_with(&etcd, "20000", "memory");
    let lag = || engine(&stand)["lag_entries"].as_u64();
    let mut client = stand.client();
    client.write("/a", "0").unwrap();
    wait_until(&stand, "copied", || lag() == Some(0));
    etcd.stop(0);
    for round in 1..4 {
        let value = round.to_string();
        client.write("/a", &value).unwrap();
        wait_until(&stand, "behind", || lag().is_some_and(|lag| lag >= round));
        let epoch = stand.status()["epoch"].as_u64().unwrap();
        assert!(stand.ppvmm(&["inject", "kill", "leader"]).status.success());
        wait_until(&stand, "led by another", || stand.status()["epoch"].as_u64() > Some(epoch));
        assert_eq!(client.read("/a").unwrap(), value);
    }
    etcd.cont(0);
    wait_until(&stand, "copied again", || lag() == Some(0));
}

#[test]
fn with_etcd_away_for_too_long_changes_are_refused_and_reads_are_not() {
    let etcd = EtcdStand::start_in_memory(1, StandOptions::default()).unwrap();
    let stand = start_with(&etcd, "1000", "memory");
    let mut client = stand.client();
    client.write("/a", "0").unwrap();
    etcd.stop(0);
    let began = Instant::now();
    while client.write("/a", "1").is_ok() {
        assert!(began.elapsed() < WAIT, "never refused: {}", stand.status());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(client.read("/a").unwrap(), "1");
    etcd.cont(0);
    wait_until(&stand, "copied", || engine(&stand)["lag_entries"] == 0);
    client.write("/a", "2").unwrap();
}

/// What somebody else put into the same etcd.
struct Ballast(tokio::runtime::Runtime, etcd_client::Client);

impl Ballast {
    /// As much as there is room for, down to the last page.
    fn fill(etcd: &EtcdStand) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let mut client = etcd_client::Client::connect(etcd.endpoints(), None).await.unwrap();
            for (count, bytes) in [(13, 1 << 20), (usize::MAX, 2 << 10)] {
                for i in 0..count {
                    if client.put(format!("ballast{bytes}/{i}"), vec![0; bytes], None).await.is_err() {
                        break;
                    }
                }
            }
            client
        });
        Self(runtime, client)
    }

    fn remove(mut self) {
        let options = etcd_client::DeleteOptions::new().with_prefix();
        self.0.block_on(self.1.delete("ballast", Some(options))).unwrap();
    }
}

#[test]
fn an_etcd_without_room_is_seen_and_that_it_has_some_again_too() {
    let tiny = StandOptions { quota_bytes: Some(16 << 20), ..StandOptions::default() };
    let etcd = EtcdStand::start_in_memory(1, tiny).unwrap();
    let stand = start(&etcd);
    wait_serving(&stand, true);
    let ballast = Ballast::fill(&etcd);
    stand.client().write("/a", "0").unwrap();
    wait_until(&stand, "without room", || engine(&stand)["health"] == "no_space");
    wait_serving(&stand, false);
    let warnings = engine(&stand)["warnings"].as_array().unwrap().clone();
    assert!(warnings.iter().any(|warning| warning["kind"] == "no_space"), "{warnings:?}");
    assert_eq!(stand.ppvmm(&["health"]).status.code(), Some(0), "the store as a whole goes on");
    ballast.remove();
    // Making room pauses for seconds between its steps.
    let has_room = || health(&stand).0 == "SERVING" && engine(&stand)["health"] == "healthy";
    let began = Instant::now();
    while !has_room() {
        assert!(began.elapsed() < 4 * WAIT, "never room again: {}", stand.status());
        std::thread::sleep(Duration::from_millis(100));
    }
    stand.client().write("/a", "1").unwrap();
    let events = events(&stand);
    assert!(events.iter().any(|detail| detail.contains("room")), "{events:?}");
}
