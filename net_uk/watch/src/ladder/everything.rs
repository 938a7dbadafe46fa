//! The last rung: everything is ended, then started.

use super::member::{Phase, Plan};
use super::{Ladder, Member};
use crate::TimeNs;
use crate::limits::{ALL_FENCE_BOUND_NS, ALL_SPACING_NS};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    Due {
        at: TimeNs,
    },
    Ending {
        deadline: TimeNs,
    },
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Everything {
    stage: Stage,
    not_before: TimeNs,
}

impl Everything {
    /// It is wanted at this time. What several parts want is done once.
    pub fn want(&mut self, at: TimeNs) {
        let at = at.max(self.not_before);
        self.stage = match self.stage {
            Stage::Idle => Stage::Due { at },
            Stage::Due { at: before } => Stage::Due { at: before.min(at) },
            ending @ Stage::Ending { .. } => ending,
        };
    }

    pub fn next_deadline(&self) -> Option<TimeNs> {
        match self.stage {
            Stage::Idle => None,
            Stage::Due { at } | Stage::Ending { deadline: at } => Some(at),
        }
    }
}

impl Ladder {
    pub(super) fn restart_everything(&mut self, now: TimeNs) {
        if let Stage::Due { at } = self.everything.stage
            && now >= at
        {
            self.end_everything(now);
        }
        if let Stage::Ending { deadline } = self.everything.stage
            && (now >= deadline || !self.members.iter().any(is_awaited))
        {
            self.start_everything(now);
        }
    }

    fn end_everything(&mut self, now: TimeNs) {
        self.everything.stage = Stage::Ending { deadline: now.plus_ns(ALL_FENCE_BOUND_NS) };
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            match member.phase {
                Phase::Starting { .. } | Phase::Running { .. } => {
                    member.plan = Plan::All { at: now };
                    self.fence(now, index);
                }
                Phase::Fencing { .. } if matches!(member.plan, Plan::Start { .. }) => {
                    member.plan = Plan::All { at: now };
                }
                Phase::Down { .. } => member.phase = Phase::Held,
                // A device that is being reset and what was given up go on as they are.
                _ => {}
            }
        }
    }

    /// A process that does not end holds nobody else up.
    fn start_everything(&mut self, now: TimeNs) {
        self.everything = Everything { stage: Stage::Idle, not_before: now.plus_ns(ALL_SPACING_NS) };
        for member in &mut self.members {
            match member.phase {
                Phase::Held => member.phase = Phase::Down { start_at: now },
                Phase::Fencing { .. } if matches!(member.plan, Plan::All { .. }) => {
                    member.plan = Plan::Start { at: now };
                }
                _ => {}
            }
        }
    }
}

fn is_awaited(member: &Member) -> bool {
    matches!(member.phase, Phase::Fencing { .. }) && matches!(member.plan, Plan::All { .. })
}
