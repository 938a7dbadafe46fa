//! The ledger and the times.

use std::collections::BTreeMap;

use net_stand::{Counts, EndpointReport, GuestReport};
use serde::Serialize;
use sim_guest::net::traffic::FlowReport;

use super::calm::Calm;
use super::faults::Outcome;
use crate::report::Spread;

/// One direction.
#[derive(Clone, Debug, Serialize)]
pub struct Ledger {
    /// Frames that were sent.
    pub sent: u64,
    /// Different ones that came.
    pub received: u64,
    /// Frames that were counted as dropped: by a full backlog of a guest, or a full socket of the peer.
    pub counted: u64,
    /// What is missing.
    pub lost: i64,
    /// Frames that came again.
    pub duplicated: u64,
    /// Frames that came after later ones.
    pub reordered: u64,
    /// Frames that came changed.
    pub corrupt: u64,
    /// The longest time without a frame, in microseconds.
    pub longest_gap_us: u64,
}

/// The outcome of a run.
#[derive(Clone, Debug, Serialize)]
pub struct NetReport {
    /// Of this format.
    pub version: u32,
    /// Seed of the run.
    pub seed: u64,
    /// How long faults were injected.
    pub seconds: f64,
    /// How many of each.
    pub faults: BTreeMap<String, u64>,
    /// From guests to the wire.
    pub to_wire: Ledger,
    /// From the wire to guests.
    pub from_wire: Ledger,
    /// Frames that found no room in the kernel, could not be sent, or not be handed on, ours or not: to be none.
    pub refused: u64,
    /// Changes of the backend's state that guests saw.
    pub state_changes: u64,
    /// Failures of parts that nobody had harmed.
    pub false_alarms: u64,
    /// Time without faults after them.
    pub calm: Calm,
    /// Events that were never told.
    pub events_missing: u64,
    /// From the fault to the first sign that it was noticed, in microseconds.
    pub detected: BTreeMap<String, Spread>,
    /// From the fault until a successor serves.
    pub ready: BTreeMap<String, Spread>,
    /// From the fault until frames came again.
    pub served: BTreeMap<String, Spread>,
    /// Whether nothing happened that must not.
    pub passed: bool,
}

/// What a run was like.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// Its seed.
    pub seed: u64,
    /// How long faults were injected.
    pub seconds: f64,
    /// The time without faults after them.
    pub calm: Calm,
    /// Events that were never told.
    pub events_missing: u64,
}

impl NetReport {
    /// Of all accounts.
    pub fn of(
        course: &Course,
        outcomes: &[Outcome],
        guests: &[GuestReport],
        peer: &EndpointReport,
        counts: &Counts,
    ) -> Self {
        let Course { seed, seconds, calm, events_missing } = *course;
        let sum = |of: fn(&GuestReport) -> u64| guests.iter().map(of).sum::<u64>();
        // Frames of hostile guests are nobody's.
        let own = |flow: &&FlowReport| (1..=guests.len() as u64).contains(&flow.flow);
        let came = |of: fn(&FlowReport) -> u64| peer.received.flows.iter().filter(own).map(of).sum::<u64>();
        let to_wire = Ledger {
            sent: sum(|guest| guest.sent.frames),
            received: came(|flow| flow.received),
            counted: counts.dropped_to_wire() + peer.dropped,
            lost: 0,
            duplicated: came(|flow| flow.duplicated),
            reordered: came(|flow| flow.reordered),
            corrupt: peer.received.corrupt,
            longest_gap_us: peer
                .received
                .flows
                .iter()
                .filter(own)
                .map(|flow| flow.longest_gap_ns / 1000)
                .max()
                .unwrap_or(0),
        }
        .balanced();
        let from_wire = Ledger {
            sent: peer.sent,
            received: sum(|guest| guest.received.received),
            counted: counts.dropped_from_wire(),
            lost: 0,
            duplicated: sum(|guest| guest.received.duplicated),
            reordered: sum(|guest| guest.received.reordered),
            corrupt: sum(|guest| guest.received.corrupt),
            longest_gap_us: guests
                .iter()
                .map(|guest| guest.received.longest_gap_ns / 1000)
                .max()
                .unwrap_or(0),
        }
        .balanced();
        let refused = counts.refused();
        let state_changes = sum(GuestReport::state_changes);
        let false_alarms = calm.alarms + outcomes.iter().map(|outcome| outcome.others).sum::<u64>();
        let mut faults = BTreeMap::new();
        for outcome in outcomes {
            *faults.entry(outcome.fault.name()).or_default() += 1;
        }
        let passed = [&to_wire, &from_wire].into_iter().all(Ledger::is_perfect)
            && refused == 0
            && state_changes == 0
            && false_alarms == 0
            && events_missing == 0;
        Self {
            version: 1,
            seed,
            seconds,
            faults,
            detected: spread(outcomes, |outcome| outcome.detected_us),
            ready: spread(outcomes, |outcome| outcome.ready_us),
            served: spread(outcomes, |outcome| outcome.served_us),
            to_wire,
            from_wire,
            refused,
            state_changes,
            false_alarms,
            calm,
            events_missing,
            passed,
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let total = self.faults.values().sum::<u64>();
        let mut lines = vec![format!("{total} faults in {:.0} s, seed {}", self.seconds, self.seed)];
        lines.extend(self.faults.iter().map(|(name, number)| format!("{number:>8} {name}")));
        for (name, ledger) in [("to the wire", &self.to_wire), ("from the wire", &self.from_wire)] {
            lines.push(format!(
                "{name}: sent {}, received {}, counted as dropped {}, lost {}, duplicated {}, reordered {}, corrupt {}, \
                 longest gap {} us",
                ledger.sent,
                ledger.received,
                ledger.counted,
                ledger.lost,
                ledger.duplicated,
                ledger.reordered,
                ledger.corrupt,
                ledger.longest_gap_us
            ));
        }
        lines.push(format!(
            "refused or without room in the kernel {}, changes of state that guests saw {}, false alarms {}, events that were never told {}",
            self.refused, self.state_changes, self.false_alarms, self.events_missing
        ));
        if self.calm.seconds > 1.0 {
            lines.push(format!(
                "{:.0} s without faults: {} false alarms",
                self.calm.seconds, self.calm.alarms
            ));
        }
        for (what, times) in [("detected", &self.detected), ("ready", &self.ready), ("served", &self.served)]
        {
            lines
                .extend(times.iter().map(|(name, spread)| format!("  {what:<9}{name:<18}{}", spread.line())));
        }
        lines.push(if self.passed { "passed" } else { "FAILED" }.to_owned());
        lines.join("\n")
    }
}

impl Ledger {
    /// Nothing lost, doubled, late or changed.
    fn is_perfect(&self) -> bool {
        self.lost == 0 && self.corrupt == 0 && self.duplicated == 0 && self.reordered == 0
    }

    fn balanced(self) -> Self {
        let accounted = i64::try_from(self.received + self.counted).unwrap_or(i64::MAX);
        Self { lost: i64::try_from(self.sent).unwrap_or(i64::MAX) - accounted, ..self }
    }
}

fn spread(outcomes: &[Outcome], of: fn(&Outcome) -> Option<u64>) -> BTreeMap<String, Spread> {
    let mut times: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for outcome in outcomes {
        if let Some(time) = of(outcome) {
            times.entry(outcome.fault.name()).or_default().push(time);
        }
    }
    times.into_iter().map(|(name, times)| (name, Spread::of(times))).collect()
}
