//! What follows from the plan's state and the time, whatever the input was.

use super::service::Phase;
use super::{Action, Leadership, Planner, SnapshotAsk, StopStage};
use crate::event::{Event, Kind, Severity};
use crate::ids::{ServiceId, TimeUs};
use crate::limits::{KILL_AGAIN_MS, SNAPSHOT_BOUND_MS, START_BOUND_MS, STOP_BOUND_MS, TAKEOVER_BOUND_MS};

impl Planner {
    /// Kills what let its time pass.
    pub(super) fn keep_deadlines(&mut self, now: TimeUs) {
        let ids: Vec<_> = self.services.keys().copied().collect();
        for id in ids {
            let service = self.service(id);
            let incarnation = service.incarnation;
            match service.phase {
                Phase::Starting { deadline } if now >= deadline => {
                    self.kill(now, id, "was not ready in time")
                }
                Phase::Awaited { deadline } if now >= deadline => {
                    self.kill(now, id, "did not say hello in time")
                }
                Phase::Stopping { deadline } if now >= deadline => self.kill(now, id, "did not stop in time"),
                Phase::Fencing { kill_again_at } if now >= kill_again_at => {
                    service.phase = Phase::Fencing { kill_again_at: now.plus_ms(KILL_AGAIN_MS) };
                    self.actions.push(Action::Kill { service: id, incarnation });
                }
                _ => {
                    let due = service.suspicion.as_ref().filter(|suspicion| now >= suspicion.kill_at);
                    if let Some(why) = due.map(|suspicion| suspicion.why.clone()) {
                        self.kill(now, id, &why);
                    }
                }
            }
        }
        self.keep_takeover_deadline(now);
    }

    fn keep_takeover_deadline(&mut self, now: TimeUs) {
        if let Some((id, deadline)) = self.takeover_deadline()
            && now >= deadline
        {
            self.service(id).failed_its_task();
            self.kill(now, id, "did not take over in time");
        }
    }

    /// Without a gateway nobody can take over, so that time does not count.
    pub(super) fn takeover_deadline(&self) -> Option<(ServiceId, TimeUs)> {
        let Leadership::Taking { replica, deadline } = self.leadership else { return None };
        let id = ServiceId::Replica(replica);
        (self.gateway_joined && self.services[&id].phase == Phase::Ready).then_some((id, deadline))
    }

    /// Fills a vacant lead, and joins a new gateway to the present leader.
    pub(super) fn elect(&mut self, now: TimeUs) {
        if self.stopping.is_some() || self.services[&ServiceId::Gateway].phase != Phase::Ready {
            return;
        }
        match self.leadership {
            Leadership::Vacant => self.promote(now),
            Leadership::Taking { replica, .. } | Leadership::Serving { replica } if !self.gateway_joined => {
                self.lead(now, replica);
            }
            Leadership::Awaited { .. } | Leadership::Taking { .. } | Leadership::Serving { .. } => {}
        }
    }

    fn promote(&mut self, now: TimeUs) {
        if self.may_lead_unseen() {
            return;
        }
        let fit = self.followers().filter(|service| service.is_fit());
        let best = fit.max_by_key(|service| {
            (!self.is_accused(service.id), service.applied, std::cmp::Reverse(service.id))
        });
        let Some(replica) = best.and_then(|service| service.id.replica()) else { return };
        self.epoch += 1;
        self.leadership = Leadership::Taking { replica, deadline: now };
        self.service(ServiceId::Replica(replica)).since = now;
        self.lead(now, replica);
        let mut event = self.about(ServiceId::Replica(replica), Severity::Info, Kind::LeaderPromoted);
        event.epoch = Some(self.epoch);
        self.emit(event);
    }

    fn lead(&mut self, now: TimeUs, replica: u32) {
        let incarnation = self.services[&ServiceId::Replica(replica)].incarnation;
        self.gateway_joined = true;
        if let Leadership::Taking { deadline, .. } = &mut self.leadership {
            *deadline = now.plus_ms(TAKEOVER_BOUND_MS);
        }
        self.actions.push(Action::Lead { replica, incarnation, epoch: self.epoch });
        self.tell_snapshot_kept();
    }

    pub(super) fn ask_snapshot(&mut self, now: TimeUs) {
        if self.snapshot_ask.is_some_and(|ask| now >= ask.deadline) {
            self.snapshot_ask = None;
        }
        let least = match (self.snapshot_wanted, self.least_to_mend()) {
            (true, _) => 0,
            (false, Some(index)) => index,
            (false, None) => return,
        };
        if self.snapshot_ask.is_some() || self.stopping.is_some() {
            return;
        }
        let fit = self.followers().filter(|service| service.is_fit() && !self.is_accused(service.id));
        let follower = fit.max_by_key(|service| service.applied);
        let serving = matches!(self.leadership, Leadership::Serving { .. }).then(|| self.leader()).flatten();
        let serving = serving.map(|replica| &self.services[&ServiceId::Replica(replica)]);
        let author = [follower, serving].into_iter().flatten().find(|service| service.applied >= least);
        let Some(replica) = author.and_then(|service| service.id.replica()) else { return };
        self.snapshot_ask = Some(SnapshotAsk { replica, deadline: now.plus_ms(SNAPSHOT_BOUND_MS) });
        self.actions.push(Action::AskSnapshot { replica });
        let event = self.about(ServiceId::Replica(replica), Severity::Info, Kind::SnapshotAsked);
        self.emit(event);
    }

    pub(super) fn spawn_due(&mut self, now: TimeUs) {
        if self.stopping.is_some() || !self.memory_known {
            return;
        }
        for service in self.services.values_mut().filter(|service| service.broken_at.is_none()) {
            if matches!(service.phase, Phase::Down { start_at } if now >= start_at) {
                service.begin(now.plus_ms(START_BOUND_MS), now);
                self.actions.push(Action::Spawn { service: service.id, incarnation: service.incarnation });
            }
        }
    }

    pub(super) fn go_on_stopping(&mut self, now: TimeUs) {
        while let Some(stage) = self.stopping {
            let alive: Vec<_> = self.services.values().filter(|s| s.is_alive()).map(|s| s.id).collect();
            let due: Vec<_> = alive.into_iter().filter(|id| self.stop_stage(*id) <= stage).collect();
            for id in &due {
                self.order_stop(now, *id);
            }
            match stage {
                _ if !due.is_empty() => return,
                StopStage::Gateway => self.stopping = Some(StopStage::Leader),
                StopStage::Leader => self.stopping = Some(StopStage::Followers),
                StopStage::Followers => self.stopping = Some(StopStage::Members),
                StopStage::Members => return self.finish(now),
            }
        }
    }

    fn stop_stage(&self, id: ServiceId) -> StopStage {
        match id {
            ServiceId::Gateway => StopStage::Gateway,
            ServiceId::Replica(replica) if Some(replica) == self.leader() => StopStage::Leader,
            ServiceId::Replica(_) => StopStage::Followers,
            ServiceId::Member(_) => StopStage::Members,
        }
    }

    fn order_stop(&mut self, now: TimeUs, id: ServiceId) {
        let service = self.service(id);
        if matches!(service.phase, Phase::Starting { .. } | Phase::Ready) {
            service.enter(Phase::Stopping { deadline: now.plus_ms(STOP_BOUND_MS) }, now);
            self.actions.push(Action::Stop { service: id });
        }
    }

    fn finish(&mut self, now: TimeUs) {
        if self.finished {
            return;
        }
        self.finished = true;
        for service in self.services.values_mut() {
            if matches!(service.phase, Phase::Down { .. }) {
                service.enter(Phase::Ended, now);
            }
        }
        self.emit(Event::new(Severity::Info, Kind::Stopped));
        self.actions.push(Action::Finished { failed: self.failed });
    }
}
