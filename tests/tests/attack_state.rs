//! Attack class H: deaths in the middle of commits leave no orphan, no wrong account, and the same store everywhere.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::{Duration, Instant};

use tests::{Killer, RawClient, Stand};
use xs_protocol::MessageType as T;

const NODES: usize = 12;

/// Writes one value into several nodes, makes and removes subtrees, all in one transaction.
fn commit(client: &mut RawClient, worker: usize, round: u64) {
    loop {
        let tx = client.request(T::TRANSACTION_START, 0, b"\0").unwrap();
        let tx: u32 = String::from_utf8_lossy(&tx).trim_end_matches('\0').parse().unwrap();
        for node in 0..NODES {
            let payload = format!("/set/{worker}/{node}\0{round}");
            client.request(T::WRITE, tx, payload.as_bytes()).unwrap();
        }
        let payload = format!("/tree/{worker}/{}/a/b/c\0{round}", round % 5);
        client.request(T::WRITE, tx, payload.as_bytes()).unwrap();
        let payload = format!("/tree/{worker}/{}\0", (round + 2) % 5);
        client.request(T::RM, tx, payload.as_bytes()).unwrap();
        match client.request(T::TRANSACTION_END, tx, b"T\0") {
            Ok(_) => return,
            Err(error) => assert_eq!(error.to_string(), "EAGAIN"),
        }
    }
}

/// The whole store as text: paths, permissions, values.
fn dump(client: &mut RawClient, path: &str, text: &mut String) {
    let at = if path.is_empty() { "/" } else { path };
    let mut ask = |kind| {
        let answer = client.request(kind, 0, format!("{at}\0").as_bytes()).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let (value, perms, names) = (ask(T::READ), ask(T::GET_PERMS), ask(T::DIRECTORY));
    text.push_str(&format!("{at} {perms:?} {value:?}\n"));
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        dump(client, &format!("{path}/{name}"), text);
    }
}

fn whole(stand: &Stand) -> String {
    let mut text = String::new();
    dump(&mut stand.client(), "", &mut text);
    text
}

#[test]
fn deaths_in_the_middle_of_commits_leave_whole_commits() {
    let stand = Stand::start(&[]);
    let (_, mut guest) = stand.guest();
    let killer = Killer::start(&stand, "leader", [90, 210, 130, 50].map(Duration::from_millis).to_vec());
    let until = Instant::now() + Duration::from_secs(4);
    let rounds: Vec<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let stand = &stand;
                scope.spawn(move || {
                    let (mut client, mut round) = (stand.client(), 0);
                    while Instant::now() < until {
                        commit(&mut client, worker, round);
                        round += 1;
                    }
                    round
                })
            })
            .collect();
        while Instant::now() < until {
            guest
                .transaction(|guest, tx| {
                    guest.write_in(tx, "data/a/b", b"1")?;
                    guest.write_in(tx, "data/c/d", b"2")
                })
                .unwrap();
            guest.rm("data").unwrap();
        }
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let kills = killer.finish();
    assert!(kills.hits > 3, "{kills:?}");
    let mut client = stand.client();
    for (worker, rounds) in rounds.iter().enumerate() {
        for node in 0..NODES {
            let value = client.read(&format!("/set/{worker}/{node}")).unwrap();
            assert_eq!(value, (rounds - 1).to_string(), "worker {worker} node {node}");
        }
    }
    each_replica_is_the_same(&stand);
    eprintln!("{rounds:?} commits, {kills:?}");
}

/// Each replica leads in its turn; its accounts hold, and what it tells is what the others told.
fn each_replica_is_the_same(stand: &Stand) {
    let told = whole(stand);
    stand.check();
    for _ in 0..4 {
        let epoch = stand.epoch();
        assert!(stand.ppvmm(&["inject", "kill", "leader"]).status.success());
        let began = Instant::now();
        while stand.epoch() == epoch {
            assert!(began.elapsed() < Duration::from_secs(20), "no new leader");
            std::thread::sleep(Duration::from_millis(20));
        }
        stand.check();
        assert_eq!(whole(stand), told);
    }
}
