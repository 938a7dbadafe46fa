//! How a plan goes on from the one of an earlier warden, and how it takes a pause of its own.

use super::service::{FaultSeen, Phase, Service};
use super::{Action, KeptSnapshot, Leadership, Planner};
use crate::event::{Event, Kind, Severity};
use crate::ids::{ServiceId, TimeUs};
use crate::limits::{HELLO_BOUND_MS, SNAPSHOTS_KEPT, START_BOUND_MS};

/// What an earlier warden wrote down, as far as it is still so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The newest epoch that a replica was told to lead.
    pub epoch: u64,
    /// The replica that was told to.
    pub leader: Option<u32>,
    /// The services.
    pub services: Vec<Found>,
}

/// One service as an earlier warden wrote it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which one.
    pub service: ServiceId,
    /// Starts so far.
    pub incarnation: u64,
    /// Its process, if that one lives.
    pub pid: Option<u32>,
    /// Whether it took orders.
    pub ready: bool,
}

/// What is to be told when all that live have said hello.
#[derive(Debug, Default)]
pub(super) struct Adoption {
    taken_over: Vec<String>,
    orphaned_ms: u64,
}

impl Planner {
    /// A plan that goes on from what an earlier warden wrote down. The first step starts what does not live, as soon as
    /// a service that lives has handed over the group's memory.
    pub fn adopted(replicas: u32, members: u32, recorded: &Recorded, now: TimeUs) -> Self {
        let mut planner = Self::with_members(replicas, members, now);
        planner.epoch = recorded.epoch;
        planner.adoption = Some(Adoption::default());
        planner.memory_known = false;
        for found in &recorded.services {
            if let Some(service) = planner.services.get_mut(&found.service) {
                *service = Service::recorded(found, now.plus_ms(HELLO_BOUND_MS), now);
            }
        }
        let leader = recorded.leader.filter(|number| {
            planner.services.get(&ServiceId::Replica(*number)).is_some_and(Service::is_alive)
        });
        planner.leadership = match leader {
            Some(replica) => Leadership::Awaited { replica },
            None => Leadership::Vacant,
        };
        planner
    }

    /// `applied` is none for a service that takes no orders yet.
    pub(super) fn take_hello(
        &mut self,
        now: TimeUs,
        id: ServiceId,
        applied: Option<u64>,
        leads_epoch: u64,
        orphaned_ms: u64,
    ) {
        if !matches!(self.services[&id].phase, Phase::Awaited { .. }) {
            return;
        }
        self.memory_known = true;
        match applied {
            Some(applied) => self.service(id).ready(applied, now),
            None => self.service(id).enter(Phase::Starting { deadline: now.plus_ms(START_BOUND_MS) }, now),
        }
        let mut event = self.about(id, Severity::Info, Kind::ServiceAdopted);
        event.epoch = (leads_epoch > 0).then_some(leads_epoch);
        event.detail = format!("without a warden for {orphaned_ms} ms");
        self.emit(event);
        if let Some(adoption) = &mut self.adoption {
            adoption.orphaned_ms = adoption.orphaned_ms.max(orphaned_ms);
            adoption.taken_over.push(match leads_epoch {
                0 => id.to_string(),
                epoch => format!("{id} (leads epoch {epoch})"),
            });
        }
        if let Some(replica) = id.replica() {
            self.take_lead_found(now, replica, leads_epoch);
        }
    }

    fn take_lead_found(&mut self, now: TimeUs, replica: u32, leads_epoch: u64) {
        let known = self.leadership;
        if leads_epoch == 0 {
            if known == (Leadership::Awaited { replica }) {
                // The order to lead did not reach it, or the gateway was gone before it could obey.
                self.vacate_awaited(now);
            }
            return;
        }
        let settled = matches!(known, Leadership::Taking { .. } | Leadership::Serving { .. });
        if settled || leads_epoch < self.epoch {
            self.kill(now, ServiceId::Replica(replica), "leads an epoch that is over");
            if known == (Leadership::Awaited { replica }) {
                self.outage.get_or_insert(FaultSeen { at: now, detect_us: None });
            }
            return;
        }
        self.epoch = leads_epoch;
        self.leadership = Leadership::Serving { replica };
        // Half of an order may have been sent: a fresh link to the gateway puts both right.
        self.gateway_joined = false;
    }

    fn vacate_awaited(&mut self, now: TimeUs) {
        self.leadership = Leadership::Vacant;
        self.outage.get_or_insert(FaultSeen { at: now, detect_us: None });
    }

    /// Whether a replica may lead that has not said so yet.
    pub(super) fn may_lead_unseen(&self) -> bool {
        self.services.values().any(|service| {
            let awaited = matches!(service.phase, Phase::Awaited { .. });
            service.id.replica().is_some() && awaited && service.was_ready()
        })
    }

    /// The snapshots that services of an earlier warden handed in.
    pub(super) fn take_snapshots_found(&mut self, indices: Vec<u64>) {
        let author = |index| self.snapshots.iter().find(|known| known.index == index).and_then(|k| k.author);
        let found = indices.into_iter().take(SNAPSHOTS_KEPT);
        self.snapshots = found.map(|index| KeptSnapshot { index, author: author(index) }).collect();
    }

    /// Tells who was taken over when nobody is awaited any more. Without any memory the group begins anew.
    pub(super) fn end_adoption(&mut self, _now: TimeUs) {
        let awaited = self.services.values().any(|service| {
            matches!(service.phase, Phase::Awaited { .. })
                || (!self.memory_known && matches!(service.phase, Phase::Fencing { .. }))
        });
        if awaited {
            return;
        }
        let Some(Adoption { taken_over, orphaned_ms }) = self.adoption.take() else { return };
        if !self.memory_known {
            self.memory_known = true;
            self.actions.push(Action::MakeMemory);
            let detail = "no service was left to take over: the store begins empty".to_owned();
            self.emit(Event { detail, ..Event::new(Severity::Error, Kind::StateLost) });
            return;
        }
        let detail = format!("{}; nobody watched for {orphaned_ms} ms", taken_over.join(", "));
        self.emit(Event { detail, epoch: Some(self.epoch), ..Event::new(Severity::Info, Kind::Adopted) });
    }

    /// Puts off everything that is due by the time that this process was not run.
    pub(super) fn forgive(&mut self, us: u64) {
        let later = |at: &mut TimeUs| at.0 = at.0.saturating_add(us);
        for service in self.services.values_mut() {
            match &mut service.phase {
                Phase::Awaited { deadline } | Phase::Starting { deadline } | Phase::Stopping { deadline } => {
                    later(deadline);
                }
                Phase::Fencing { .. } | Phase::Down { .. } | Phase::Ready | Phase::GivenUp | Phase::Ended => {
                }
            }
            if let Some(suspicion) = &mut service.suspicion {
                later(&mut suspicion.kill_at);
            }
        }
        if let Leadership::Taking { deadline, .. } = &mut self.leadership {
            later(deadline);
        }
        if let Some(ask) = &mut self.snapshot_ask {
            later(&mut ask.deadline);
        }
    }
}
