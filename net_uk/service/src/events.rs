//! What happens, for people and programs.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use net_watch::ladder::Part;
use serde::Serialize;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When, in nanoseconds of the monotonic clock.
    pub at_monotonic_ns: u64,
    /// When, in microseconds since 1970.
    pub at_us: u64,
    /// About whom: `shadow` or `driver.N`.
    pub part: String,
    /// What, in a word.
    pub kind: String,
    /// More of it.
    pub detail: String,
    /// The process that it is about.
    pub pid: Option<u32>,
}

impl Event {
    /// Now.
    pub fn of(part: Part, kind: &str, detail: &str) -> Self {
        let part = match part {
            Part::Shadow => "shadow".to_owned(),
            Part::Driver(nic) => format!("driver.{nic}"),
        };
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            at_monotonic_ns: monotonic_ns(),
            at_us: u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX),
            part,
            kind: kind.to_owned(),
            detail: detail.to_owned(),
            pid: None,
        }
    }

    /// About a process.
    #[must_use]
    pub fn with_pid(self, pid: u32) -> Self {
        Self { pid: Some(pid), ..self }
    }
}

/// The clock that events are dated by, in nanoseconds.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap_or(0)
}

/// How events are told on the standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A line for people.
    Text,
    /// A JSON object in each line.
    Json,
}

/// Where events go.
#[derive(Debug)]
pub struct Events {
    format: Format,
}

impl Events {
    /// To the standard output.
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Tells of an event. Nobody is waited for who does not read.
    #[expect(clippy::needless_pass_by_value, reason = "an event is told once")]
    pub fn tell(&mut self, event: Event) {
        tracing::info!(part = event.part, kind = event.kind, detail = event.detail, "event");
        let line = match self.format {
            Format::Text => format!("{:<10} {:<14} {}", event.part, event.kind, event.detail),
            Format::Json => serde_json::to_string(&event).unwrap_or_default(),
        };
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }
}
