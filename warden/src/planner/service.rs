//! One service in the planner: its life and its restart budget.

use crate::event::{Cause, SIGKILL};
use crate::ids::{ServiceId, TimeUs};
use crate::limits::{BACKOFF_FIRST_MS, BACKOFF_MAX_MS, STRIKE_WINDOW_MS, STRIKES_FREE, STRIKES_MAX};

/// ```text
///              +--------------------- died -----------------------+
///              v                                                  |
///   Down --spawn--> Starting --ready--> Ready --stop--> Stopping -+-> Ended (while stopping)
///    |                 |                  |                |      |
///    |                 +---- given up on, kill ------------+-> Fencing
///    +--too many strikes--> GivenUp
///
///   Awaited --hello--> Ready or Starting          a process of an earlier warden
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Down { start_at: TimeUs },
    Awaited { deadline: TimeUs },
    Starting { deadline: TimeUs },
    Ready,
    Stopping { deadline: TimeUs },
    Fencing { kill_again_at: TimeUs },
    GivenUp,
    Ended,
}

/// Why a live process may be killed soon.
#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    pub since: TimeUs,
    pub kill_at: TimeUs,
    pub why: String,
}

/// When and how a service's fault came to light.
#[derive(Clone, Copy, Debug)]
pub(super) struct FaultSeen {
    pub at: TimeUs,
    pub detect_us: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Service {
    pub id: ServiceId,
    pub phase: Phase,
    pub pid: Option<u32>,
    pub incarnation: u64,
    pub restarts: u64,
    pub applied: u64,
    pub since: TimeUs,
    pub last_death: Option<String>,
    pub suspicion: Option<Suspicion>,
    pub injected_at: Option<TimeUs>,
    pub fault_seen: Option<FaultSeen>,
    /// Injected faults are for this process.
    pub fault_pid: Option<u32>,
    /// The log cannot be read at this entry; a snapshot behind it is waited for.
    pub broken_at: Option<u64>,
    /// When it was found wrong; until it is rebuilt.
    pub convicted_at: Option<TimeUs>,
    was_ready: bool,
    useless: bool,
    strikes: u32,
    last_strike: Option<TimeUs>,
}

/// What follows from a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    StartAt(TimeUs),
    GiveUp,
}

impl Service {
    pub fn new(id: ServiceId, now: TimeUs) -> Self {
        Self {
            id,
            phase: Phase::Down { start_at: now },
            pid: None,
            incarnation: 0,
            restarts: 0,
            applied: 0,
            since: now,
            last_death: None,
            suspicion: None,
            injected_at: None,
            fault_seen: None,
            fault_pid: None,
            broken_at: None,
            convicted_at: None,
            was_ready: false,
            useless: false,
            strikes: 0,
            last_strike: None,
        }
    }

    /// One of an earlier warden; it lives if it has a process.
    pub fn recorded(found: &super::Found, deadline: TimeUs, now: TimeUs) -> Self {
        let phase =
            if found.pid.is_some() { Phase::Awaited { deadline } } else { Phase::Down { start_at: now } };
        Self {
            phase,
            pid: found.pid,
            incarnation: found.incarnation,
            restarts: found.incarnation.saturating_sub(1),
            was_ready: found.ready,
            ..Self::new(found.service, now)
        }
    }

    /// Whether it was ever told to be of use.
    pub fn was_ready(&self) -> bool {
        self.was_ready
    }

    pub fn enter(&mut self, phase: Phase, now: TimeUs) {
        self.phase = phase;
        self.since = now;
    }

    /// Begins the next incarnation.
    pub fn begin(&mut self, deadline: TimeUs, now: TimeUs) {
        self.incarnation += 1;
        self.restarts = self.incarnation - 1;
        self.applied = 0;
        self.suspicion = None;
        self.injected_at = None;
        self.fault_seen = None;
        self.fault_pid = None;
        self.was_ready = false;
        self.useless = false;
        self.enter(Phase::Starting { deadline }, now);
    }

    pub fn ready(&mut self, applied: u64, now: TimeUs) {
        self.applied = applied;
        self.was_ready = true;
        self.enter(Phase::Ready, now);
    }

    /// Whether a process exists, as far as is known.
    pub fn is_alive(&self) -> bool {
        !matches!(self.phase, Phase::Down { .. } | Phase::GivenUp | Phase::Ended)
    }

    /// Whether it can be trusted with an order.
    pub fn is_fit(&self) -> bool {
        self.phase == Phase::Ready && self.suspicion.is_none()
    }

    /// Remembers the first sign of a fault of this incarnation.
    pub fn see_fault(&mut self, now: TimeUs) -> FaultSeen {
        let injected_at = self.injected_at;
        *self
            .fault_seen
            .get_or_insert_with(|| FaultSeen { at: now, detect_us: injected_at.map(|at| now.since_us(at)) })
    }

    /// Notes that this incarnation failed at what it was told to do, so that its death counts.
    pub fn failed_its_task(&mut self) {
        self.useless = true;
    }

    /// Charges a death to the budget. One from outside after the service was of use costs nothing.
    pub fn charge(&mut self, cause: &Cause, was_taking_over: bool, now: TimeUs) -> Verdict {
        let own_fault_in_takeover = was_taking_over && *cause != Cause::Signalled(SIGKILL);
        if self.was_ready && !self.useless && !own_fault_in_takeover {
            self.strikes = 0;
            return Verdict::StartAt(now);
        }
        if self.last_strike.is_some_and(|last| now > last.plus_ms(STRIKE_WINDOW_MS)) {
            self.strikes = 0;
        }
        self.strikes += 1;
        self.last_strike = Some(now);
        if self.strikes >= STRIKES_MAX {
            return Verdict::GiveUp;
        }
        Verdict::StartAt(now.plus_ms(backoff_ms(self.strikes)))
    }

    /// Deaths in a row that count.
    pub fn strikes(&self) -> u32 {
        self.strikes
    }
}

fn backoff_ms(strikes: u32) -> u64 {
    match strikes.checked_sub(STRIKES_FREE + 1) {
        None => 0,
        Some(doublings) => BACKOFF_FIRST_MS.saturating_mul(1 << doublings.min(20)).min(BACKOFF_MAX_MS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_its_bound() {
        let delays: Vec<_> = (1..STRIKES_MAX).map(backoff_ms).collect();
        assert_eq!(delays, [0, 0, 0, 50, 100, 200, 400, 800, 1600, 3200, 5000]);
    }

    #[test]
    fn old_strikes_are_forgotten() {
        let mut service = Service::new(ServiceId::Gateway, TimeUs(0));
        for _ in 1..STRIKES_MAX {
            service.charge(&Cause::Exited(1), false, TimeUs(0));
        }
        let later = TimeUs(1).plus_ms(STRIKE_WINDOW_MS);
        assert_eq!(service.charge(&Cause::Exited(1), false, later), Verdict::StartAt(later));
        assert_eq!(service.strikes(), 1);
    }
}
