//! Under kills of the leader, every acknowledged request counts once and every event comes once.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::{Duration, Instant};

use tests::{Killer, RawClient, Stand};
use xs_protocol::MessageType;

/// `PPVMM_TEST_SECONDS` makes the runs longer than in CI.
fn load_time() -> Duration {
    let seconds = std::env::var("PPVMM_TEST_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

fn pauses() -> Vec<Duration> {
    [310, 170, 430, 90, 250].map(Duration::from_millis).to_vec()
}

/// Adds one to a counter in a transaction; gives the number of tries.
fn add_one(client: &mut RawClient, path: &str) -> u64 {
    for tries in 1.. {
        let tx = client.request(MessageType::TRANSACTION_START, 0, b"\0").expect("a transaction starts");
        let tx: u32 = String::from_utf8_lossy(&tx).trim_end_matches('\0').parse().expect("a transaction id");
        let value =
            client.request(MessageType::READ, tx, format!("{path}\0").as_bytes()).expect("the counter");
        let value: u64 = String::from_utf8_lossy(&value).parse().expect("a number");
        let payload = format!("{path}\0{}", value + 1);
        client.request(MessageType::WRITE, tx, payload.as_bytes()).expect("a write in a transaction");
        match client.request(MessageType::TRANSACTION_END, tx, b"T\0") {
            Ok(_) => return tries,
            Err(error) if error.to_string() == "EAGAIN" => {}
            Err(error) => panic!("commit: {error}"),
        }
    }
    unreachable!("the loop ends by return")
}

#[test]
fn increments_of_a_shared_counter_are_neither_lost_nor_repeated() {
    let stand = Stand::start(&[]);
    stand.client().write("/counter", "0").unwrap();
    let killer = Killer::start(&stand, "leader", pauses());
    let until = Instant::now() + load_time();
    let done: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let (mut client, mut done) = (stand.client(), 0);
                    while Instant::now() < until {
                        add_one(&mut client, "/counter");
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    let kills = killer.finish();
    assert!(kills.hits > 0 && stand.epoch() > kills.hits, "the leader was never hit: {kills:?}");
    assert_eq!(stand.client().read("/counter").unwrap(), done.to_string(), "{kills:?}");
    eprintln!("{done} increments, {kills:?}");
}

#[test]
fn every_write_gives_every_watcher_one_event_in_order() {
    let stand = Stand::start(&[]);
    let mut watcher = stand.client();
    watcher.request(MessageType::WATCH, 0, b"/events\0t\0").unwrap();
    assert_eq!(watcher.event().unwrap().payload, b"/events\0t\0");
    let killer = Killer::start(&stand, "leader", pauses());
    let until = Instant::now() + load_time();
    let (mut writer, mut written) = (stand.client(), 0_u64);
    while Instant::now() < until {
        writer.write(&format!("/events/{written}"), "x").unwrap();
        let event = watcher.event().unwrap();
        assert_eq!(String::from_utf8_lossy(&event.payload), format!("/events/{written}\0t\0"));
        assert_eq!(watcher.kept_events(), 0);
        writer.request(MessageType::RM, 0, format!("/events/{written}\0").as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&watcher.event().unwrap().payload),
            format!("/events/{written}\0t\0")
        );
        written += 1;
    }
    let kills = killer.finish();
    assert!(kills.hits > 0 && stand.epoch() > kills.hits, "the leader was never hit: {kills:?}");
    // Nothing more may come: the next thing that the watcher hears is its own answer.
    watcher.request(MessageType::UNWATCH, 0, b"/events\0t\0").unwrap();
    assert_eq!(watcher.kept_events(), 0);
    eprintln!("{written} writes and as many removals, {kills:?}");
}

#[test]
fn pipelined_requests_are_answered_once_and_in_order() {
    let stand = Stand::start(&[]);
    let killer = Killer::start(&stand, "leader", pauses());
    let until = Instant::now() + load_time();
    let (mut client, mut expected) = (stand.client(), 1_u32);
    while Instant::now() < until {
        for i in 0..32 {
            let kind = if i % 2 == 0 { MessageType::WRITE } else { MessageType::READ };
            let payload: &[u8] = if i % 2 == 0 { b"/p\0value" } else { b"/p\0" };
            client.send(kind, 0, payload).unwrap();
        }
        for _ in 0..32 {
            let answer = client.answer().unwrap();
            assert_eq!(answer.req_id, expected);
            assert_ne!(answer.kind, MessageType::ERROR);
            expected += 1;
        }
    }
    let kills = killer.finish();
    assert!(kills.hits > 0 && stand.epoch() > kills.hits, "the leader was never hit: {kills:?}");
    eprintln!("{} pipelined requests, {kills:?}", expected - 1);
}
