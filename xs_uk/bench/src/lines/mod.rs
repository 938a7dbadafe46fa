//! The lines of the benchmark.

mod delete;
mod guests;
mod nodes;
mod sync;
mod transactions;
mod watches;

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use figures::{Better, Figure, Latencies};
use peers::Daemon;

use crate::bare::Bare;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::limits::PIPELINE;

/// How much is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// How long a line that runs for a time does.
    pub time: Duration,
    /// Counts are divided by this.
    pub divisor: usize,
}

impl Scale {
    /// As the lines' names say.
    pub const FULL: Self = Self { time: Duration::from_millis(1500), divisor: 1 };
    /// For a check.
    pub const QUICK: Self = Self { time: Duration::from_millis(150), divisor: 20 };

    fn count(self, full: usize) -> usize {
        (full / self.divisor).max(1)
    }
}

type Measure = fn(&mut dyn Daemon, Scale) -> Result<Vec<f64>>;

/// A line.
#[derive(Clone, Copy)]
pub struct Line {
    /// Its name.
    pub name: &'static str,
    /// What is done.
    pub about: &'static str,
    /// What `measure` gives, in this order.
    pub figures: &'static [Figure],
    /// Rounds at most.
    pub rounds_max: u32,
    /// Does it once, on a store with nothing in it.
    pub measure: Measure,
    /// The bare puts to etcd that it is compared with, if the engine is etcd.
    pub bare: Option<Bare>,
}

impl Line {
    /// Each operation is one request that is logged.
    const fn beside_puts(self, clients: usize) -> Self {
        Self { bare: Some(Bare { clients, at_once: 1, in_turn: 1, counted: 1 }), ..self }
    }

    /// So many requests are under way; the latency is that of all of them.
    const fn beside_piped_puts(self, at_once: usize) -> Self {
        Self { bare: Some(Bare { clients: 1, at_once, in_turn: 1, counted: at_once }), ..self }
    }

    /// Each operation is so many requests that are logged, one after the other.
    const fn beside_puts_in_turn(self, in_turn: usize) -> Self {
        Self { bare: Some(Bare { clients: 1, at_once: 1, in_turn, counted: 1 }), ..self }
    }
}

const OPS: &[Figure] = &[
    Figure::main("rate", "1/s", Better::Higher),
    Figure::other("median", "us", Better::Lower),
    Figure::other("p99", "us", Better::Lower),
];

const BATCHES: &[Figure] = &[
    Figure::main("rate", "1/s", Better::Higher),
    Figure::other("batch median", "us", Better::Lower),
    Figure::other("batch p99", "us", Better::Lower),
];

const REMOVAL: &[Figure] = &[
    Figure::main("removal", "ms", Better::Lower),
    Figure::other("other median", "us", Better::Lower),
    Figure::other("other p99", "us", Better::Lower),
    Figure::main("other worst", "us", Better::Lower),
];

const SCALE: &[Figure] = &[
    Figure::main("create", "1/s", Better::Higher),
    Figure::main("read", "1/s", Better::Higher),
    Figure::main("write", "1/s", Better::Higher),
    Figure::other("PSS", "MiB", Better::Lower),
];

const fn line(
    name: &'static str,
    about: &'static str,
    figures: &'static [Figure],
    rounds_max: u32,
    measure: Measure,
) -> Line {
    Line { name, about, figures, rounds_max, measure, bare: None }
}

/// All lines in the order in which they are run.
#[rustfmt::skip]
pub const ALL: &[Line] = &[
    line("sync-read-1", "one client reads, one request at a time", OPS, u32::MAX, |d, s| sync::reads(d, s, 1)),
    line("sync-write-1", "one client writes, one request at a time", OPS, u32::MAX, |d, s| sync::writes(d, s, 1)).beside_puts(1),
    line("sync-read-8", "8 clients read, each one request at a time", OPS, u32::MAX, |d, s| sync::reads(d, s, 8)),
    line("sync-write-8", "8 clients write, each one request at a time", OPS, u32::MAX, |d, s| sync::writes(d, s, 8)).beside_puts(8),
    line("sync-read-64", "64 clients read", OPS, u32::MAX, |d, s| sync::reads(d, s, 64)),
    line("sync-write-64", "64 clients write", OPS, u32::MAX, |d, s| sync::writes(d, s, 64)).beside_puts(64),
    line("pipe-read", "one client reads, 32 requests under way", BATCHES, u32::MAX, sync::piped_reads),
    line("pipe-write", "one client writes, 32 requests under way", BATCHES, u32::MAX, sync::piped_writes).beside_piped_puts(PIPELINE),
    line("connect", "connect, read, close", OPS, u32::MAX, sync::connections),
    line("tx-rmw", "transactions of one read and one write", OPS, u32::MAX, transactions::increments).beside_puts_in_turn(4),
    line("tx-create-20", "transactions that create a node with 20 children", OPS, u32::MAX, transactions::creations),
    line("tx-parallel-16", "16 clients create siblings with 20 nodes each, 400 commits", transactions::PARALLEL, u32::MAX, transactions::siblings),
    line("watch-1k", "writes beside 1,000 watches elsewhere", OPS, u32::MAX, |d, s| watches::elsewhere(d, s, 1000)).beside_puts(1),
    line("watch-10k", "writes beside 10,000 watches elsewhere", OPS, u32::MAX, |d, s| watches::elsewhere(d, s, 10_000)).beside_puts(1),
    line("watch-50k", "writes beside 50,000 watches elsewhere", OPS, 3, |d, s| watches::elsewhere(d, s, 50_000)).beside_puts(1),
    line("rm-30k", "removal of a directory of 30,000 while another client reads", REMOVAL, 3, delete::wide),
    line("rm-100k", "removal of a subtree of 100,000 nodes while another client reads", REMOVAL, 3, delete::deep),
    line("memory-40", "memory of all the store's processes with 40 guests", guests::MEMORY, 2, guests::memory),
    line("guests-1000", "1,000 guests with rings", guests::MANY, 2, guests::many),
    line("nodes-1m", "a store of 1,000,000 nodes", SCALE, 1, nodes::million),
];

/// Runs `body` in a thread for each of `clients` at the same time; gives what they give and how long all took.
fn together<R: Send>(
    socket: &Path,
    clients: usize,
    body: impl Fn(usize, &mut Client) -> Result<R> + Sync,
) -> Result<(Vec<R>, Duration)> {
    let ready = Barrier::new(clients + 1);
    let one = |number: usize| {
        let client = Client::connect(socket);
        ready.wait();
        body(number, &mut client?)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|number| scope.spawn(move || one(number))).collect();
        ready.wait();
        let began = Instant::now();
        let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        let took = began.elapsed();
        let values: Result<Vec<R>> =
            outcomes.into_iter().map(|one| one.map_err(|_| Error::Thread).and_then(|value| value)).collect();
        Ok((values?, took))
    })
}

/// Repeats `once` for a time and notes how long each takes.
fn repeat(time: Duration, mut once: impl FnMut() -> Result<()>) -> Result<Latencies> {
    let mut latencies = Latencies::new();
    let began = Instant::now();
    let mut last = began;
    while last.duration_since(began) < time {
        once()?;
        let now = Instant::now();
        latencies.note(now - last);
        last = now;
    }
    Ok(latencies)
}

/// The figures of [`OPS`].
pub fn ops(latencies: Vec<Latencies>, took: Duration) -> Vec<f64> {
    let all = Latencies::merge(latencies);
    let rate = per_second(all.count, took);
    let [median, p99, _] = all.summary_us();
    vec![rate, median, p99]
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// Memory that the processes of a daemon have, shared pages counted in parts, in MiB.
fn pss_mib(daemon: &dyn Daemon) -> f64 {
    let kib: u32 = daemon.pids().iter().filter_map(|pid| pss_kib(*pid)).sum();
    f64::from(kib) / 1024.0
}

fn pss_kib(pid: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find(|line| line.starts_with("Pss:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different_and_every_line_has_a_main_figure() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|line| line.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.iter().all(|line| line.name == "memory-40" || line.figures.iter().any(|f| f.main)));
    }

    #[test]
    fn our_own_memory_is_found() {
        assert!(pss_kib(std::process::id()).is_some_and(|kib| kib > 100));
    }
}
