//! How the engine fares that keeps the store's log, as its leader last told. Pure.

use api::v1;
use control::{Engine, EngineHealth, Severity};

use crate::event::cut;
use crate::limits::ENGINE_PARTS_MAX;

/// What is known of the engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineView {
    status: Option<v1::EngineStatus>,
    /// The member that led last; between two that lead, nobody does.
    led_by: Option<String>,
}

impl EngineView {
    /// Takes a report, which came at the Unix time `now_ms`; tells what is worth an event.
    pub fn take(&mut self, engine: Engine, now_ms: i64) -> Option<(Severity, String)> {
        let before = self.status.take();
        let mut now = status(engine, now_ms);
        if let Some(before) = &before {
            now.leader_changes = before.leader_changes + u64::from(self.is_led_by_another(&now));
            if before.health == now.health {
                now.since_ms = before.since_ms;
            }
        }
        self.led_by = leader(&now).map(str::to_owned).or_else(|| self.led_by.take());
        let event = (before.as_ref().map(essence) != Some(essence(&now))).then(|| event(&now));
        // Nobody waits for the news that all is well from the beginning.
        let first_and_well = before.is_none() && is_healthy(&now) && now.warnings.is_empty();
        self.status = Some(now);
        event.filter(|_| !first_and_well)
    }

    fn is_led_by_another(&self, now: &v1::EngineStatus) -> bool {
        self.led_by.as_deref().zip(leader(now)).is_some_and(|(before, now)| before != now)
    }

    /// For the status.
    pub fn status(&self) -> Option<v1::EngineStatus> {
        self.status.clone()
    }

    /// Whether entries get through, as far as is known.
    pub fn is_healthy(&self) -> bool {
        self.status.as_ref().is_some_and(is_healthy)
    }
}

fn is_healthy(status: &v1::EngineStatus) -> bool {
    status.health() == v1::EngineHealth::Healthy
}

fn leader(status: &v1::EngineStatus) -> Option<&str> {
    status.members.iter().find(|member| member.leads).map(|member| member.endpoint.as_str())
}

/// What of a status is worth an event when it changes. A warning's text may change all the time.
fn essence(status: &v1::EngineStatus) -> (i32, u64, Vec<&str>) {
    // Failing calls come and go with the health, which says the same.
    let warnings = one_of_each(status).filter(|warning| warning.kind != "failing");
    (status.health, status.leader_changes, warnings.map(|warning| warning.kind.as_str()).collect())
}

/// The first warning of each kind: several members tend to have the same.
fn one_of_each(status: &v1::EngineStatus) -> impl Iterator<Item = &v1::EngineWarning> {
    let warnings = &status.warnings;
    let is_first = |at: usize| warnings[..at].iter().all(|before| before.kind != warnings[at].kind);
    warnings.iter().enumerate().filter(move |(at, _)| is_first(*at)).map(|(_, warning)| warning)
}

fn event(status: &v1::EngineStatus) -> (Severity, String) {
    let (severity, health) = match status.health() {
        v1::EngineHealth::Healthy if status.warnings.is_empty() => (Severity::Info, "healthy"),
        v1::EngineHealth::Healthy => (Severity::Warning, "healthy"),
        v1::EngineHealth::Slow => (Severity::Warning, "slow"),
        v1::EngineHealth::NoQuorum => (Severity::Error, "without quorum"),
        v1::EngineHealth::NoSpace => (Severity::Error, "without room"),
        v1::EngineHealth::Unspecified => (Severity::Warning, "in an unknown state"),
    };
    let mut detail = format!("{} is {health}", status.name);
    if let Some(leader) = leader(status).filter(|_| status.members.len() > 1) {
        detail.push_str(&format!(", led by {leader}"));
    }
    for warning in one_of_each(status) {
        detail.push_str("; ");
        detail.push_str(&warning.detail);
    }
    (severity, cut(detail))
}

fn status(engine: Engine, now_ms: i64) -> v1::EngineStatus {
    let health = match engine.health() {
        EngineHealth::Healthy => v1::EngineHealth::Healthy,
        EngineHealth::Slow => v1::EngineHealth::Slow,
        EngineHealth::NoQuorum => v1::EngineHealth::NoQuorum,
        EngineHealth::NoSpace => v1::EngineHealth::NoSpace,
    };
    let members = engine.members.into_iter().take(ENGINE_PARTS_MAX).map(|member| v1::EngineMember {
        endpoint: cut(member.endpoint),
        reachable: member.reachable,
        version: cut(member.version),
        leads: member.leads,
        db_bytes: member.db_bytes,
        db_used_bytes: member.db_used_bytes,
    });
    let warnings = engine.warnings.into_iter().take(ENGINE_PARTS_MAX);
    let warnings =
        warnings.map(|warning| v1::EngineWarning { kind: cut(warning.kind), detail: cut(warning.detail) });
    v1::EngineStatus {
        name: cut(engine.name),
        health: health.into(),
        waited_ms: engine.waited_ms,
        since_ms: now_ms,
        latency_us: engine.latency_us,
        version: cut(engine.version),
        members: members.collect(),
        warnings: warnings.collect(),
        leader_changes: 0,
        lag_entries: engine.lag_entries,
        lag_ms: engine.lag_ms,
    }
}

#[cfg(test)]
mod tests {
    use control::{EngineMember, EngineWarning};

    use super::*;

    fn report(health: EngineHealth, leader: usize) -> Engine {
        let members = (0..3).map(|i| EngineMember {
            endpoint: format!("m{i}"),
            leads: i == leader,
            ..EngineMember::default()
        });
        let name = "etcd".to_owned();
        Engine { name, health: health.into(), members: members.collect(), ..Engine::default() }
    }

    #[test]
    fn only_changes_are_worth_an_event() {
        let mut view = EngineView::default();
        assert!(!view.is_healthy(), "nobody has told yet");
        assert_eq!(view.take(report(EngineHealth::Healthy, 0), 1), None);
        assert!(view.is_healthy());
        let lost = Engine { waited_ms: 7, ..report(EngineHealth::NoQuorum, 0) };
        let (severity, detail) = view.take(lost.clone(), 2).unwrap();
        assert_eq!((severity, detail.as_str()), (Severity::Error, "etcd is without quorum, led by m0"));
        assert!(!view.is_healthy());
        assert_eq!(view.take(Engine { waited_ms: 9, ..lost }, 3), None);
        let status = view.status().unwrap();
        assert_eq!((status.since_ms, status.waited_ms), (2, 9));
        assert!(view.take(report(EngineHealth::Healthy, 0), 4).is_some());
    }

    #[test]
    fn another_leading_member_is_counted_and_told() {
        let mut view = EngineView::default();
        view.take(report(EngineHealth::Healthy, 0), 1);
        // Between two leaders nobody leads.
        assert_eq!(view.take(report(EngineHealth::Healthy, 9), 2), None);
        assert_eq!(view.status().unwrap().leader_changes, 0);
        view.take(report(EngineHealth::Healthy, 0), 3);
        view.take(report(EngineHealth::Healthy, 9), 3);
        assert!(view.take(report(EngineHealth::Healthy, 2), 4).is_some());
        assert_eq!(view.status().unwrap().leader_changes, 1);
    }

    #[test]
    fn a_warning_is_told_once_and_its_size_is_bounded() {
        let mut view = EngineView::default();
        let warning = |detail: &str| {
            let warning = EngineWarning { kind: "faulty_version".to_owned(), detail: detail.repeat(10_000) };
            Engine { warnings: vec![warning; ENGINE_PARTS_MAX + 1], ..report(EngineHealth::Healthy, 0) }
        };
        let (severity, detail) = view.take(warning("a"), 1).unwrap();
        assert_eq!(severity, Severity::Warning);
        assert!(detail.len() <= crate::limits::DETAIL_BYTES_MAX);
        assert_eq!(view.status().unwrap().warnings.len(), ENGINE_PARTS_MAX);
        assert_eq!(view.take(warning("b"), 2), None);
        assert!(view.is_healthy(), "a warning is no outage");
    }
}
