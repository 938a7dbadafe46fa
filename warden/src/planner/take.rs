//! What each input changes in the plan's state.

use super::service::{FaultSeen, Phase, Suspicion, Verdict};
use super::{Action, Fault, Input, KeptSnapshot, Leadership, Planner, StopStage};
use crate::event::{Cause, Event, Kind, Severity};
use crate::ids::{ServiceId, TimeUs};
use crate::limits::{
    KILL_AGAIN_MS, LINK_CLOSED_GRACE_MS, RESTART_DEFER_MS, SNAPSHOTS_KEPT, STOPPED_FOLLOWER_GRACE_MS,
    STOPPED_GRACE_MS, TAKEOVER_BOUND_MS,
};

impl Planner {
    pub(super) fn take(&mut self, now: TimeUs, input: Input) {
        match input {
            Input::Tick => {}
            Input::Spawned { service, pid, .. } => self.take_spawned(service, pid),
            Input::Ready { service, applied, .. } => self.take_ready(now, service, applied),
            Input::Leading { service, epoch, applied, takeover_us, detail, .. } => {
                self.service(service).applied = applied;
                self.take_leading(now, service, epoch, takeover_us, detail);
            }
            Input::Progress { replica, applied, .. } => {
                self.service(ServiceId::Replica(replica)).applied = applied;
            }
            Input::Died { service, cause, .. } => self.take_died(now, service, &cause),
            Input::Halted { service, .. } => self.take_halted(now, service),
            Input::Continued { service, .. } => {
                let service = self.service(service);
                service.suspicion = None;
                service.injected_at = None;
            }
            Input::LinkClosed { service, .. } => {
                let kill_at = now.plus_ms(LINK_CLOSED_GRACE_MS);
                self.suspect(now, service, kill_at, "closed its link");
            }
            Input::Unresponsive { service, why, .. } => self.kill(now, service, &why),
            Input::SnapshotWanted { .. } => self.snapshot_wanted = true,
            Input::SnapshotTaken { service, index, length_bytes, .. } => {
                self.take_snapshot(service, index, length_bytes);
            }
            Input::Hello { service, ready, applied, leads_epoch, orphaned_ms, .. } => {
                self.take_hello(now, service, ready.then_some(applied), leads_epoch, orphaned_ms);
            }
            Input::SnapshotsFound { indices } => self.take_snapshots_found(indices),
            Input::Asleep { us } => self.forgive(us),
            Input::SnapshotDamaged { service, index, .. } => {
                self.drop_snapshot(index, &format!("{service} cannot load it"))
            }
            Input::EngineWaits { service, .. } => self.take_engine_waits(now, service),
            Input::LogDamaged { service, index, .. } => self.service(service).broken_at = Some(index),
            Input::Mistrust { service, replica, index, why, .. } => {
                self.take_mistrust(now, service, replica, index, &why);
            }
            Input::Damaged { service, index, why, .. } => self.take_damaged(now, service, index, &why),
            Input::FaultsFor { service, pid, .. } => self.service(service).fault_pid = Some(pid),
            Input::Inject { service, fault } => self.take_inject(now, service, fault),
            Input::StopRequested => self.take_stop(),
        }
    }

    fn take_spawned(&mut self, id: ServiceId, pid: u32) {
        self.service(id).pid = Some(pid);
        let incarnation = self.services[&id].incarnation;
        self.actions.push(Action::Begin { service: id, incarnation });
        let event = self.about(id, Severity::Info, Kind::ServiceStarted);
        self.emit(event);
    }

    fn take_ready(&mut self, now: TimeUs, id: ServiceId, applied: u64) {
        if !matches!(self.services[&id].phase, Phase::Starting { .. }) {
            return;
        }
        self.service(id).ready(applied, now);
        let mut event = self.about(id, Severity::Info, Kind::ServiceReady);
        if id.replica().is_some() {
            event.detail = format!("applied {applied}");
        }
        self.emit(event);
        self.tell_rebuilt(now, id);
    }

    fn take_leading(&mut self, now: TimeUs, id: ServiceId, epoch: u64, takeover_us: u64, detail: String) {
        let expected = id.replica().is_some() && id.replica() == self.leader() && epoch == self.epoch;
        let taking = matches!(self.leadership, Leadership::Taking { .. });
        let kind = match (expected, taking) {
            (false, _) => Kind::ReportIgnored,
            (true, true) => Kind::LeaderServing,
            (true, false) => Kind::GatewayRejoined,
        };
        let severity = if expected { Severity::Info } else { Severity::Warning };
        let mut event = Event { takeover_us: Some(takeover_us), detail, ..self.about(id, severity, kind) };
        event.epoch = Some(epoch);
        if let (true, true, Some(replica)) = (expected, taking, id.replica()) {
            self.leadership = Leadership::Serving { replica };
            self.service(id).since = now;
            let outage = self.outage.take();
            event.recover_us = outage.map(|outage| now.since_us(outage.at));
            event.detect_us = outage.and_then(|outage| outage.detect_us);
            self.undefer_restarts(now);
        }
        self.emit(event);
    }

    fn take_engine_waits(&mut self, now: TimeUs, id: ServiceId) {
        if let Leadership::Taking { replica, deadline } = &mut self.leadership
            && id == ServiceId::Replica(*replica)
        {
            *deadline = now.plus_ms(TAKEOVER_BOUND_MS);
        }
    }

    /// A dead leader's restart no longer stands in the way of the takeover.
    fn undefer_restarts(&mut self, now: TimeUs) {
        for service in self.services.values_mut() {
            if service.strikes() == 0
                && let Phase::Down { start_at } = &mut service.phase
            {
                *start_at = (*start_at).min(now);
            }
        }
    }

    fn take_died(&mut self, now: TimeUs, id: ServiceId, cause: &Cause) {
        let seen = self.service(id).see_fault(now);
        let ordered = matches!(self.services[&id].phase, Phase::Stopping { .. });
        let (severity, kind) = match (ordered, cause) {
            (true, Cause::Exited(0)) => (Severity::Info, Kind::ServiceStopped),
            _ => (Severity::Error, Kind::ServiceDied),
        };
        let mut event = self.about(id, severity, kind);
        event.cause = Some(cause.to_string());
        event.detect_us = seen.detect_us;
        let was_leader = id.replica().is_some() && id.replica() == self.leader();
        let was_taking_over = was_leader && matches!(self.leadership, Leadership::Taking { .. });
        event.epoch = was_leader.then_some(self.epoch);
        event.detail = if was_leader { "led".to_owned() } else { String::new() };
        self.emit(event);
        self.vacate(id, was_leader, seen);
        self.forget_votes(id);
        let service = self.service(id);
        service.last_death = Some(cause.to_string());
        service.pid = None;
        service.suspicion = None;
        if self.stopping.is_some() {
            self.service(id).enter(Phase::Ended, now);
            return;
        }
        if self.hold_restart(now, id) {
            return;
        }
        match self.service(id).charge(cause, was_taking_over, now) {
            Verdict::GiveUp => self.give_up(now, id),
            Verdict::StartAt(start_at) => self.put_down(now, id, start_at, was_leader),
        }
    }

    fn vacate(&mut self, id: ServiceId, was_leader: bool, seen: FaultSeen) {
        if id == ServiceId::Gateway {
            self.gateway_joined = false;
        }
        if was_leader {
            self.leadership = Leadership::Vacant;
            // The outage began with the first leader that fell, not with those that failed to take over.
            self.outage.get_or_insert(seen);
        }
        if self.snapshot_ask.is_some_and(|ask| Some(ask.replica) == id.replica()) {
            self.snapshot_ask = None;
        }
    }

    fn put_down(&mut self, now: TimeUs, id: ServiceId, start_at: TimeUs, was_leader: bool) {
        let successor = self.followers().any(|service| service.id != id && service.is_fit());
        let put_off = start_at > now;
        let start_at = match was_leader && successor && !put_off {
            true => now.plus_ms(RESTART_DEFER_MS),
            false => start_at,
        };
        self.service(id).enter(Phase::Down { start_at }, now);
        if put_off {
            let strikes = self.services[&id].strikes();
            let mut event = self.about(id, Severity::Warning, Kind::ServiceBackedOff);
            event.detail = format!(
                "died {strikes} times before it was of use, next start in {} us",
                start_at.since_us(now)
            );
            self.emit(event);
        }
    }

    fn give_up(&mut self, now: TimeUs, id: ServiceId) {
        let strikes = self.services[&id].strikes();
        self.give_up_because(now, id, format!("died {strikes} times before it was of use"));
    }

    pub(super) fn give_up_because(&mut self, now: TimeUs, id: ServiceId, why: String) {
        self.service(id).enter(Phase::GivenUp, now);
        let event = Event { detail: why, ..self.about(id, Severity::Error, Kind::ServiceGaveUp) };
        self.emit(event);
        let replicas_left =
            self.services.values().any(|s| s.id.replica().is_some() && s.phase != Phase::GivenUp);
        if id == ServiceId::Gateway || !replicas_left {
            self.failed = Some(id);
            let event = self.about(id, Severity::Error, Kind::GroupFailed);
            self.emit(event);
            self.take_stop();
        }
    }

    fn take_halted(&mut self, now: TimeUs, id: ServiceId) {
        let urgent = id == ServiceId::Gateway || id.replica() == self.leader();
        let grace_ms = if urgent { STOPPED_GRACE_MS } else { STOPPED_FOLLOWER_GRACE_MS };
        self.suspect(now, id, now.plus_ms(grace_ms), "stopped by a signal");
    }

    fn suspect(&mut self, now: TimeUs, id: ServiceId, kill_at: TimeUs, why: &str) {
        let service = self.service(id);
        if matches!(service.phase, Phase::Fencing { .. }) {
            return;
        }
        if service.suspicion.as_ref().is_none_or(|earlier| kill_at < earlier.kill_at) {
            service.suspicion = Some(Suspicion { since: now, kill_at, why: why.to_owned() });
        }
    }

    /// Ends a process that is given up on; the rest follows when its death is seen.
    pub(super) fn kill(&mut self, now: TimeUs, id: ServiceId, why: &str) {
        let service = self.service(id);
        if !service.is_alive() || matches!(service.phase, Phase::Fencing { .. }) {
            return;
        }
        let seen_at = service.suspicion.take().map_or(now, |suspicion| suspicion.since);
        let seen = service.see_fault(seen_at);
        let incarnation = service.incarnation;
        service.enter(Phase::Fencing { kill_again_at: now.plus_ms(KILL_AGAIN_MS) }, now);
        self.actions.push(Action::Kill { service: id, incarnation });
        let mut event = self.about(id, Severity::Error, Kind::ServiceKilled);
        event.detail = why.to_owned();
        event.detect_us = seen.detect_us;
        self.emit(event);
    }

    fn take_snapshot(&mut self, id: ServiceId, index: u64, length_bytes: u64) {
        if self.snapshot_ask.is_some_and(|ask| Some(ask.replica) == id.replica()) {
            self.snapshot_ask = None;
            self.snapshot_wanted = false;
        }
        // One at the newest's own place is kept: then it is its own forerunner, and a log that is full up to there is
        // let go. Refusing it would leave the log full for ever, for nothing can be appended to it.
        let newest = self.snapshot_index();
        if index < newest || index == 0 {
            let mut event = self.about(id, Severity::Warning, Kind::ReportIgnored);
            event.detail = format!("snapshot at {index} is not newer than the kept one at {newest}");
            self.emit(event);
            return;
        }
        let author = id.replica().map(|replica| (replica, self.services[&id].incarnation));
        self.snapshots.insert(0, KeptSnapshot { index, author });
        self.snapshots.truncate(SNAPSHOTS_KEPT);
        self.actions.push(Action::KeepSnapshot { index });
        self.tell_snapshot_kept();
        let mut event = self.about(id, Severity::Info, Kind::SnapshotTaken);
        event.detail = format!("index {index}, {length_bytes} bytes");
        self.emit(event);
    }

    pub(super) fn tell_snapshot_kept(&mut self) {
        if let (Some(replica), true) = (self.leader(), !self.snapshots.is_empty()) {
            self.actions.push(Action::TellSnapshotKept { replica });
        }
    }

    fn take_inject(&mut self, now: TimeUs, id: ServiceId, fault: Fault) {
        let service = self.service(id);
        if !service.is_alive() {
            return;
        }
        if fault != Fault::Cont {
            service.injected_at = Some(now);
        }
        let incarnation = service.incarnation;
        self.actions.push(Action::Signal { service: id, incarnation, fault });
        let mut event = self.about(id, Severity::Warning, Kind::Injected);
        event.detail = format!("{fault:?}").to_lowercase();
        self.emit(event);
    }

    pub(super) fn take_stop(&mut self) {
        if self.stopping.is_none() {
            self.stopping = Some(StopStage::Gateway);
            self.emit(Event::new(Severity::Info, Kind::Stopping));
        }
    }
}
