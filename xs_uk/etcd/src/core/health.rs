//! What is known of the members, and making room when their quota is used up.
//!
//! ```text
//!   quota used up: Look -> Compact -> Defragment(0) .. Defragment(n) -> Disarm -> Quiet --+--> over, if nobody complained
//!                   ^                                                                    |
//!                   +--------------------------- after a pause --------------------------+
//! ```
//!
//! `Look` asks for the present revision: what others deleted lies beyond the last one that we saw, and an etcd without
//! room refuses the transactions that would have told us. A leader does all this, or a replica that claims to be one.

use std::time::Duration;

use xs_consensus::{EngineHealth, EngineMember, EngineWarning};

use super::{CoreConfig, millis};
use crate::call::{CallError, Request, Status};
use crate::keys::Keys;
use crate::limits::{SPACE_QUIET, TEND_PAUSE};
use crate::version::repaired_in;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tend {
    Look,
    Compact,
    Defragment(usize),
    Disarm,
    Quiet,
}

#[derive(Clone, Debug, Default)]
struct Member {
    endpoint: String,
    reachable: bool,
    status: Status,
}

/// The members' state.
#[derive(Debug)]
pub(super) struct Health {
    members: Vec<Member>,
    /// Whom to ask next, and when.
    pub next: usize,
    pub next_at: Duration,
    /// When etcd last answered a call that needs its quorum.
    answered: Duration,
    pub latency: Option<Duration>,
    /// What the last call that needs the quorum met.
    pub failing: Option<String>,
    no_space: Option<(Tend, Duration)>,
    /// When a write or a member last told of it.
    no_space_told: Duration,
    tend_failure: Option<String>,
    told: EngineHealth,
}

impl Health {
    pub fn new(endpoints: &[String]) -> Self {
        let member = |endpoint: &String| Member { endpoint: endpoint.clone(), ..Member::default() };
        Self {
            members: endpoints.iter().map(member).collect(),
            next: 0,
            next_at: Duration::ZERO,
            answered: Duration::ZERO,
            latency: None,
            failing: None,
            no_space: None,
            no_space_told: Duration::ZERO,
            tend_failure: None,
            told: EngineHealth::Healthy,
        }
    }

    pub fn answered(&mut self, now: Duration) {
        self.answered = now;
        self.failing = None;
    }

    /// True if there is something to tell.
    pub fn hear(&mut self, now: Duration, status: Option<Status>, config: &CoreConfig) -> bool {
        let member = &mut self.members[self.next];
        let changed = member.reachable != status.is_some();
        member.reachable = status.is_some();
        let no_space = status.as_ref().is_some_and(|status| status.no_space);
        if let Some(status) = status {
            member.status = status;
        }
        self.next = (self.next + 1) % self.members.len();
        // Each member once in the interval.
        let share = u32::try_from(self.members.len()).unwrap_or(1);
        self.next_at = now + config.status_interval / share;
        if no_space {
            self.no_space_at(now);
        }
        changed || no_space || self.has_room_again(now)
    }

    pub fn no_space_at(&mut self, now: Duration) {
        self.no_space_told = now;
        self.no_space.get_or_insert((Tend::Look, now));
    }

    /// Whether nobody has complained for so long that a write that waits would have. While a member defragments, nobody
    /// can.
    fn has_room_again(&mut self, now: Duration) -> bool {
        let rests = matches!(self.no_space, Some((Tend::Look | Tend::Quiet, _)));
        let over = rests && now.saturating_sub(self.no_space_told) > SPACE_QUIET;
        if over {
            (self.no_space, self.tend_failure) = (None, None);
        }
        over
    }

    /// When it turns out whether the room that was made is enough.
    pub fn settles_at(&self) -> Option<Duration> {
        self.no_space.filter(|(step, _)| *step == Tend::Quiet).map(|(_, at)| at)
    }

    /// Ends the pause after room was made. True if it was enough.
    pub fn settle(&mut self, now: Duration) -> bool {
        if self.settles_at().is_none_or(|at| at > now) {
            return false;
        }
        let over = self.has_room_again(now);
        if !over {
            self.no_space = Some((Tend::Look, now));
        }
        over
    }

    pub fn tend_at(&self) -> Option<Duration> {
        self.no_space.filter(|(step, _)| *step != Tend::Quiet).map(|(_, at)| at)
    }

    pub fn tend(&self, keys: &Keys, revision: i64) -> Request {
        match self.no_space {
            Some((Tend::Compact, _)) => Request::Compact { revision, physical: true },
            Some((Tend::Defragment(endpoint), _)) => Request::Defragment { endpoint },
            Some((Tend::Disarm, _)) => Request::Disarm,
            _ => Request::Revision { key: keys.leader() },
        }
    }

    pub fn tended(&mut self, now: Duration) {
        let members = self.members.len();
        let Some((step, at)) = &mut self.no_space else { return };
        *step = match *step {
            Tend::Look => Tend::Compact,
            Tend::Compact => Tend::Defragment(0),
            Tend::Defragment(i) if i + 1 < members => Tend::Defragment(i + 1),
            Tend::Defragment(_) => Tend::Disarm,
            Tend::Disarm | Tend::Quiet => {
                *at = now + TEND_PAUSE;
                Tend::Quiet
            }
        };
    }

    pub fn tend_failed(&mut self, now: Duration, error: &CallError) {
        self.tend_failure = Some(error.to_string());
        let members = self.members.len();
        let Some((step, at)) = &mut self.no_space else { return };
        match *step {
            // A member that is away has no need of it now.
            Tend::Defragment(i) if i + 1 < members => *step = Tend::Defragment(i + 1),
            Tend::Defragment(_) => *step = Tend::Disarm,
            _ => (*step, *at) = (Tend::Look, now + TEND_PAUSE),
        }
    }

    pub fn verdict(&self, now: Duration, waited: Duration, config: &CoreConfig) -> EngineHealth {
        let silent = now.saturating_sub(self.answered);
        let patience = 2 * config.poll_interval;
        if silent <= patience && waited <= patience {
            return EngineHealth::Healthy;
        }
        let waited_ms = millis(silent.max(waited));
        let well = self.members.iter().filter(|member| member.reachable && member.status.leader != 0).count();
        if 2 * well <= self.members.len() {
            EngineHealth::LostQuorum { waited_ms }
        } else {
            EngineHealth::Waiting { waited_ms }
        }
    }

    /// When the verdict turns bad if nothing is heard any more.
    pub fn turns_at(&self, waiting_since: Option<Duration>, config: &CoreConfig) -> Duration {
        // A moment later: at its end the patience is not used up yet.
        let patience = 2 * config.poll_interval + Duration::from_millis(1);
        self.answered.min(waiting_since.unwrap_or(Duration::MAX)) + patience
    }

    /// Whether the verdict became another since this was last asked.
    pub fn changed(&mut self, now: Duration, waited: Duration, config: &CoreConfig) -> bool {
        let verdict = self.verdict(now, waited, config);
        let changed = std::mem::discriminant(&verdict) != std::mem::discriminant(&self.told);
        self.told = verdict;
        changed
    }

    pub fn members(&self) -> Vec<EngineMember> {
        let members = self.members.iter().map(|member| EngineMember {
            endpoint: member.endpoint.clone(),
            reachable: member.reachable,
            version: member.status.version.clone(),
            is_leader: member.reachable
                && member.status.member != 0
                && member.status.member == member.status.leader,
            db_bytes: member.status.db_bytes,
            db_used_bytes: member.status.db_used_bytes,
        });
        members.collect()
    }

    pub fn version(&self) -> Option<String> {
        let versions = self.members.iter().map(|member| &member.status.version);
        let numbers = |version: &&String| -> Vec<u32> { version.split('.').flat_map(str::parse).collect() };
        versions.filter(|version| !version.is_empty()).max_by_key(numbers).cloned()
    }

    pub fn warnings(&self) -> Vec<EngineWarning> {
        let faulty = self.members.iter().filter_map(|member| {
            let (endpoint, version) = (member.endpoint.clone(), member.status.version.clone());
            let repaired_in = repaired_in(&version)?;
            Some(EngineWarning::FaultyVersion { endpoint, version, repaired_in })
        });
        let no_space = self.no_space.map(|_| EngineWarning::NoSpace);
        let corrupt = self.members.iter().find(|member| member.status.corrupt);
        let corrupt = corrupt.map(|_| EngineWarning::MemberCorrupt);
        let tend = self.tend_failure.iter().map(|what| EngineWarning::Maintenance { what: what.clone() });
        let failing = self.failing.iter().map(|what| EngineWarning::Failing { what: what.clone() });
        faulty.chain(no_space).chain(corrupt).chain(tend).chain(failing).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn full(members: usize) -> (Health, Keys) {
        let mut health = Health::new(&vec!["m".to_owned(); members]);
        health.no_space_at(SECOND);
        (health, Keys::new("/p/"))
    }

    /// The calls up to the pause, with none of them failing.
    fn make_room(health: &mut Health, keys: &Keys, now: Duration) -> Vec<Request> {
        let mut asked = Vec::new();
        while health.tend_at().is_some() {
            asked.push(health.tend(keys, 9));
            health.tended(now);
        }
        asked
    }

    #[test]
    fn room_is_made_at_every_member_behind_the_present_revision() {
        let (mut health, keys) = full(2);
        let asked = make_room(&mut health, &keys, SECOND);
        let expected = [
            Request::Revision { key: keys.leader() },
            Request::Compact { revision: 9, physical: true },
            Request::Defragment { endpoint: 0 },
            Request::Defragment { endpoint: 1 },
            Request::Disarm,
        ];
        assert_eq!(asked, expected);
        assert!(!health.settle(SECOND + TEND_PAUSE / 2) && !health.warnings().is_empty());
        assert!(health.settle(SECOND + TEND_PAUSE) && health.warnings().is_empty());
    }

    #[test]
    fn a_complaint_in_the_pause_begins_anew() {
        let (mut health, keys) = full(1);
        make_room(&mut health, &keys, SECOND);
        health.no_space_at(SECOND + TEND_PAUSE / 2);
        assert_eq!(health.settles_at(), Some(SECOND + TEND_PAUSE));
        assert!(!health.settle(SECOND + TEND_PAUSE));
        assert_eq!(health.tend(&keys, 9), Request::Revision { key: keys.leader() });
    }

    #[test]
    fn a_member_that_defragments_for_long_is_not_taken_for_one_with_room() {
        let (mut health, keys) = full(1);
        health.tended(SECOND);
        health.tended(SECOND);
        assert_eq!(health.tend(&keys, 9), Request::Defragment { endpoint: 0 });
        assert!(!health.has_room_again(20 * SECOND) && !health.settle(20 * SECOND));
        health.tended(20 * SECOND);
        assert_eq!(health.tend(&keys, 9), Request::Disarm);
    }
}
