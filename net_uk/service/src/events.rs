//! What happens, for people and programs. Events are numbered and go through the [`Journal`], which outlives the keeper: what
//! one had told and not written out, the next one writes out.

use std::io::Write;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use net_watch::TimeNs;
use net_watch::ladder::Part;
use prost::Message;
use serde::Serialize;

use crate::desk::{Journal, Lookup};
use crate::error::Error;
use crate::limits::{BEAT, EVENT_TEXT_BYTES_MAX, WRITE_OUT_WAIT};

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Serialize, Message)]
pub struct Event {
    /// Its number, from 1. A number that comes again is the same event, one that is missing was not written out.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// When, in nanoseconds of the monotonic clock.
    #[prost(uint64, tag = "2")]
    pub at_monotonic_ns: u64,
    /// When, in microseconds since 1970.
    #[prost(uint64, tag = "3")]
    pub at_us: u64,
    /// About whom: `shadow`, `driver.N`, `keeper` or `vault.N`.
    #[prost(string, tag = "4")]
    pub part: String,
    /// What, in a word.
    #[prost(string, tag = "5")]
    pub kind: String,
    /// More of it.
    #[prost(string, tag = "6")]
    pub detail: String,
    /// The process that it is about.
    #[prost(uint32, optional, tag = "7")]
    pub pid: Option<u32>,
}

impl Event {
    /// Now, about shadow or driver.
    pub fn of(part: Part, kind: &str, detail: &str) -> Self {
        Self::about(&part_name(part), kind, detail)
    }

    /// Now.
    pub fn about(part: &str, kind: &str, detail: &str) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            number: 0,
            at_monotonic_ns: monotonic_ns(),
            at_us: u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX),
            part: part.to_owned(),
            kind: kind.to_owned(),
            detail: cut(detail).to_owned(),
            pid: None,
        }
    }

    /// About a process.
    #[must_use]
    pub fn with_pid(self, pid: u32) -> Self {
        Self { pid: Some(pid), ..self }
    }

    /// It happened before.
    #[must_use]
    pub fn at(self, at_monotonic_ns: u64) -> Self {
        let ago_us = self.at_monotonic_ns.saturating_sub(at_monotonic_ns) / 1000;
        Self { at_monotonic_ns, at_us: self.at_us.saturating_sub(ago_us), ..self }
    }
}

/// A part's name.
pub fn part_name(part: Part) -> String {
    match part {
        Part::Shadow => "shadow".to_owned(),
        Part::Driver(nic) => format!("driver.{nic}"),
    }
}

/// The beginning of a text, up to the bound.
fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(EVENT_TEXT_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// The clock that events are dated by, in nanoseconds.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap_or(0)
}

/// Now, by that clock.
pub(crate) fn now() -> TimeNs {
    TimeNs(monotonic_ns())
}

/// So long, in its unit.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How events are told on the standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A line for people.
    Text,
    /// A JSON object in each line.
    Json,
}

/// Where events go: to the journal, and by a thread of its own to the standard output. So nobody waits for who does not
/// read there.
#[derive(Debug)]
pub struct Events {
    journal: Journal,
    writer: JoinHandle<()>,
}

impl Events {
    /// Goes on behind the last event of an earlier keeper.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn new(journal: Journal, format: Format) -> Result<Self, Error> {
        let source = journal.clone();
        let writer = std::thread::Builder::new().name("events".to_owned());
        Ok(Self { journal, writer: writer.spawn(move || write_out(&source, format))? })
    }

    /// The last events.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Tells of an event.
    pub fn tell(&self, event: Event) {
        tracing::info!(part = event.part, kind = event.kind, detail = event.detail, "event");
        self.journal.push(|number| Event { number, ..event }.encode_to_vec());
        self.writer.thread().unpark();
    }

    /// Waits until all is written out, or nobody reads.
    pub fn finish(&self) {
        let began = Instant::now();
        while self.journal.written_out() < self.journal.last() && began.elapsed() < WRITE_OUT_WAIT {
            self.writer.thread().unpark();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Writes events out for ever, each before it is marked as written: one may come twice, with the same number.
fn write_out(journal: &Journal, format: Format) {
    loop {
        let (event, number) = match next_event(journal, journal.written_out() + 1) {
            Some(next) => next,
            None => {
                std::thread::park_timeout(BEAT);
                continue;
            }
        };
        let line = match format {
            Format::Text => format!("{:<10} {:<14} {}\n", event.part, event.kind, event.detail),
            Format::Json => serde_json::to_string(&event).unwrap_or_default() + "\n",
        };
        // Nobody may be there to read.
        let _ = std::io::stdout().lock().write_all(line.as_bytes());
        journal.set_written_out(number);
    }
}

/// The event of this number, or one that tells how many are gone, and the number up to which that tells all.
pub fn next_event(journal: &Journal, number: u64) -> Option<(Event, u64)> {
    match journal.read(number) {
        Lookup::NotYet => None,
        Lookup::Found(bytes) => {
            let event = Event::decode(&bytes[..]).unwrap_or_else(|error| Event {
                number,
                ..Event::about("keeper", "unreadable", &error.to_string())
            });
            Some((event, number))
        }
        Lookup::Gone => {
            let upto = journal.oldest().max(number + 1) - 1;
            let missed = format!("{} events before this one were overwritten", upto + 1 - number);
            Some((Event { number: upto, ..Event::about("keeper", "lagged", &missed) }, upto))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::Desk;
    use crate::limits::{EVENT_BYTES_MAX, JOURNAL_EVENTS};

    fn push(journal: &Journal, event: &Event) {
        journal.push(|number| Event { number, ..event.clone() }.encode_to_vec());
    }

    #[test]
    fn the_longest_event_fits() {
        let event = Event::about("driver.65535", "device_trouble", &"ß".repeat(EVENT_TEXT_BYTES_MAX));
        let event = Event { number: u64::MAX, pid: Some(u32::MAX), ..event };
        assert_eq!(event.detail.len(), EVENT_TEXT_BYTES_MAX);
        assert!(event.encoded_len() <= EVENT_BYTES_MAX, "{}", event.encoded_len());
    }

    #[test]
    fn events_come_in_their_order_and_gaps_are_told() {
        let journal = Desk::create().unwrap().journal();
        let event = Event::of(Part::Shadow, "ended", "Signal(9)").with_pid(7);
        assert_eq!(next_event(&journal, 1), None);
        push(&journal, &event);
        assert_eq!(next_event(&journal, 1), Some((Event { number: 1, ..event.clone() }, 1)));
        (0..JOURNAL_EVENTS + 9).for_each(|_| push(&journal, &event));
        let (gap, upto) = next_event(&journal, 2).unwrap();
        assert_eq!((gap.kind.as_str(), gap.number, upto), ("lagged", 11, 11));
        assert_eq!(gap.detail, "10 events before this one were overwritten");
        assert_eq!(next_event(&journal, upto + 1).unwrap().0.number, 12);
    }

    #[test]
    fn what_happened_before_is_dated_back() {
        let event = Event::about("keeper", "ended", "");
        let before = event.clone().at(event.at_monotonic_ns - 5_000_000);
        assert_eq!(event.at_us - before.at_us, 5_000);
    }
}
