//! With an engine that takes its time, the order of the log is still the order of what happened.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::{Duration, Instant};

use etcd_stand::{EtcdStand, StandOptions};
use tests::{RawClient, Stand};
use xs_protocol::MessageType;

const WAIT: Duration = Duration::from_secs(20);

/// What the store answers when it is there again.
fn answer_after_eio(client: &mut RawClient, kind: MessageType, payload: &[u8]) -> Result<Vec<u8>, String> {
    let began = Instant::now();
    loop {
        match client.request(kind, 0, payload) {
            Err(error) if error.to_string() == "EIO" => assert!(began.elapsed() < WAIT, "EIO for ever"),
            other => return other.map_err(|error| error.to_string()),
        }
    }
}

/// While etcd commits nothing, a domain's end cannot be logged. A request that came just after etcd went on was logged
/// before that end, and met the domain.
#[test]
fn no_request_goes_ahead_of_the_end_of_a_domain() {
    let etcd = EtcdStand::start_in_memory(1, StandOptions::default()).unwrap();
    let stand = Stand::start(&[
        "--engine",
        "etcd",
        "--etcd-endpoints",
        &etcd.endpoints().join(","),
        "--request-wait-ms",
        "500",
    ]);
    let mut client = stand.client();
    client.write("/waits", "not yet").unwrap();
    for round in 0..3 {
        let (domid, guest) = stand.guest();
        drop(guest);
        etcd.stop(0);
        // It stops soon, not at once.
        let began = Instant::now();
        while client.write("/waits", "in vain").map_err(|error| error.to_string()) != Err("EIO".to_owned()) {
            assert!(began.elapsed() < WAIT, "etcd goes on");
        }
        stand.hypervisor().destroy(domid).unwrap();
        // Long enough for the leader to look at the domains.
        std::thread::sleep(Duration::from_secs(1));
        etcd.cont(0);
        let release = format!("{domid}\0");
        let answer = answer_after_eio(&mut client, MessageType::RELEASE, release.as_bytes());
        assert_eq!(answer, Err("ENOENT".to_owned()), "round {round}: the domain was gone");
    }
}
