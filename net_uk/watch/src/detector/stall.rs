//! Standstills: of one direction's work, and of the heartbeat.

use super::gaps::Gaps;
use super::pace::Interval;
use super::sample::Flow;
use crate::TimeNs;
use crate::limits::STARVED_MAX_NS;

/// One standstill that goes on, and those that ended well.
#[derive(Clone, Debug)]
pub(super) struct Stall {
    gaps: Gaps,
    /// Credited time of the one that goes on.
    still_ns: u64,
    /// Time that the observer watched it, whether the process got a processor or not.
    watched_ns: u64,
    since: TimeNs,
    /// Whether it was to be expected at the last sample that something moves.
    expected: bool,
}

impl Stall {
    pub fn new() -> Self {
        Self { gaps: Gaps::new(), still_ns: 0, watched_ns: 0, since: TimeNs(0), expected: false }
    }

    /// Forgets the one that goes on.
    pub fn begin(&mut self) {
        (self.still_ns, self.watched_ns, self.expected) = (0, 0, false);
    }

    /// Takes an interval: whether anything `moved` in it, and since when it was to be expected.
    pub fn step(&mut self, now: TimeNs, interval: &Interval, moved: bool, expected_since: Option<TimeNs>) {
        let interrupted = expected_since.is_none_or(|since| since > interval.from);
        if moved && self.expected {
            self.gaps.learn(now, self.still_ns.saturating_add(interval.credit_ns));
        }
        if moved || interrupted || !self.expected {
            (self.still_ns, self.watched_ns) = (0, 0);
            self.since = now.min(expected_since.unwrap_or(now).max(interval.from));
        }
        self.expected = expected_since.is_some();
        if !moved && let Some(since) = expected_since {
            // Time from before the interval may be credited in it: accounts come late.
            let part_ns = if since > interval.from { now.since_ns(since) } else { u64::MAX };
            self.still_ns = self.still_ns.saturating_add(interval.credit_ns.min(part_ns));
            self.watched_ns = self.watched_ns.saturating_add(interval.watched_ns.min(part_ns));
        }
    }

    pub fn still_ns(&self) -> u64 {
        self.still_ns
    }

    pub fn since(&self) -> TimeNs {
        self.since
    }

    pub fn bound_ns(&self, now: TimeNs, floor_ns: u64) -> u64 {
        self.gaps.bound_ns(now, floor_ns)
    }

    /// How bad it is.
    pub fn grade(&self, now: TimeNs, floor_ns: u64) -> Grade {
        let bound_ns = self.bound_ns(now, floor_ns);
        if self.still_ns > bound_ns || self.watched_ns > STARVED_MAX_NS {
            Grade::TooLong
        } else if self.still_ns > bound_ns / 2 {
            Grade::Long
        } else {
            Grade::Usual
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grade {
    Usual,
    Long,
    TooLong,
}

/// The counters of one direction at the last sample.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moves {
    last: Option<Flow>,
}

/// What moved between two samples.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    pub units: u64,
    pub refused: bool,
    /// There was something to do in the whole interval.
    pub busy_throughout: bool,
}

impl Moves {
    /// None if a counter went back.
    pub fn step(&mut self, interval: &Interval, flow: &Flow) -> Option<Moved> {
        let Some(last) = self.last.replace(*flow) else { return Some(Moved::default()) };
        let units = flow.taken.checked_sub(last.taken)?;
        let refused = flow.refused.checked_sub(last.refused)? > 0;
        let through = flow.busy_since().is_some_and(|since| since <= interval.from);
        Some(Moved { units, refused, busy_throughout: through && last.busy_since().is_some() })
    }
}
