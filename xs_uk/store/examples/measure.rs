//! Measures the state machine alone: `cargo run --release -p xs_store --example measure`.
#![allow(clippy::print_stdout, reason = "a measurement prints")]

use std::time::Instant;

use xs_protocol::{Header, MessageType as T};
use xs_store::{Config, ConnId, Effect, EntryRef, Peer, Store};

const TOOLS: ConnId = ConnId(1);
const BATCHES: u32 = 200;

struct Bench {
    store: Store,
    index: u64,
    effects: Vec<Effect>,
}

impl Bench {
    fn new() -> Bench {
        let mut bench = Bench { store: Store::new(Config::default()), index: 0, effects: Vec::new() };
        bench.apply(EntryRef::Connect { conn: TOOLS, peer: Peer::Socket });
        bench
    }

    fn apply(&mut self, entry: EntryRef<'_>) {
        self.index += 1;
        self.effects.clear();
        self.store.apply(self.index, entry, &mut self.effects);
        self.store.trim(TOOLS, u64::MAX);
    }

    fn read(&self, kind: T, payload: &[u8], out: &mut Vec<u8>) {
        let header = Header { kind, req_id: 0, tx_id: 0, len: 0 };
        self.store.read(TOOLS, &header, payload, out).expect("undamaged");
    }

    fn request(&mut self, kind: T, tx_id: u32, payload: &[u8]) {
        let header = Header { kind, req_id: 0, tx_id, len: 0 };
        let seq = self.index + 1;
        self.apply(EntryRef::Request { conn: TOOLS, seq, header, payload, verdict: None, ring_conn: None });
    }
}

fn report(what: &str, ns: f64) {
    println!("{what:<48} {ns:>10.0} ns");
}

/// The best of many short batches, so that other processes on the machine matter less.
fn measure(what: &str, rounds: u32, mut work: impl FnMut()) {
    let batch = (rounds / BATCHES).max(1);
    let best = (0..BATCHES)
        .map(|_| {
            let started = Instant::now();
            (0..batch).for_each(|_| work());
            started.elapsed().as_secs_f64() * 1e9 / f64::from(batch)
        })
        .fold(f64::INFINITY, f64::min);
    report(what, best);
}

fn main() {
    let mut bench = Bench::new();
    for domid in 0..1000 {
        for key in 0..20 {
            let payload = format!("/local/domain/{domid}/device/vif/{key}\0value");
            bench.request(T::WRITE, 0, payload.as_bytes());
        }
    }
    let rounds = 1_000_000;
    reads(&bench, "read, depth 6", rounds, T::READ, b"/local/domain/500/device/vif/7\0");
    reads(&bench, "read, depth 6, missing", rounds, T::READ, b"/local/domain/500/device/vif/77\0");
    measure("write, depth 6", rounds, || {
        bench.request(T::WRITE, 0, b"/local/domain/500/device/vif/7\0other");
    });
    watches(&mut bench);
    transactions(&mut bench);
    creations(&mut Bench::new());
    directories();
    removals();
}

fn reads(bench: &Bench, what: &str, rounds: u32, kind: T, payload: &[u8]) {
    let mut out = Vec::new();
    measure(what, rounds, || {
        out.clear();
        bench.read(kind, payload, &mut out);
    });
}

fn directories() {
    for children in [10u32, 20, 400, 10_000] {
        let mut bench = Bench::new();
        for number in 0..children {
            bench.request(T::WRITE, 0, format!("/d/child-{number}\0").as_bytes());
        }
        if children <= 400 {
            reads(&bench, &format!("directory of {children}"), 20_000, T::DIRECTORY, b"/d\0");
        }
        let name = format!("first part of a directory of {children}");
        reads(&bench, &name, 20_000, T::DIRECTORY_PART, b"/d\x000\0");
        reads(&bench, &format!("read in a directory of {children}"), 200_000, T::READ, b"/d/child-7\0");
        reads(&bench, &format!("read missing in a directory of {children}"), 200_000, T::READ, b"/d/none\0");
        measure(&format!("create and remove in a directory of {children}"), 100_000, || {
            bench.request(T::WRITE, 0, b"/d/more\0");
            bench.request(T::RM, 0, b"/d/more\0");
        });
    }
}

fn watches(bench: &mut Bench) {
    for number in 0..50_000 {
        let payload = format!("/local/domain/{}/device/vif/{}/w\0{number}\0", number % 1000, number % 20);
        bench.request(T::WATCH, 0, payload.as_bytes());
    }
    let rounds = 200_000;
    measure("write, depth 6, 50,000 watches that do not match", rounds, || {
        bench.request(T::WRITE, 0, b"/local/domain/500/device/vif/7\0other");
    });
    bench.request(T::WATCH, 0, b"/local/domain/500\0t\0");
    measure("write, depth 6, one event", rounds, || {
        bench.request(T::WRITE, 0, b"/local/domain/500/device/vif/7\0other");
    });
}

fn transactions(bench: &mut Bench) {
    let rounds: u32 = 50_000;
    let mut tx_id = 0;
    measure("transaction: start, read, write, commit", rounds, || {
        tx_id += 1;
        bench.request(T::TRANSACTION_START, 0, b"\0");
        bench.request(T::READ, tx_id, b"/local/domain/500/device/vif/7\0");
        bench.request(T::WRITE, tx_id, b"/local/domain/500/device/vif/7\0other");
        bench.request(T::TRANSACTION_END, tx_id, b"T\0");
    });
}

/// As the bench's line `tx-create-20`.
fn creations(bench: &mut Bench) {
    let paths: Vec<String> = (0..20).map(|child| format!("/bench/family/{child}\0value")).collect();
    let mut tx_id = 1;
    measure("transaction: start, 21 creations, commit; removal", 20_000, || {
        bench.request(T::TRANSACTION_START, 0, b"\0");
        bench.request(T::MKDIR, tx_id, b"/bench/family\0");
        paths.iter().for_each(|path| bench.request(T::WRITE, tx_id, path.as_bytes()));
        bench.request(T::TRANSACTION_END, tx_id, b"T\0");
        bench.request(T::RM, 0, b"/bench/family\0");
        tx_id += 1;
    });
}

/// Best of this many removals.
const REMOVALS: usize = 5;

fn removals() {
    for (children, nested) in [(30_000u32, false), (100_000, true)] {
        let mut best = [f64::INFINITY; 3];
        for _ in 0..REMOVALS {
            for (best, ns) in best.iter_mut().zip(removal(children, nested)) {
                *best = best.min(ns);
            }
        }
        let what = if nested { "a tree of 100,000 nodes" } else { "a directory of 30,000" };
        report(&format!("remove {what}"), best[0]);
        report("  the next request", best[1]);
        report("  freeing 1024 of them", best[2]);
    }
}

/// Nanoseconds of a removal, of the request behind it, and of freeing 1024 nodes.
fn removal(children: u32, nested: bool) -> [f64; 3] {
    let mut bench = Bench::new();
    for number in 0..children {
        let payload = if nested {
            format!("/d/{}/{}/{number}\0", number % 300, number % 7)
        } else {
            format!("/d/child-{number}\0")
        };
        bench.request(T::WRITE, 0, payload.as_bytes());
    }
    for number in 0..50_000 {
        bench.request(T::WATCH, 0, format!("/local/domain/{number}\0t\0").as_bytes());
    }
    let ns = |since: Instant| since.elapsed().as_secs_f64() * 1e9;
    let started = Instant::now();
    bench.request(T::RM, 0, b"/d\0");
    let removed = ns(started);
    let started = Instant::now();
    bench.request(T::WRITE, 0, b"/x\0");
    let next = ns(started);
    let started = Instant::now();
    let mut calls = 1;
    while bench.store.free_garbage(1024) {
        calls += 1;
    }
    [removed, next, ns(started) / f64::from(calls)]
}
