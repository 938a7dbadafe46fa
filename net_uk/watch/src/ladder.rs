//! Plans the recovery of the network service: a shadow and a driver for each NIC. What is known comes in as [`Input`],
//! what is to be done goes out as [`Action`]. Pure, bounded in memory and in the number of actions in any time.
//!
//! ```text
//!   Restart ----------> ResetDevice ----------> RestartAll ----------> given up: a report, and a probe now and then
//!     8 failures in a row     2                     2
//! ```
//!
//! A part that runs for [`SUCCESS_NS`](crate::limits::SUCCESS_NS) without a complaint is a success and is back on the
//! first rung. The first failures in a row are followed by a start at once, the others after delays that double. The
//! shadow has no device and skips the second rung. Trouble that a driver tells of its device has a ladder of its own.
//!
//! A process is fenced before anything else of its part begins: it is killed, and its end is waited for. So there are
//! never two drivers of one NIC, and no reset under a driver.

mod device;
mod everything;
mod member;
mod memory;
#[cfg(test)]
mod tests;
mod types;

pub use memory::{Follows, Memory, Stage};
pub use types::{Action, Attempt, Incarnation, Input, NicId, Part, Report, ReportKind, Rung};

use crate::detector::{Cause, DeviceReport};
use crate::limits::{KILL_AGAIN_MAX_NS, KILL_AGAIN_NS, KILLS_REPORTED, NICS_MAX, RESET_BOUND_NS};
use crate::{Result, TimeNs, WatchError};
use device::Remedy;
use everything::Everything;
use member::{Member, Phase, Plan};

/// What a part does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is no process; one will be started.
    Down,
    /// It was started.
    Starting,
    /// It works.
    Running,
    /// It was killed and has not ended.
    Fencing,
    /// Its device is being reset.
    Resetting,
    /// Nothing helped.
    GivenUp,
}

/// A part, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartView {
    /// Which part.
    pub part: Part,
    /// What it does.
    pub state: State,
    /// Its last start.
    pub incarnation: Incarnation,
    /// Where on the ladder it is.
    pub rung: Rung,
    /// Failures in a row on this rung.
    pub strikes: u32,
    /// Since when something is wrong, if it is.
    pub failing_since: Option<TimeNs>,
}

/// The state of the plan.
#[derive(Clone, Debug)]
pub struct Ladder {
    /// The shadow first.
    members: Vec<Member>,
    everything: Everything,
    actions: Vec<Action>,
}

impl Ladder {
    /// A plan for a shadow and these NICs, none of which was ever started. The first step starts them.
    ///
    /// # Errors
    /// Too many NICs, or one of them twice.
    pub fn new(nics: &[NicId], now: TimeNs) -> Result<Self> {
        Self::resuming(nics, &[], now)
    }

    /// A plan that goes on where an earlier keeper's was. A reset that it had begun is begun anew, wherever it was broken off.
    /// Of a process that ended meanwhile [`Input::Ended`] is to be told.
    ///
    /// # Errors
    /// Too many NICs, or one of them twice.
    pub fn resuming(nics: &[NicId], memories: &[Memory], now: TimeNs) -> Result<Self> {
        if nics.len() > NICS_MAX {
            return Err(WatchError::TooManyNics { nics: nics.len(), max: NICS_MAX });
        }
        if let Some((_, nic)) = nics.iter().enumerate().find(|(index, nic)| nics[..*index].contains(nic)) {
            return Err(WatchError::NicTwice(*nic));
        }
        let parts = std::iter::once(Part::Shadow).chain(nics.iter().copied().map(Part::Driver));
        let member = |part| match memories.iter().find(|memory| memory.part == part) {
            Some(memory) => Member::resume(memory, now),
            None => Member::new(part, now),
        };
        let members = parts.map(member).collect();
        Ok(Self { members, everything: Everything::default(), actions: Vec::new() })
    }

    /// What a later keeper must know, the shadow first.
    pub fn memories(&self) -> Vec<Memory> {
        self.members.iter().map(Member::remember).collect()
    }

    /// Takes one input and tells what to do, in this order.
    pub fn step(&mut self, now: TimeNs, input: Input) -> Vec<Action> {
        self.take(now, input);
        for index in 0..self.members.len() {
            self.keep_deadlines(now, index);
        }
        self.restart_everything(now);
        for index in 0..self.members.len() {
            self.begin_due(now, index);
        }
        std::mem::take(&mut self.actions)
    }

    /// When the next [`Input::Tick`] is due if nothing else happens.
    pub fn next_deadline(&self) -> Option<TimeNs> {
        let members = self.members.iter().filter_map(Member::next_deadline);
        members.chain(self.everything.next_deadline()).min()
    }

    /// All parts, the shadow first.
    pub fn view(&self) -> Vec<PartView> {
        self.members.iter().map(view).collect()
    }

    fn take(&mut self, now: TimeNs, input: Input) {
        match input {
            Input::Tick => {}
            Input::Ready { part, incarnation } => {
                if let Some(index) = self.present(part, incarnation)
                    && matches!(self.members[index].phase, Phase::Starting { .. })
                {
                    self.members[index].phase = Phase::Running { since: now, proven: false };
                }
            }
            Input::Condemned { part, incarnation, cause } => {
                if let Some(index) = self.present(part, incarnation)
                    && self.members[index].is_wanted()
                {
                    self.fail(now, index, cause);
                    self.fence(now, index);
                }
            }
            Input::Ended { part, incarnation, cause } => {
                if let Some(index) = self.present(part, incarnation) {
                    self.ended(now, index, cause);
                }
            }
            Input::DeviceTrouble { nic, trouble } => self.trouble(now, nic, trouble),
            Input::DeviceFine { nic } => self.device_fine(now, nic),
            Input::ResetDone { nic, attempt, succeeded } => self.reset_done(now, nic, attempt, succeeded),
        }
    }

    fn find(&self, part: Part) -> Option<usize> {
        self.members.iter().position(|member| member.part == part)
    }

    /// The part, if the report is about its present process.
    fn present(&self, part: Part, incarnation: Incarnation) -> Option<usize> {
        let index = self.find(part)?;
        let member = &self.members[index];
        (member.incarnation == incarnation && member.is_alive()).then_some(index)
    }

    fn report(&mut self, at: TimeNs, index: usize, kind: ReportKind) {
        let member = &self.members[index];
        let Member { part, incarnation, rung, failing_since: since, .. } = *member;
        self.actions.push(Action::Report(Report { at, part, incarnation, rung, kind, since }));
    }

    fn fail(&mut self, now: TimeNs, index: usize, cause: Cause) {
        let before = self.members[index].rung;
        let plan = self.members[index].charge(now);
        self.report(now, index, ReportKind::Failed(cause));
        self.members[index].plan = plan;
        if self.members[index].rung != before {
            self.report(now, index, ReportKind::Escalated);
        }
        if plan == Plan::GiveUp {
            self.report(now, index, ReportKind::GaveUp);
        }
    }

    fn fence(&mut self, now: TimeNs, index: usize) {
        let member = &mut self.members[index];
        member.phase = Phase::Fencing { kill_at: now.plus_ns(KILL_AGAIN_NS), kills: 1 };
        member.device.end(now);
        let (part, incarnation) = (member.part, member.incarnation);
        self.actions.push(Action::Kill { part, incarnation });
        if let Plan::All { at } = self.members[index].plan {
            self.everything.want(at);
        }
    }

    fn ended(&mut self, now: TimeNs, index: usize, cause: Cause) {
        if self.members[index].is_wanted() {
            self.fail(now, index, cause);
        }
        let member = &mut self.members[index];
        member.device.end(now);
        match member.plan {
            Plan::Start { at } => member.phase = Phase::Down { start_at: at },
            Plan::Reset { at } => member.phase = Phase::ResetDue { at },
            Plan::GiveUp => member.give_up(now),
            Plan::All { at } => {
                member.phase = Phase::Held;
                self.everything.want(at);
            }
        }
    }

    fn trouble(&mut self, now: TimeNs, nic: NicId, trouble: DeviceReport) {
        let Some(index) = self.find(Part::Driver(nic)) else { return };
        let member = &mut self.members[index];
        if trouble == DeviceReport::Fine {
            return self.device_fine(now, nic);
        }
        if matches!(member.phase, Phase::Running { .. }) && member.device.begin(now, trouble) {
            member.failing_since.get_or_insert(now);
            self.report(now, index, ReportKind::DeviceTrouble(trouble));
        }
    }

    fn device_fine(&mut self, now: TimeNs, nic: NicId) {
        let Some(index) = self.find(Part::Driver(nic)) else { return };
        let member = &mut self.members[index];
        if member.device.end(now) && matches!(member.phase, Phase::Running { .. }) {
            member.phase = Phase::Running { since: now, proven: false };
        }
    }

    fn reset_done(&mut self, now: TimeNs, nic: NicId, attempt: Attempt, succeeded: bool) {
        let Some(index) = self.find(Part::Driver(nic)) else { return };
        let member = &mut self.members[index];
        if !matches!(member.phase, Phase::Resetting { .. }) || member.attempt != attempt {
            return;
        }
        // A driver may work on a device whose reset failed, and if not, that counts as its failure.
        member.phase = Phase::Down { start_at: now };
        if !succeeded {
            self.report(now, index, ReportKind::ResetFailed);
        }
    }

    fn keep_deadlines(&mut self, now: TimeNs, index: usize) {
        if self.members[index].success_at().is_some_and(|at| now >= at) {
            self.succeed(now, index);
        }
        match self.members[index].phase {
            Phase::Starting { deadline } if now >= deadline => {
                self.fail(now, index, Cause::Hung);
                self.fence(now, index);
            }
            Phase::Fencing { kill_at, kills } if now >= kill_at => self.kill_again(now, index, kills),
            Phase::Resetting { deadline: Some(deadline) } if now >= deadline => {
                self.members[index].phase = Phase::Resetting { deadline: None };
                self.report(now, index, ReportKind::ResetStuck);
            }
            Phase::Running { .. } => self.mend_device(now, index),
            _ => {}
        }
    }

    fn succeed(&mut self, now: TimeNs, index: usize) {
        if let Some(since) = self.members[index].succeed(now) {
            let Member { part, incarnation, rung, .. } = self.members[index];
            let kind = ReportKind::Recovered;
            self.actions.push(Action::Report(Report {
                at: now,
                part,
                incarnation,
                rung,
                kind,
                since: Some(since),
            }));
        }
    }

    fn kill_again(&mut self, now: TimeNs, index: usize, kills: u32) {
        let pause_ns = (KILL_AGAIN_NS << kills.min(10)).min(KILL_AGAIN_MAX_NS);
        let member = &mut self.members[index];
        member.phase = Phase::Fencing { kill_at: now.plus_ns(pause_ns), kills: kills.saturating_add(1) };
        let (part, incarnation) = (member.part, member.incarnation);
        self.actions.push(Action::Kill { part, incarnation });
        if kills + 1 == KILLS_REPORTED {
            self.report(now, index, ReportKind::DoesNotEnd);
        }
    }

    fn mend_device(&mut self, now: TimeNs, index: usize) {
        let Some(remedy) = self.members[index].device.remedy(now) else { return };
        let (kind, rung) = match remedy {
            Remedy::GiveUp => return self.report(now, index, ReportKind::GaveUp),
            Remedy::Probe => (ReportKind::Probing, Rung::ResetDevice),
            Remedy::Climb(rung) => (ReportKind::Escalated, rung),
        };
        let member = &mut self.members[index];
        member.plan = match rung {
            Rung::Restart => Plan::Start { at: now },
            Rung::ResetDevice => Plan::Reset { at: now },
            Rung::RestartAll => Plan::All { at: now },
        };
        let before = std::mem::replace(&mut member.rung, rung);
        self.report(now, index, kind);
        self.members[index].rung = before;
        self.fence(now, index);
    }

    fn begin_due(&mut self, now: TimeNs, index: usize) {
        match self.members[index].phase {
            Phase::GivenUp { probe_at } if now >= probe_at => {
                self.members[index].probing = true;
                self.report(now, index, ReportKind::Probing);
                self.start(now, index);
            }
            Phase::Down { start_at } if now >= start_at => self.start(now, index),
            Phase::ResetDue { at } if now >= at => self.reset(now, index),
            _ => {}
        }
    }

    fn start(&mut self, now: TimeNs, index: usize) {
        let member = &mut self.members[index];
        member.incarnation.0 += 1;
        member.phase = Phase::Starting { deadline: now.plus_ns(member.ready_bound_ns()) };
        let (part, incarnation) = (member.part, member.incarnation);
        self.actions.push(Action::Start { part, incarnation });
    }

    fn reset(&mut self, now: TimeNs, index: usize) {
        let member = &mut self.members[index];
        let Some(nic) = member.part.nic() else { return };
        member.attempt.0 += 1;
        member.phase = Phase::Resetting { deadline: Some(now.plus_ns(RESET_BOUND_NS)) };
        let attempt = member.attempt;
        self.actions.push(Action::Reset { nic, attempt });
    }
}

fn view(member: &Member) -> PartView {
    PartView {
        part: member.part,
        state: match member.phase {
            Phase::Down { .. } | Phase::Held => State::Down,
            Phase::Starting { .. } => State::Starting,
            Phase::Running { .. } => State::Running,
            Phase::Fencing { .. } => State::Fencing,
            Phase::ResetDue { .. } | Phase::Resetting { .. } => State::Resetting,
            Phase::GivenUp { .. } => State::GivenUp,
        },
        incarnation: member.incarnation,
        rung: member.rung,
        strikes: member.strikes(),
        failing_since: member.failing_since,
    }
}
