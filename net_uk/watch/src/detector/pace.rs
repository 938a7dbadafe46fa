//! How much of the time between two samples a process could have used, and the observer could have seen.
//!
//! Time in which the process waited for a processor is not its own, and time in which the observer was not run is no
//! evidence. What is left is credited to a standstill, by a bounded amount for each sample.

use super::sample::{ProcessorUse, Sample};
use crate::TimeNs;
use crate::limits::CREDIT_MAX_NS;

/// Time in an interval between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    /// When it began.
    pub from: TimeNs,
    /// Its length.
    pub elapsed_ns: u64,
    /// Its length without the observer's lateness.
    pub watched_ns: u64,
    /// What may be held against the process.
    pub credit_ns: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Pace {
    last: TimeNs,
    lived_ns: u64,
    own: Own,
    own_bank_ns: u64,
    watched_bank_ns: u64,
}

/// The process's own time: all but its waits for a processor.
#[derive(Clone, Debug, Default)]
struct Own {
    first_wait_ns: Option<u64>,
    last: Option<ProcessorUse>,
    /// `lived_ns` when its use of processors last moved.
    moved_at_ns: u64,
    high_ns: u64,
}

impl Pace {
    pub fn new(now: TimeNs) -> Self {
        Self { last: now, lived_ns: 0, own: Own::default(), own_bank_ns: 0, watched_bank_ns: 0 }
    }

    pub fn step(&mut self, sample: &Sample) -> Interval {
        let from = self.last;
        let elapsed_ns = sample.now.since_ns(from);
        let watched_ns = elapsed_ns.saturating_sub(sample.observer_gap_ns);
        self.last = from.max(sample.now);
        self.lived_ns = self.lived_ns.saturating_add(elapsed_ns);
        let own_ns = match sample.processor {
            Some(processor) => self.own.step(self.lived_ns, processor),
            None => elapsed_ns,
        };
        let credit_ns = self.credit(own_ns, watched_ns);
        Interval { from, elapsed_ns, watched_ns, credit_ns }
    }

    /// Both kinds of time come in lumps, so what one has more than the other is kept for a while.
    fn credit(&mut self, own_ns: u64, watched_ns: u64) -> u64 {
        self.own_bank_ns = self.own_bank_ns.saturating_add(own_ns).min(CREDIT_MAX_NS);
        self.watched_bank_ns = self.watched_bank_ns.saturating_add(watched_ns).min(CREDIT_MAX_NS);
        let credit_ns = self.own_bank_ns.min(self.watched_bank_ns);
        self.own_bank_ns -= credit_ns;
        self.watched_bank_ns -= credit_ns;
        credit_ns
    }
}

impl Own {
    /// How much its own time grew.
    fn step(&mut self, lived_ns: u64, processor: ProcessorUse) -> u64 {
        let first_wait_ns = *self.first_wait_ns.get_or_insert(processor.wait_ns);
        if !processor.runnable || self.last.is_none_or(|last| last != processor) {
            self.moved_at_ns = lived_ns;
        }
        self.last = Some(processor);
        let ended_waits_ns = processor.wait_ns.saturating_sub(first_wait_ns);
        let open_wait_ns = lived_ns - self.moved_at_ns;
        let own_ns = lived_ns.saturating_sub(ended_waits_ns).saturating_sub(open_wait_ns);
        let grown_ns = own_ns.saturating_sub(self.high_ns);
        self.high_ns = self.high_ns.max(own_ns);
        grown_ns
    }
}
