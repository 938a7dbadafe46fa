//! The receiver's account of all flows.

use std::collections::BTreeMap;

use serde::Serialize;

use super::frame::{Numbered, Reading};
use super::histogram::{Histogram, Latency};
use super::window::{Arrival, Window};
use crate::limits::FLOWS_MAX;

/// The account of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FlowReport {
    /// The flow.
    pub flow: u64,
    /// Different numbers that came.
    pub received: u64,
    /// Numbers up to the newest that did not come (yet). What was lost after the newest only the sender can tell.
    pub lost: u64,
    /// Numbers that came again.
    pub duplicated: u64,
    /// Numbers that came after newer ones, for the first time.
    pub reordered: u64,
    /// Numbers too far behind to tell a duplicate from a late one.
    pub too_old: u64,
    /// The longest time between two frames, in nanoseconds.
    pub longest_gap_ns: u64,
    /// The newest number before that gap.
    pub longest_gap_after: u64,
}

#[derive(Debug, Default)]
struct Flow {
    window: Window,
    report: FlowReport,
    last_ns: Option<u64>,
}

impl Flow {
    fn note(&mut self, numbered: Numbered, now_ns: u64) {
        let gap_ns = self.last_ns.replace(now_ns).map_or(0, |last_ns| now_ns.saturating_sub(last_ns));
        if gap_ns > self.report.longest_gap_ns {
            self.report.longest_gap_ns = gap_ns;
            self.report.longest_gap_after = self.window.next().saturating_sub(1);
        }
        let report = &mut self.report;
        report.flow = numbered.flow;
        match self.window.note(numbered.sequence) {
            Arrival::New => report.received += 1,
            Arrival::Reordered => {
                report.received += 1;
                report.reordered += 1;
            }
            Arrival::Duplicate => report.duplicated += 1,
            Arrival::TooOld => report.too_old += 1,
        }
        report.lost = self.window.next().saturating_sub(report.received);
    }
}

/// What came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReceiveReport {
    /// By flow.
    pub flows: Vec<FlowReport>,
    /// Sum of the flows.
    pub received: u64,
    /// Bytes of all right frames.
    pub bytes: u64,
    /// Sum of the flows.
    pub lost: u64,
    /// Sum of the flows.
    pub duplicated: u64,
    /// Sum of the flows.
    pub reordered: u64,
    /// Sum of the flows.
    pub too_old: u64,
    /// Numbered frames that were changed.
    pub corrupt: u64,
    /// Other frames.
    pub foreign: u64,
    /// Right frames of flows past [`FLOWS_MAX`].
    pub unaccounted: u64,
    /// The longest gap of any flow, in nanoseconds.
    pub longest_gap_ns: u64,
    /// From when a frame was made to when it was taken.
    pub latency: Latency,
}

/// A receiver.
#[derive(Debug, Default)]
pub struct Receiver {
    flows: BTreeMap<u64, Flow>,
    latency: Histogram,
    bytes: u64,
    corrupt: u64,
    foreign: u64,
    unaccounted: u64,
}

impl Receiver {
    /// Takes a frame that came at `now_ns`. Gives what it says of itself, if it is a numbered one that nobody changed.
    pub fn take(&mut self, bytes: &[u8], now_ns: u64) -> Option<Numbered> {
        let numbered = match Numbered::read(bytes) {
            Reading::Right(numbered) => numbered,
            Reading::Corrupt => {
                self.corrupt += 1;
                return None;
            }
            Reading::Foreign => {
                self.foreign += 1;
                return None;
            }
        };
        self.bytes += bytes.len() as u64;
        self.latency.add(now_ns.saturating_sub(numbered.stamp_ns));
        if self.flows.len() >= FLOWS_MAX && !self.flows.contains_key(&numbered.flow) {
            self.unaccounted += 1;
        } else {
            self.flows.entry(numbered.flow).or_default().note(numbered, now_ns);
        }
        Some(numbered)
    }

    /// Different frames that came, and their flows, without the rest of the account.
    pub fn progress(&self) -> (u64, usize) {
        (self.flows.values().map(|flow| flow.report.received).sum(), self.flows.len())
    }

    /// The account so far.
    pub fn report(&self) -> ReceiveReport {
        let flows: Vec<_> = self.flows.values().map(|flow| flow.report).collect();
        let sum = |of: fn(&FlowReport) -> u64| flows.iter().map(of).sum();
        ReceiveReport {
            received: sum(|flow| flow.received),
            bytes: self.bytes,
            lost: sum(|flow| flow.lost),
            duplicated: sum(|flow| flow.duplicated),
            reordered: sum(|flow| flow.reordered),
            too_old: sum(|flow| flow.too_old),
            corrupt: self.corrupt,
            foreign: self.foreign,
            unaccounted: self.unaccounted,
            longest_gap_ns: flows.iter().map(|flow| flow.longest_gap_ns).max().unwrap_or(0),
            latency: self.latency.summary(),
            flows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Mac;

    fn frame(flow: u64, sequence: u64) -> Vec<u8> {
        let mut bytes = vec![];
        Numbered { flow, sequence, stamp_ns: 100 }.write(&mut bytes, Mac::default(), Mac::default(), 60);
        bytes
    }

    #[test]
    fn every_kind_of_fault_is_counted() {
        let mut receiver = Receiver::default();
        for (sequence, now_ns) in [(0, 110), (1, 120), (4, 520), (2, 530), (2, 540)] {
            receiver.take(&frame(1, sequence), now_ns);
        }
        let mut changed = frame(1, 5);
        changed[59] ^= 1;
        receiver.take(&changed, 600);
        receiver.take(&[0; 60], 600);
        let report = receiver.report();
        assert_eq!((report.received, report.lost, report.duplicated, report.reordered), (4, 1, 1, 1));
        assert_eq!((report.corrupt, report.foreign), (1, 1));
        assert_eq!((report.longest_gap_ns, report.flows[0].longest_gap_after), (400, 1));
        assert_eq!((report.latency.count, report.latency.max_ns), (5, 440));
    }

    #[test]
    fn the_bound_on_flows_is_reached_and_kept() {
        let mut receiver = Receiver::default();
        for flow in 0..=FLOWS_MAX as u64 {
            receiver.take(&frame(flow, 0), 100);
        }
        receiver.take(&frame(0, 1), 100);
        let report = receiver.report();
        assert_eq!((report.flows.len(), report.unaccounted), (FLOWS_MAX, 1));
        assert_eq!(report.received, FLOWS_MAX as u64 + 1);
    }
}
