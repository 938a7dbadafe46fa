//! Attack class C: guests that write without pause cannot keep dom0 from committing its transactions (XSA-206).
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hypervisor::DomId;
use sim_guest::Guest;
use tests::{RawClient, Stand};
use xs_protocol::MessageType as T;

/// The rule of the daemon: the first refusal holds whoever wrote there, the second everybody who wrote.
const TRIES_MAX: usize = 3;

/// How long the first two refusals hold them. Nothing is promised to a try that takes longer.
const HOLDS: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(100)];

/// Rounds that count, and rounds at most: on a busy machine many tries take longer than a hold.
const ROUNDS: usize = 60;
const ROUNDS_MAX: usize = 600;

fn payload(path: &str, value: &str) -> Vec<u8> {
    format!("{path}\0{value}").into_bytes()
}

/// One try of a transaction; false for EAGAIN.
fn attempt(client: &mut RawClient, body: &mut dyn FnMut(&mut RawClient, u32)) -> bool {
    let tx = client.request(T::TRANSACTION_START, 0, b"\0").unwrap();
    let tx: u32 = String::from_utf8_lossy(&tx).trim_end_matches('\0').parse().unwrap();
    body(client, tx);
    match client.request(T::TRANSACTION_END, tx, b"T\0") {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.to_string(), "EAGAIN");
            false
        }
    }
}

/// The tries that a commit took.
#[derive(Debug)]
struct Tries {
    count: usize,
    /// From before each refusal to behind the next one, or the commit. So the daemon's hold began later.
    between: Vec<Duration>,
}

impl Tries {
    /// Whether the tries that the promise is about were as quick as it asks for.
    fn are_quick(&self) -> bool {
        self.between.iter().zip(HOLDS).all(|(took, hold)| *took < hold)
    }
}

/// Tries until it is through.
fn commit(client: &mut RawClient, mut body: impl FnMut(&mut RawClient, u32)) -> Tries {
    let mut between = Vec::new();
    let mut refused: Option<Instant> = None;
    for count in 1..=100 {
        let mut ended = Instant::now();
        let through = attempt(client, &mut |client, tx| {
            body(client, tx);
            ended = Instant::now();
        });
        between.extend(refused.replace(ended).map(|at| at.elapsed()));
        if through {
            return Tries { count, between };
        }
    }
    panic!("no commit within 100 tries: {between:?}");
}

/// Writes without pause, as many requests under way as the ring takes.
fn flood(guest: &mut Guest, stop: &AtomicBool, written: &AtomicU64, node: &str) {
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        guest.write(node, number.to_string().as_bytes()).unwrap();
        number += 1;
        written.fetch_add(1, Ordering::Relaxed);
    }
}

fn floods(guests: &mut [(DomId, Guest)], body: impl FnOnce(&AtomicU64)) {
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for (_, guest) in guests {
            scope.spawn(|| flood(guest, &stop, &written, "data/hot"));
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&written)));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

/// dom0 reads what guests write without pause, thinks for a while, and commits something that depends on it.
#[test]
fn a_tool_commits_within_three_tries_against_guests_that_never_stop_writing() {
    let stand = Stand::start(&[]);
    let mut guests: Vec<_> = (0..3).map(|_| stand.guest()).collect();
    let paths: Vec<String> =
        guests.iter().map(|(domid, _)| format!("/local/domain/{domid}/data/hot")).collect();
    for (_, guest) in &mut guests {
        guest.write("data/hot", b"0").unwrap();
    }
    floods(&mut guests, |written| {
        let mut client = stand.client();
        let mut all = Vec::new();
        for round in 0..ROUNDS_MAX {
            let tries = commit(&mut client, |client, tx| {
                for path in &paths {
                    client.request(T::READ, tx, format!("{path}\0").as_bytes()).unwrap();
                }
                std::thread::sleep(Duration::from_millis(5));
                client.request(T::WRITE, tx, &payload("/tool/commits", &round.to_string())).unwrap();
            });
            if tries.are_quick() {
                assert!(tries.count <= TRIES_MAX, "{tries:?} in round {round}");
                all.push(tries.count);
            }
            if all.len() == ROUNDS {
                break;
            }
        }
        assert_eq!(all.len(), ROUNDS, "too busy a machine to tell anything");
        let contested = all.iter().filter(|tries| **tries > 1).count();
        assert!(contested > ROUNDS / 2, "the flood was no flood: {all:?}");
        let before = written.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(300));
        assert!(written.load(Ordering::Relaxed) > before + 100, "who was held goes on afterwards");
        eprintln!("tries {all:?}, {before} writes meanwhile");
    });
}

/// A slow tool: its transaction takes longer than the first hold. The hold grows until it is through.
#[test]
fn a_slow_tool_gets_through_too() {
    let stand = Stand::start(&[]);
    let mut guests = vec![stand.guest()];
    let path = format!("/local/domain/{}/data/hot", guests[0].0);
    guests[0].1.write("data/hot", b"0").unwrap();
    floods(&mut guests, |_| {
        let mut client = stand.client();
        let tries = commit(&mut client, |client, tx| {
            client.request(T::READ, tx, format!("{path}\0").as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(300));
            client.request(T::WRITE, tx, &payload("/tool/slow", "1")).unwrap();
        });
        // 50, 100, 200, 400 ms.
        assert!(tries.count <= 6, "{tries:?}");
    });
}

/// Guests that have nothing to do with a tool's conflict are not held for it; who caused it is, and not for ever.
#[test]
fn a_guest_that_wrote_elsewhere_goes_on() {
    let stand = Stand::start(&[]);
    let (mut hostile, mut innocent) = (stand.guest(), stand.guest());
    // On a busy machine a pause can be as long as the hold.
    let seen = (0..10).any(|_| {
        let conflict = one_conflict(&stand, &mut hostile, &mut innocent.1);
        let [innocent_took, hostile_took] = conflict;
        assert!(hostile_took < Duration::from_secs(5), "{hostile_took:?}");
        innocent_took * 4 < hostile_took
    });
    assert!(seen, "the innocent waits as long as the hostile");
}

/// Makes a tool's transaction fail; how long the next writes of two guests take, of which one is to blame.
fn one_conflict(stand: &Stand, (domid, hostile): &mut (DomId, Guest), innocent: &mut Guest) -> [Duration; 2] {
    hostile.write("data/hot", b"before").unwrap();
    let read = format!("/local/domain/{domid}/data/hot\0");
    let through = attempt(&mut stand.client(), &mut |client, tx| {
        client.request(T::READ, tx, read.as_bytes()).unwrap();
        hostile.write("data/hot", b"within").unwrap();
        innocent.write("data/own", b"within").unwrap();
    });
    assert!(!through);
    [innocent, hostile].map(|guest| {
        let began = Instant::now();
        guest.write("data/after", b"").unwrap();
        began.elapsed()
    })
}

/// What `xl create` does in the store, sixteen times at once, while guests flood.
#[test]
fn sixteen_parallel_vm_starts_get_through() {
    let stand = Stand::start(&[]);
    let mut guests: Vec<_> = (0..2).map(|_| stand.guest()).collect();
    floods(&mut guests, |_| {
        let began = Instant::now();
        let tries: Vec<Tries> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..16)
                .map(|number| {
                    let stand = &stand;
                    scope.spawn(move || start_vm(&mut stand.client(), 5000 + number))
                })
                .collect();
            starts.into_iter().flat_map(|start| start.join().unwrap()).collect()
        });
        // Siblings merge, so parallel starts do not even conflict.
        let broken = tries.iter().find(|tries| tries.are_quick() && tries.count > TRIES_MAX);
        assert!(broken.is_none(), "{broken:?}");
        let most = tries.iter().map(|tries| tries.count).max();
        eprintln!("16 starts in {:?}, at most {most:?} tries", began.elapsed());
    });
}

/// Three transactions: the domain's home, a device's two ends, the console.
fn start_vm(client: &mut RawClient, domid: u32) -> [Tries; 3] {
    let home = format!("/local/domain/{domid}");
    let backend = format!("/local/domain/0/backend/vif/{domid}/0");
    let sets: [Vec<String>; 3] = [
        ["", "/vm", "/name", "/cpu/0/availability", "/memory/target", "/control/shutdown"]
            .map(|below| format!("{home}{below}"))
            .to_vec(),
        ["/backend", "/backend-id", "/state", "/handle"]
            .map(|below| format!("{home}/device/vif/0{below}"))
            .into_iter()
            .chain(["/frontend", "/state", "/mac"].map(|below| format!("{backend}{below}")))
            .collect(),
        ["/port", "/limit", "/type"].map(|below| format!("{home}/console{below}")).to_vec(),
    ];
    sets.map(|set| {
        commit(client, |client, tx| {
            for path in &set {
                client.request(T::WRITE, tx, &payload(path, "1")).unwrap();
            }
        })
    })
}
