//! One part on the ladder: its life, and its restart budget.

use super::device::Device;
use super::types::{Attempt, Incarnation, Part, Rung};
use crate::TimeNs;
use crate::limits::{
    ALL_STRIKES_MAX, BACKOFF_FIRST_NS, BACKOFF_MAX_NS, PROBE_FIRST_NS, PROBE_MAX_NS, READY_BOUND_MAX_NS,
    READY_BOUND_NS, RECENT_SUCCESS_NS, RESET_STRIKES_MAX, RESTART_STRIKES_MAX, STRIKES_FREE, SUCCESS_NS,
};

/// ```text
///   Down ---> Starting --ready--> Running        no process: Down, ResetDue, Resetting, Held, GivenUp
///    ^  ^         |   failed         |
///    |  |         +------------------+---> Fencing (killed, its end is awaited)
///    |  |         | ended            | ended  | ended
///    |  |         v                  v        v
///    |  +-- Resetting <-- ResetDue <-+-> Held (all start again) or GivenUp
///    +-----------------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Down {
        start_at: TimeNs,
    },
    ResetDue {
        at: TimeNs,
    },
    Resetting {
        /// None once it was told that it is stuck.
        deadline: Option<TimeNs>,
    },
    Held,
    Starting {
        deadline: TimeNs,
    },
    Running {
        since: TimeNs,
        /// It ran for long enough to be called a success.
        proven: bool,
    },
    Fencing {
        kill_at: TimeNs,
        kills: u32,
    },
    GivenUp {
        probe_at: TimeNs,
    },
}

/// What follows the end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    Start { at: TimeNs },
    Reset { at: TimeNs },
    All { at: TimeNs },
    GiveUp,
}

impl Plan {
    /// When it is due.
    pub fn at(self) -> TimeNs {
        match self {
            Self::Start { at } | Self::Reset { at } | Self::All { at } => at,
            Self::GiveUp => TimeNs(0),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub part: Part,
    pub phase: Phase,
    pub plan: Plan,
    pub incarnation: Incarnation,
    pub attempt: Attempt,
    pub rung: Rung,
    pub failing_since: Option<TimeNs>,
    pub probing: bool,
    pub device: Device,
    strikes: u32,
    probes: u32,
    last_success: Option<TimeNs>,
}

impl Member {
    pub fn new(part: Part, now: TimeNs) -> Self {
        Self {
            part,
            phase: Phase::Down { start_at: now },
            plan: Plan::Start { at: now },
            incarnation: Incarnation(0),
            attempt: Attempt(0),
            rung: Rung::Restart,
            failing_since: None,
            probing: false,
            device: Device::default(),
            strikes: 0,
            probes: 0,
            last_success: None,
        }
    }

    /// Whether there is a process, as far as is known.
    pub fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. } | Phase::Running { .. } | Phase::Fencing { .. })
    }

    /// Whether there is a process that nobody killed.
    pub fn is_wanted(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. } | Phase::Running { .. })
    }

    pub fn strikes(&self) -> u32 {
        self.strikes
    }

    pub fn probes(&self) -> u32 {
        self.probes
    }

    pub fn last_success(&self) -> Option<TimeNs> {
        self.last_success
    }

    /// What an earlier keeper had counted.
    pub fn restore(&mut self, strikes: u32, probes: u32, last_success: Option<TimeNs>) {
        (self.strikes, self.probes, self.last_success) = (strikes, probes, last_success);
    }

    /// When it will have run for long enough, if nothing happens.
    pub fn success_at(&self) -> Option<TimeNs> {
        match self.phase {
            Phase::Running { since, proven: false } if !self.device.is_troubled() => {
                Some(since.plus_ns(SUCCESS_NS))
            }
            _ => None,
        }
    }

    /// It ran for long enough: all budgets are full again. Tells since when something was wrong.
    pub fn succeed(&mut self, now: TimeNs) -> Option<TimeNs> {
        if let Phase::Running { proven, .. } = &mut self.phase {
            *proven = true;
        }
        (self.rung, self.strikes, self.probes, self.probing) = (Rung::Restart, 0, 0, false);
        self.last_success = Some(now);
        self.failing_since.take()
    }

    /// Charges a failure to the budget, and plans what follows.
    pub fn charge(&mut self, now: TimeNs) -> Plan {
        if matches!(self.phase, Phase::Running { proven: true, .. }) {
            self.last_success = Some(now);
        }
        self.failing_since.get_or_insert(now);
        if std::mem::take(&mut self.probing) {
            return Plan::GiveUp;
        }
        self.strikes += 1;
        if self.strikes <= self.strikes_max() {
            return self.on_rung(now);
        }
        match self.next_rung() {
            Some(rung) => {
                (self.rung, self.strikes) = (rung, 1);
                self.on_rung(now)
            }
            None => self.at_the_top(now),
        }
    }

    /// It worked not long ago, so it will again: it is tried on, at the slowest pace.
    fn at_the_top(&mut self, now: TimeNs) -> Plan {
        self.strikes = self.strikes_max();
        let recent = self.last_success.is_some_and(|at| now.since_ns(at) <= RECENT_SUCCESS_NS);
        if recent { Plan::Start { at: now.plus_ns(BACKOFF_MAX_NS) } } else { Plan::GiveUp }
    }

    fn on_rung(&self, now: TimeNs) -> Plan {
        let at = now.plus_ns(backoff_ns(self.failures_below() + self.strikes));
        match self.rung {
            Rung::Restart => Plan::Start { at },
            Rung::ResetDevice => Plan::Reset { at },
            Rung::RestartAll => Plan::All { at },
        }
    }

    /// How long it may take to be ready. On a machine that is slow beyond measure a start takes longer than that, and one that
    /// is cut short as often as it is tried never comes about: each failure in a row doubles it.
    pub fn ready_bound_ns(&self) -> u64 {
        let failures = self.failures_below() + self.strikes;
        (READY_BOUND_NS << failures.min(20)).min(READY_BOUND_MAX_NS)
    }

    fn failures_below(&self) -> u32 {
        match self.rung {
            Rung::Restart => 0,
            Rung::ResetDevice => RESTART_STRIKES_MAX,
            Rung::RestartAll => RESTART_STRIKES_MAX + RESET_STRIKES_MAX,
        }
    }

    fn strikes_max(&self) -> u32 {
        match self.rung {
            Rung::Restart => RESTART_STRIKES_MAX,
            Rung::ResetDevice => RESET_STRIKES_MAX,
            Rung::RestartAll => ALL_STRIKES_MAX,
        }
    }

    fn next_rung(&self) -> Option<Rung> {
        match (self.rung, self.part) {
            (Rung::Restart, Part::Driver(_)) => Some(Rung::ResetDevice),
            (Rung::Restart, Part::Shadow) | (Rung::ResetDevice, _) => Some(Rung::RestartAll),
            (Rung::RestartAll, _) => None,
        }
    }

    /// It is given up until the next probe.
    pub fn give_up(&mut self, now: TimeNs) {
        self.phase = Phase::GivenUp { probe_at: now.plus_ns(probe_delay_ns(self.probes)) };
        self.probes = self.probes.saturating_add(1);
    }

    /// When something is to be done if nothing happens.
    pub fn next_deadline(&self) -> Option<TimeNs> {
        let phase = match self.phase {
            Phase::Down { start_at: at }
            | Phase::ResetDue { at }
            | Phase::Starting { deadline: at }
            | Phase::Fencing { kill_at: at, .. }
            | Phase::GivenUp { probe_at: at } => Some(at),
            Phase::Resetting { deadline } => deadline,
            Phase::Running { .. } => self.device.act_at(),
            Phase::Held => None,
        };
        [phase, self.success_at()].into_iter().flatten().min()
    }
}

/// The delay before the start that follows so many failures in a row.
fn backoff_ns(strikes: u32) -> u64 {
    match strikes.checked_sub(STRIKES_FREE + 1) {
        None => 0,
        Some(doublings) => (BACKOFF_FIRST_NS << doublings.min(20)).min(BACKOFF_MAX_NS),
    }
}

/// The time before the probe that follows so many that failed.
pub(super) fn probe_delay_ns(probes: u32) -> u64 {
    (PROBE_FIRST_NS << probes.min(10)).min(PROBE_MAX_NS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MS;

    #[test]
    fn the_delays_double_up_to_their_bounds() {
        let delays: Vec<_> = (1..=16).map(|strikes| backoff_ns(strikes) / MS).collect();
        assert_eq!(delays, [0, 0, 0, 0, 5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_000, 5_000]);
        assert_eq!(backoff_ns(u32::MAX), BACKOFF_MAX_NS);
        assert_eq!([0, 1, 9, u32::MAX].map(|n| probe_delay_ns(n) / MS), [10_000, 20_000, 300_000, 300_000]);
    }
}
