//! Replicas that other replicas, or they themselves, find wrong.
//!
//! Most of all replicas have to agree about one, or it has to say so itself; then it is killed, and starts anew from
//! snapshot and log. If it led, its death is waited for as ever, and a replica that nobody accuses is preferred.

use std::collections::BTreeSet;

use super::Planner;
use super::service::Phase;
use crate::event::{Event, Kind, Severity};
use crate::ids::{ServiceId, TimeUs};
use crate::limits::OUTVOTED_SOON_MS;

/// What is held against one replica.
#[derive(Debug)]
pub(super) struct Accusation {
    since: TimeUs,
    by: BTreeSet<u32>,
}

impl Planner {
    pub(super) fn take_mistrust(&mut self, now: TimeUs, by: ServiceId, accused: u32, index: u64, why: &str) {
        let id = ServiceId::Replica(accused);
        let known = self.services.get(&id).is_some_and(|service| service.is_alive());
        let Some(voter) = by.replica().filter(|voter| known && *voter != accused) else {
            let detail = format!("it finds {id} wrong: {why}");
            let event = Event { detail, ..self.about(by, Severity::Warning, Kind::ReportIgnored) };
            return self.emit(event);
        };
        if matches!(self.services[&id].phase, Phase::Fencing { .. }) {
            return;
        }
        let fresh = || Accusation { since: now, by: BTreeSet::new() };
        let accusation = self.votes.entry(accused).or_insert_with(fresh);
        if !accusation.by.insert(voter) {
            return;
        }
        let (count, since) = (accusation.by.len(), accusation.since);
        self.tell_detected(now, id, format!("{by} finds it wrong at entry {index}: {why}"));
        if count > self.replicas() as usize / 2 {
            self.service(id).convicted_at = Some(since);
            self.outvote(now, id, index, &format!("{count} replicas find it wrong at entry {index}"));
        }
    }

    pub(super) fn take_damaged(&mut self, now: TimeUs, id: ServiceId, index: u64, why: &str) {
        if id.replica().is_none() || matches!(self.services[&id].phase, Phase::Fencing { .. }) {
            return;
        }
        self.tell_detected(now, id, format!("it finds itself wrong at entry {index}: {why}"));
        self.service(id).convicted_at = Some(now);
        self.outvote(now, id, index, "it finds itself wrong");
    }

    /// Whether any replica finds it wrong.
    pub(super) fn is_accused(&self, id: ServiceId) -> bool {
        id.replica().is_some_and(|replica| self.votes.contains_key(&replica))
    }

    /// What was wrong with a process went with it.
    pub(super) fn forget_votes(&mut self, id: ServiceId) {
        if let Some(replica) = id.replica() {
            self.votes.remove(&replica);
        }
    }

    /// Tells when a replica that was out-voted is ready again.
    pub(super) fn tell_rebuilt(&mut self, now: TimeUs, id: ServiceId) {
        let Some(convicted_at) = self.service(id).convicted_at.take() else { return };
        let mut event = self.about(id, Severity::Info, Kind::ReplicaRebuilt);
        event.recover_us = Some(now.since_us(convicted_at));
        self.emit(event);
    }

    fn tell_detected(&mut self, now: TimeUs, id: ServiceId, detail: String) {
        let detect_us = self.services[&id].injected_at.map(|at| now.since_us(at));
        let event = Event { detail, detect_us, ..self.about(id, Severity::Error, Kind::CorruptionDetected) };
        self.emit(event);
    }

    fn outvote(&mut self, now: TimeUs, id: ServiceId, index: u64, why: &str) {
        let event =
            Event { detail: why.to_owned(), ..self.about(id, Severity::Error, Kind::ReplicaOutvoted) };
        self.emit(event);
        // It was found wrong at `index`, and may have gone wrong long before: nothing that it wrote is to be trusted.
        let own = id.replica().map(|replica| (replica, self.services[&id].incarnation));
        let own = self.snapshots.iter().filter(|snapshot| snapshot.author == own);
        let doubtful: Vec<_> = own.map(|snapshot| snapshot.index).collect();
        for at in doubtful {
            self.drop_snapshot(at, &format!("{id}, which wrote it, was found wrong at entry {index}"));
        }
        if now < self.services[&id].since.plus_ms(OUTVOTED_SOON_MS) {
            self.service(id).failed_its_task();
        }
        self.kill(now, id, why);
    }
}
