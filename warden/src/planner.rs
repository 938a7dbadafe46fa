//! The plan that keeps one gateway and its replicas alive with at most one leader. Pure: what is known comes in
//! as [`Input`], time is an argument, what is to be done goes out as [`Action`].
//!
//! ```text
//!             a fit replica and a ready gateway: Lead(epoch + 1)          Leading(epoch)
//!   Vacant ------------------------------------------------------> Taking --------------> Serving
//!     ^                                                              |                       |
//!     |  its pidfd says that it is gone                              | bound passed: Kill    |
//!     +--------------------------------------------------------------+-----------------------+
//! ```
//!
//! A warden that finds processes of an earlier one begins with all of them `Awaited`, and with the lead as it was written
//! down. Nobody is promoted while a replica that may lead is awaited.
//!
//! Only a death that was seen makes the lead vacant, so a leader that was given up is killed and waited for. A new
//! gateway gets a fresh link to the present leader: `Lead` with the same epoch.

mod adopt;
mod mend;
mod mistrust;
mod pursue;
mod service;
mod take;
#[cfg(test)]
mod tests;
mod types;

use std::collections::BTreeMap;

pub use adopt::{Found, Recorded};
pub use types::{Action, Fault, Input, ServiceView, State};

use crate::event::{Event, Kind, Severity};
use crate::ids::{ServiceId, Target, TimeUs};
use crate::limits::{MEMBERS_MAX, REPLICAS_MAX};
use service::{FaultSeen, Phase, Service};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leadership {
    Vacant,
    /// An earlier warden told it to lead.
    Awaited {
        replica: u32,
    },
    Taking {
        replica: u32,
        deadline: TimeUs,
    },
    Serving {
        replica: u32,
    },
}

#[derive(Clone, Copy, Debug)]
struct SnapshotAsk {
    replica: u32,
    deadline: TimeUs,
}

/// The order in which services end: who takes new clients first, who serves them next, who follows, and last what they
/// all rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum StopStage {
    Gateway,
    Leader,
    Followers,
    Members,
}

/// A snapshot that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeptSnapshot {
    index: u64,
    /// Replica and incarnation; none if an earlier warden took it.
    author: Option<(u32, u64)>,
}

/// The state of the plan.
#[derive(Debug)]
pub struct Planner {
    services: BTreeMap<ServiceId, Service>,
    leadership: Leadership,
    epoch: u64,
    gateway_joined: bool,
    outage: Option<FaultSeen>,
    snapshot_wanted: bool,
    snapshot_ask: Option<SnapshotAsk>,
    /// Newest first.
    snapshots: Vec<KeptSnapshot>,
    /// Who finds each replica wrong.
    votes: BTreeMap<u32, mistrust::Accusation>,
    adoption: Option<adopt::Adoption>,
    memory_known: bool,
    stopping: Option<StopStage>,
    failed: Option<ServiceId>,
    finished: bool,
    actions: Vec<Action>,
}

impl Planner {
    /// A plan for a gateway and `replicas` replicas, none of which runs yet. The first step starts them.
    pub fn new(replicas: u32, now: TimeUs) -> Self {
        Self::with_members(replicas, 0, now)
    }

    /// As [`Planner::new`], with members of an engine's own cluster, which are started first.
    pub fn with_members(replicas: u32, members: u32, now: TimeUs) -> Self {
        assert!((1..=REPLICAS_MAX).contains(&replicas), "{replicas} replicas are out of bounds");
        assert!(members <= MEMBERS_MAX, "{members} members are out of bounds");
        let members = (0..members).map(ServiceId::Member);
        let ids =
            std::iter::once(ServiceId::Gateway).chain(members).chain((0..replicas).map(ServiceId::Replica));
        Self {
            services: ids.map(|id| (id, Service::new(id, now))).collect(),
            leadership: Leadership::Vacant,
            epoch: 0,
            gateway_joined: false,
            outage: None,
            snapshot_wanted: false,
            snapshot_ask: None,
            snapshots: Vec::new(),
            votes: BTreeMap::new(),
            adoption: None,
            memory_known: true,
            stopping: None,
            failed: None,
            finished: false,
            actions: Vec::new(),
        }
    }

    /// Takes one input and tells what to do, in this order.
    pub fn step(&mut self, now: TimeUs, input: Input) -> Vec<Action> {
        if self.is_stale(&input) {
            return Vec::new();
        }
        self.take(now, input);
        self.keep_deadlines(now);
        self.end_adoption(now);
        self.mend(now);
        self.elect(now);
        self.ask_snapshot(now);
        self.spawn_due(now);
        self.go_on_stopping(now);
        std::mem::take(&mut self.actions)
    }

    /// When the next [`Input::Tick`] is due if nothing else happens.
    pub fn next_deadline(&self) -> Option<TimeUs> {
        let leading = self.takeover_deadline().map(|(_, deadline)| deadline);
        let asked = self.snapshot_ask.map(|ask| ask.deadline);
        let services = self.services.values().flat_map(|service| {
            let phase = match service.phase {
                Phase::Down { start_at } => {
                    let startable = self.memory_known && service.broken_at.is_none();
                    Some(start_at).filter(|_| self.stopping.is_none() && startable)
                }
                Phase::Awaited { deadline } | Phase::Starting { deadline } | Phase::Stopping { deadline } => {
                    Some(deadline)
                }
                Phase::Fencing { kill_again_at } => Some(kill_again_at),
                Phase::Ready | Phase::GivenUp | Phase::Ended => None,
            };
            let suspicion = service.suspicion.as_ref().map(|suspicion| suspicion.kill_at);
            [phase, suspicion].into_iter().flatten()
        });
        services.chain(leading).chain(asked).min()
    }

    /// Whether clients are served: a leader serves and the gateway is ready.
    pub fn is_serving(&self) -> bool {
        matches!(self.leadership, Leadership::Serving { .. })
            && self.gateway_joined
            && self.stopping.is_none()
            && self.leader().is_some_and(|leader| self.services[&ServiceId::Replica(leader)].is_fit())
    }

    /// The newest leader's epoch, 0 before the first.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Last log index in the newest snapshot, 0 if there is none.
    pub fn snapshot_index(&self) -> u64 {
        self.snapshots.first().map_or(0, |newest| newest.index)
    }

    /// The replica that leads or was told to.
    pub fn leader(&self) -> Option<u32> {
        match self.leadership {
            Leadership::Vacant => None,
            Leadership::Awaited { replica }
            | Leadership::Taking { replica, .. }
            | Leadership::Serving { replica } => Some(replica),
        }
    }

    /// Members of an engine's own cluster.
    pub fn members(&self) -> u32 {
        self.count(control::Role::Member)
    }

    /// Replicas.
    pub fn replicas(&self) -> u32 {
        self.count(control::Role::Replica)
    }

    fn count(&self, role: control::Role) -> u32 {
        let count = self.services.keys().filter(|id| id.role() == role).count();
        u32::try_from(count).expect("bounded by REPLICAS_MAX and MEMBERS_MAX")
    }

    /// The live service that a target means, with its process. The warden itself is none of them.
    pub fn resolve(&self, target: Target) -> Option<(ServiceId, u32)> {
        let id = match target {
            Target::Warden => return None,
            Target::Service(id) => id,
            Target::Leader => ServiceId::Replica(self.leader()?),
            Target::Follower => self.followers().find(|service| service.is_fit())?.id,
        };
        let service = self.services.get(&id)?;
        Some((id, service.fault_pid.or(service.pid).filter(|_| service.is_alive())?))
    }

    /// All services, the gateway first.
    pub fn view(&self) -> Vec<ServiceView> {
        self.services.values().map(|service| self.view_one(service)).collect()
    }

    fn view_one(&self, service: &Service) -> ServiceView {
        let leader = service.id.replica().is_some() && service.id.replica() == self.leader();
        ServiceView {
            service: service.id,
            leader,
            state: match service.phase {
                Phase::Down { .. } | Phase::Ended => State::Down,
                Phase::Starting { .. } | Phase::Awaited { .. } => State::Starting,
                Phase::Ready if !leader => State::Ready,
                Phase::Ready if matches!(self.leadership, Leadership::Serving { .. }) => State::Serving,
                Phase::Ready => State::TakingOver,
                Phase::Stopping { .. } => State::Stopping,
                Phase::Fencing { .. } => State::Fencing,
                Phase::GivenUp => State::GivenUp,
            },
            pid: service.pid.filter(|_| service.is_alive()),
            was_ready: service.was_ready(),
            incarnation: service.incarnation,
            restarts: service.restarts,
            applied: service.applied,
            since: service.since,
            last_death: service.last_death.clone(),
        }
    }

    fn followers(&self) -> impl Iterator<Item = &Service> {
        let leader = self.leader();
        self.services.values().filter(move |service| service.id.replica().is_some_and(|n| Some(n) != leader))
    }

    /// A report of a process that is not the present one of its service says nothing about it.
    fn is_stale(&self, input: &Input) -> bool {
        let (service, incarnation) = match *input {
            Input::Tick | Input::StopRequested | Input::Asleep { .. } | Input::SnapshotsFound { .. } => {
                return false;
            }
            Input::Inject { service, .. } => return !self.services.contains_key(&service),
            Input::Progress { replica, incarnation, .. } => (ServiceId::Replica(replica), incarnation),
            Input::Spawned { service, incarnation, .. }
            | Input::Ready { service, incarnation, .. }
            | Input::Leading { service, incarnation, .. }
            | Input::Died { service, incarnation, .. }
            | Input::Halted { service, incarnation }
            | Input::Continued { service, incarnation }
            | Input::LinkClosed { service, incarnation }
            | Input::Unresponsive { service, incarnation, .. }
            | Input::SnapshotWanted { service, incarnation }
            | Input::Hello { service, incarnation, .. }
            | Input::SnapshotDamaged { service, incarnation, .. }
            | Input::EngineWaits { service, incarnation }
            | Input::LogDamaged { service, incarnation, .. }
            | Input::Mistrust { service, incarnation, .. }
            | Input::Damaged { service, incarnation, .. }
            | Input::FaultsFor { service, incarnation, .. }
            | Input::SnapshotTaken { service, incarnation, .. } => (service, incarnation),
        };
        !self.services.get(&service).is_some_and(|known| known.incarnation == incarnation && known.is_alive())
    }

    fn service(&mut self, id: ServiceId) -> &mut Service {
        self.services.get_mut(&id).expect("stale inputs are refused, and all other ids come from the map")
    }

    fn about(&self, id: ServiceId, severity: Severity, kind: Kind) -> Event {
        let service = &self.services[&id];
        Event {
            service: Some(id),
            incarnation: Some(service.incarnation),
            pid: service.pid,
            ..Event::new(severity, kind)
        }
    }

    fn emit(&mut self, event: Event) {
        self.actions.push(Action::Emit(Box::new(event)));
    }
}
