//! What was counted and measured.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// What one client counted.
#[derive(Debug, Default, Serialize)]
pub struct Tally {
    /// Events that came as they must.
    pub events: u64,
    /// Acknowledged changes that are not there at the end.
    pub lost: u64,
    /// Answers that are not what the store must hold.
    pub wrong: u64,
    /// Events that never came.
    pub lost_events: u64,
    /// Events for something else than what was due.
    pub wrong_events: u64,
    /// Events beyond those due.
    pub repeated_events: u64,
    /// Connections that were closed.
    pub closed: u64,
    /// Requests without any answer in time.
    pub silent: u64,
    /// Requests refused with EIO, which an engine without its quorum gives.
    pub refused: u64,
    /// Commits that met a conflict, which is no fault.
    pub conflicts: u64,
    /// Increments of the common counter with an unknown outcome.
    pub unknown_increments: u64,
    /// Findings in words.
    pub findings: Vec<String>,
    #[serde(skip)]
    latencies_us: Vec<u32>,
}

impl Tally {
    /// Notes how long an operation took.
    pub fn latency(&mut self, took: Duration) {
        self.latencies_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    /// Adds another client's counts.
    pub fn add(&mut self, other: Tally) {
        self.events += other.events;
        self.lost += other.lost;
        self.wrong += other.wrong;
        self.lost_events += other.lost_events;
        self.wrong_events += other.wrong_events;
        self.repeated_events += other.repeated_events;
        self.closed += other.closed;
        self.silent += other.silent;
        self.refused += other.refused;
        self.conflicts += other.conflicts;
        self.unknown_increments += other.unknown_increments;
        self.findings.extend(other.findings);
        self.latencies_us.extend(other.latencies_us);
    }

    /// Whether anything happened that must not.
    pub fn is_clean(&self) -> bool {
        self.lost + self.wrong + self.lost_events + self.wrong_events + self.repeated_events == 0
            && self.closed + self.silent == 0
    }

    /// Latencies of all operations.
    pub fn latencies(&self) -> Spread {
        Spread::of(self.latencies_us.iter().map(|us| u64::from(*us)).collect())
    }
}

/// Median, 99th percentile and worst of some times.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// The median in microseconds.
    pub median_us: u64,
    /// The 99th percentile in microseconds.
    pub p99_us: u64,
    /// The worst in microseconds.
    pub worst_us: u64,
}

impl Spread {
    /// Of times in microseconds.
    pub fn of(mut times_us: Vec<u64>) -> Self {
        times_us.sort_unstable();
        let at =
            |part: usize| times_us.get((times_us.len() * part / 100).min(times_us.len().saturating_sub(1)));
        Self {
            count: times_us.len(),
            median_us: at(50).copied().unwrap_or(0),
            p99_us: at(99).copied().unwrap_or(0),
            worst_us: times_us.last().copied().unwrap_or(0),
        }
    }
}

impl Spread {
    /// For people.
    pub fn line(&self) -> String {
        let Self { count, median_us, p99_us, worst_us } = self;
        format!("median {median_us:>8} us  p99 {p99_us:>8} us  worst {worst_us:>8} us  ({count})")
    }
}

/// The whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of this form. 2: restoration by kind of fault.
    pub version: u32,
    /// The engine that kept the log.
    pub engine: String,
    /// The seed of faults and load.
    pub seed: u64,
    /// Clients by socket and by ring.
    pub clients: [usize; 2],
    /// How long each pauses between two operations.
    pub pause_us: u64,
    /// Seconds that the load ran.
    pub seconds: f64,
    /// Faults by their names.
    pub faults: BTreeMap<String, u64>,
    /// Operations of all clients.
    pub operations: u64,
    /// What the clients counted.
    pub tally: Tally,
    /// Value of the common counter, and the increments acknowledged.
    pub counter: [u64; 2],
    /// The store's own check: lines of complaint.
    pub check: Vec<String>,
    /// From a fault to its detection, by kind of fault. A flipped bit is detected when somebody reads it, or by a
    /// scrubber that comes by.
    pub detection: BTreeMap<String, Spread>,
    /// From the detection to service (a leader's death, by the next leader), or until what was hit is ready or mended.
    pub restoration: BTreeMap<String, Spread>,
    /// From a fault until every client has had an answer, by kind of fault.
    pub outage: BTreeMap<String, Spread>,
    /// Latency of operations.
    pub latency: Spread,
    /// Whether nothing happened that must not.
    pub passed: bool,
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let mut lines = vec![format!(
            "{} faults in {:.0} s under {} operations of {} socket and {} ring clients that pause {} us, engine {}, seed {}",
            self.faults.values().sum::<u64>(),
            self.seconds,
            self.operations,
            self.clients[0],
            self.clients[1],
            self.pause_us,
            self.engine,
            self.seed
        )];
        lines.extend(self.faults.iter().map(|(name, count)| format!("  {count:>6} {name}")));
        let t = &self.tally;
        lines.push(format!(
            "lost {}, wrong {}, lost events {}, wrong events {}, repeated events {}, closed {}, silent {}, EIO {}",
            t.lost, t.wrong, t.lost_events, t.wrong_events, t.repeated_events, t.closed, t.silent, t.refused
        ));
        lines.push(format!(
            "common counter {} of {} acknowledged ({} unknown), {} conflicts, {} events",
            self.counter[0], self.counter[1], t.unknown_increments, t.conflicts, t.events
        ));
        let tables =
            [("detected", &self.detection), ("restored", &self.restoration), ("all served", &self.outage)];
        for (what, spreads) in tables {
            lines.extend(
                spreads.iter().map(|(name, spread)| format!("  {what:<10} {name:<22} {}", spread.line())),
            );
        }
        lines.push(format!("  {:<33} {}", "operation", self.latency.line()));
        lines.extend(self.check.iter().chain(&t.findings).map(|text| format!("  ! {text}")));
        lines.push(if self.passed { "passed".into() } else { "FAILED".into() });
        lines.join("\n")
    }
}
