//! What a later keeper must know of a part: its death must not fill the budgets of others again.

use super::member::{Member, Phase, Plan};
use super::types::{Attempt, Incarnation, Part, Rung};
use crate::TimeNs;

/// A part on the ladder. Its times are those of a clock that all keepers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Which part.
    pub part: Part,
    /// Its last start; 0 if there was none.
    pub incarnation: Incarnation,
    /// The last reset of its device.
    pub attempt: Attempt,
    /// Where on the ladder it is.
    pub rung: Rung,
    /// Failures in a row on this rung.
    pub strikes: u32,
    /// Probes in a row that failed.
    pub probes: u32,
    /// Whether its present start is a probe.
    pub probing: bool,
    /// Since when something is wrong, if it is.
    pub failing_since: Option<TimeNs>,
    /// When it last had run for long enough.
    pub last_success: Option<TimeNs>,
    /// What it does.
    pub stage: Stage,
    /// What follows its end.
    pub follows: Follows,
    /// When that follows.
    pub follows_at: TimeNs,
}

/// What a part does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There is no process; one is started at this time.
    Down(TimeNs),
    /// Its device is to be reset at this time, or is being reset.
    Resetting(TimeNs),
    /// It was started.
    Starting,
    /// It works since this time.
    Running(TimeNs),
    /// It works for long enough.
    Proven(TimeNs),
    /// It was killed and has not ended.
    Fencing,
    /// It is given up until this time.
    GivenUp(TimeNs),
}

/// What follows the end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// Another start.
    Start,
    /// A reset of the device.
    Reset,
    /// An end and a start of all.
    All,
    /// Nothing.
    GiveUp,
}

impl Memory {
    /// Of a part that was never started.
    pub fn of_new(part: Part, now: TimeNs) -> Self {
        Member::new(part, now).remember()
    }

    /// Whether there is a process of it, as far as the last keeper knew.
    pub fn has_process(&self) -> bool {
        matches!(self.stage, Stage::Starting | Stage::Running(_) | Stage::Proven(_) | Stage::Fencing)
    }
}

impl Member {
    pub fn remember(&self) -> Memory {
        let stage = match self.phase {
            Phase::Down { start_at } => Stage::Down(start_at),
            // Everything is about to be started again: a later keeper starts this part then.
            Phase::Held => Stage::Down(self.plan.at()),
            Phase::ResetDue { at } => Stage::Resetting(at),
            Phase::Resetting { .. } => Stage::Resetting(TimeNs(0)),
            Phase::Starting { .. } => Stage::Starting,
            Phase::Running { since, proven: false } => Stage::Running(since),
            Phase::Running { since, proven: true } => Stage::Proven(since),
            Phase::Fencing { .. } => Stage::Fencing,
            Phase::GivenUp { probe_at } => Stage::GivenUp(probe_at),
        };
        let follows = match self.plan {
            Plan::Start { .. } => Follows::Start,
            Plan::Reset { .. } => Follows::Reset,
            Plan::All { .. } => Follows::All,
            Plan::GiveUp => Follows::GiveUp,
        };
        Memory {
            part: self.part,
            incarnation: self.incarnation,
            attempt: self.attempt,
            rung: self.rung,
            strikes: self.strikes(),
            probes: self.probes(),
            probing: self.probing,
            failing_since: self.failing_since,
            last_success: self.last_success(),
            stage,
            follows,
            follows_at: self.plan.at(),
        }
    }

    /// Goes on where an earlier keeper was. What the device told is told again.
    pub fn resume(memory: &Memory, now: TimeNs) -> Self {
        let mut member = Self::new(memory.part, now);
        member.restore(memory.strikes, memory.probes, memory.last_success);
        (member.incarnation, member.attempt) = (memory.incarnation, memory.attempt);
        (member.rung, member.probing, member.failing_since) =
            (memory.rung, memory.probing, memory.failing_since);
        member.phase = match memory.stage {
            Stage::Down(start_at) => Phase::Down { start_at },
            // How far it came is not known; it is begun anew.
            Stage::Resetting(at) => Phase::ResetDue { at },
            Stage::Starting => Phase::Starting { deadline: now.plus_ns(member.ready_bound_ns()) },
            Stage::Running(since) => Phase::Running { since, proven: false },
            // Trouble of the device may have ended unseen: another success tells.
            Stage::Proven(_) if memory.failing_since.is_some() => {
                Phase::Running { since: now, proven: false }
            }
            Stage::Proven(since) => Phase::Running { since, proven: true },
            // Killed again at once: the kill may not have been done.
            Stage::Fencing => Phase::Fencing { kill_at: now, kills: 0 },
            Stage::GivenUp(probe_at) => Phase::GivenUp { probe_at },
        };
        let at = memory.follows_at;
        member.plan = match memory.follows {
            Follows::Start => Plan::Start { at },
            Follows::Reset => Plan::Reset { at },
            Follows::All => Plan::All { at },
            Follows::GiveUp => Plan::GiveUp,
        };
        member
    }
}
