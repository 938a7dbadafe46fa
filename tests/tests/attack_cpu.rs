//! Attack class G: whatever one client makes the store do, the others are served in between.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tests::{RawClient, Stand};
use xs_protocol::MessageType as T;

/// Generous, for a machine that is busy with other tests; figures belong to the bench.
const P99_MAX: Duration = Duration::from_millis(50);
/// One pause of the machine is no fault of the store.
const WORST_MAX: Duration = Duration::from_secs(1);
const REQUESTS: usize = 1000;

/// A busy machine takes its time at any time; the store, if it does, takes it each time.
const ATTEMPTS: usize = 3;

/// Latencies of a tool and of a guest while an attack goes on in another thread.
fn others_are_served(stand: &Stand, what: &str, mut attack: impl FnMut() + Send) {
    let served = (0..ATTEMPTS).any(|_| {
        let all = measure(stand, &mut attack);
        all.into_iter().all(|(who, latencies)| {
            let (p99, worst) = (latencies[REQUESTS * 99 / 100], latencies[REQUESTS - 1]);
            eprintln!("{what}: {who} p99 {p99:?}, worst {worst:?}");
            p99 < P99_MAX && worst < WORST_MAX
        })
    });
    assert!(served, "{what}: others wait too long");
    stand.check();
}

fn measure(stand: &Stand, attack: &mut (impl FnMut() + Send)) -> [(&'static str, Vec<Duration>); 2] {
    let stop = AtomicBool::new(false);
    let (_, mut guest) = stand.guest();
    let mut client = stand.client();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                attack();
            }
        });
        let tool = latencies(|number| client.write("/other", &number.to_string()).unwrap());
        let ring = latencies(|number| guest.write("data/other", number.to_string().as_bytes()).unwrap());
        stop.store(true, Ordering::Relaxed);
        [("tool", tool), ("guest", ring)]
    })
}

/// Sorted times of requests.
fn latencies(mut request: impl FnMut(usize)) -> Vec<Duration> {
    let mut all: Vec<Duration> = (0..REQUESTS)
        .map(|number| {
            let began = Instant::now();
            request(number);
            // An attack has its effect between requests as well as under them.
            let took = began.elapsed();
            if number % 10 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            took
        })
        .collect();
    all.sort_unstable();
    all
}

fn send(client: &mut RawClient, kind: T, payload: &str) {
    client.request(kind, 0, payload.as_bytes()).unwrap();
}

/// Many requests at once, answers read afterwards.
fn pipelined(client: &mut RawClient, kind: T, payloads: impl Iterator<Item = String>) {
    let payloads: Vec<String> = payloads.collect();
    for batch in payloads.chunks(100) {
        for payload in batch {
            client.send(kind, 0, payload.as_bytes()).unwrap();
        }
        for _ in batch {
            client.answer().unwrap();
        }
    }
}

#[test]
fn a_large_table_of_watches() {
    let stand = Stand::start(&[]);
    let mut watching = stand.client();
    pipelined(&mut watching, T::WATCH, (0..20_000).map(|n| format!("/watched/{}/{n}\0t\0", n % 100)));
    let mut writing = stand.client();
    others_are_served(&stand, "20,000 watches", || send(&mut writing, T::WRITE, "/watched/7/107\0v"));
}

#[test]
fn a_wide_directory() {
    let stand = Stand::start(&[]);
    let mut client = stand.client();
    pipelined(&mut client, T::WRITE, (0..20_000).map(|n| format!("/wide/{n}\0v")));
    let mut number = 0;
    others_are_served(&stand, "20,000 children", || {
        number += 1;
        send(&mut client, T::WRITE, &format!("/wide/{}\0w", number % 20_000));
        send(&mut client, T::DIRECTORY_PART, &format!("/wide\0{}\0", number * 4001 % 100_000));
    });
}

#[test]
fn deep_paths_made_and_deleted() {
    let stand = Stand::start(&[]);
    let (_, mut guest) = stand.guest();
    let deep = vec!["x"; 900].join("/");
    others_are_served(&stand, "900 levels", || {
        guest.write(&deep, b"").unwrap();
        guest.rm("x").unwrap();
    });
}

#[test]
fn large_subtrees_deleted() {
    let stand = Stand::start(&[]);
    let mut client = stand.client();
    others_are_served(&stand, "deleting 5,000 nodes", || {
        pipelined(&mut client, T::WRITE, (0..5000).map(|n| format!("/large/{}/{n}\0v", n % 50)));
        send(&mut client, T::RM, "/large\0");
    });
}

#[test]
fn many_connections() {
    let stand = Stand::start(&[]);
    let _idle: Vec<RawClient> = (0..500).map(|_| stand.client()).collect();
    others_are_served(&stand, "connections that come and go", || {
        let mut all: Vec<RawClient> = (0..20).map(|_| stand.client()).collect();
        for client in &mut all {
            send(client, T::WATCH, "/other\0t\0");
        }
    });
}

/// A guest commits transactions of a thousand requests, each of which is executed again.
#[test]
fn long_transactions_that_are_executed_again() {
    let stand = Stand::start(&[]);
    let (_, mut guest) = stand.guest();
    others_are_served(&stand, "commits of 900 requests", || {
        let tx = guest.transaction_start().unwrap();
        for number in 0..900 {
            guest.write_in(tx, &format!("data/{}", number % 300), b"value").unwrap();
        }
        guest.write("data/elsewhere", b"").unwrap();
        // Its outcome is its own affair.
        let _ = guest.transaction_end(tx, true);
    });
}

/// The dearest requests to execute again: large answers, each compared by its digest.
#[test]
fn long_transactions_of_large_answers() {
    let stand = Stand::start(&[]);
    let (_, mut guest) = stand.guest();
    for child in 0..100 {
        guest.write(&format!("data/wide/{child:015}"), b"").unwrap();
    }
    guest.write("data/big", &[b'v'; 1900]).unwrap();
    let mut round = 0;
    others_are_served(&stand, "commits of 4,000 large answers", || {
        // The list is as long as it may be; only the commit is repeated, so most of the time goes there.
        round += 1;
        let tx = guest.transaction_start().unwrap();
        for number in 0..1333 {
            guest.write_in(tx, "data/x", &[u8::try_from(number % 251).unwrap()]).unwrap();
            guest.read_in(tx, "data/big").unwrap();
            guest.request(T::DIRECTORY, tx, &[b"data/wide\0"]).unwrap();
        }
        guest.write("data/elsewhere", format!("{round}").as_bytes()).unwrap();
        let began = Instant::now();
        let ended = guest.transaction_end(tx, true);
        eprintln!("a commit took {:?}: {ended:?}", began.elapsed());
    });
}
