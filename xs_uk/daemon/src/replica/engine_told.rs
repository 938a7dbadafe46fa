//! What the warden is told of the engine, and when: at once if entries stop or go on getting through or there is
//! something new to know, else now and then, because a successor of the warden has heard nothing yet.

use std::time::Instant;

use control::{Engine, EngineHealth, EngineMember, EngineWarning, LinkError, Tether, from_service};
use xs_consensus::{EngineHealth as Health, EngineState, EngineWarning as Warning};

use crate::error::Error;
use crate::limits::{ENGINE_TOLD_AGAIN, ENGINE_TOLD_PAUSE, ENGINE_WORDS_MAX};

/// What was told last.
#[derive(Debug)]
pub(super) struct EngineTold {
    name: String,
    last: Option<(Instant, Engine)>,
}

impl EngineTold {
    /// About an engine of which nothing was told.
    pub fn new(name: String) -> Self {
        Self { name, last: None }
    }

    /// Tells the warden, if it is time.
    pub fn tell(&mut self, warden: &Tether, state: &EngineState) -> Result<(), Error> {
        let Some(engine) = self.due(Instant::now(), state) else { return Ok(()) };
        match warden.report(from_service::Report::Engine(engine), &[]) {
            // The next one will be told again.
            Ok(()) | Err(LinkError::WouldBlock | LinkError::Closed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn due(&mut self, now: Instant, state: &EngineState) -> Option<Engine> {
        let engine = report(&self.name, state);
        if let Some((at, last)) = &self.last {
            let since = now.saturating_duration_since(*at);
            let changed = last != &engine && since >= ENGINE_TOLD_PAUSE;
            if essence(last) == essence(&engine) && !changed && since < ENGINE_TOLD_AGAIN {
                return None;
            }
        }
        self.last = Some((now, engine.clone()));
        Some(engine)
    }
}

/// What is told at once when it changes.
fn essence(engine: &Engine) -> (i32, Vec<(bool, bool)>, Vec<&str>) {
    let members = engine.members.iter().map(|member| (member.reachable, member.leads));
    let warnings = engine.warnings.iter().map(|warning| warning.kind.as_str());
    (engine.health, members.collect(), warnings.collect())
}

fn report(name: &str, state: &EngineState) -> Engine {
    let (health, waited_ms) = match state.health {
        Health::LostQuorum { waited_ms } => (EngineHealth::NoQuorum, waited_ms),
        Health::Waiting { waited_ms } => (EngineHealth::Slow, waited_ms),
        Health::Healthy => (EngineHealth::Healthy, 0),
    };
    let no_space = state.warnings.contains(&Warning::NoSpace) && health != EngineHealth::NoQuorum;
    let health = if no_space { EngineHealth::NoSpace } else { health };
    let members = state.members.iter().map(|member| EngineMember {
        endpoint: member.endpoint.clone(),
        reachable: member.reachable,
        version: member.version.clone(),
        leads: member.is_leader,
        db_bytes: member.db_bytes,
        db_used_bytes: member.db_used_bytes,
    });
    let warnings = state.warnings.iter().map(|warning| EngineWarning {
        kind: kind(warning).to_owned(),
        detail: warning.to_string().chars().take(ENGINE_WORDS_MAX).collect(),
    });
    Engine {
        name: name.to_owned(),
        health: health.into(),
        waited_ms,
        latency_us: state.latency_us,
        version: state.version.clone().unwrap_or_default(),
        members: members.collect(),
        warnings: warnings.collect(),
        lag_entries: state.copy_lag.map(|lag| lag.entries),
        lag_ms: state.copy_lag.map(|lag| lag.waited_ms),
    }
}

/// The names are an interface.
fn kind(warning: &Warning) -> &'static str {
    match warning {
        Warning::FaultyVersion { .. } => "faulty_version",
        Warning::NoSpace => "no_space",
        Warning::MemberCorrupt => "member_corrupt",
        Warning::Failing { .. } => "failing",
        Warning::Maintenance { .. } => "maintenance",
        Warning::CopyAnew { .. } => "copy_anew",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_told_at_once_and_the_rest_now_and_then() {
        let began = Instant::now();
        let mut told = EngineTold::new("etcd".to_owned());
        let well = EngineState::default();
        assert!(told.due(began, &well).is_some(), "the first time");
        assert!(told.due(began + ENGINE_TOLD_PAUSE, &well).is_none(), "nothing new");
        let quick = EngineState { latency_us: Some(9), ..EngineState::default() };
        assert!(told.due(began, &quick).is_none(), "not so often");
        assert_eq!(told.due(began + ENGINE_TOLD_PAUSE, &quick).unwrap().latency_us, Some(9));
        let slow = EngineState { health: Health::Waiting { waited_ms: 7 }, ..quick.clone() };
        let report = told.due(began + ENGINE_TOLD_PAUSE, &slow).unwrap();
        assert_eq!((report.health(), report.waited_ms), (EngineHealth::Slow, 7));
        assert!(told.due(began + ENGINE_TOLD_PAUSE + ENGINE_TOLD_AGAIN, &slow).is_some());
    }

    #[test]
    fn used_up_space_is_an_outage_and_a_long_warning_is_cut() {
        let what = "x".repeat(ENGINE_WORDS_MAX + 1);
        let warnings = vec![Warning::NoSpace, Warning::Failing { what }];
        let state = EngineState { warnings: warnings.clone(), ..EngineState::default() };
        let engine = report("etcd", &state);
        assert_eq!(engine.health(), EngineHealth::NoSpace);
        assert_eq!(engine.warnings[1].detail.chars().count(), ENGINE_WORDS_MAX);
        let health = Health::LostQuorum { waited_ms: 1 };
        let lost = EngineState { health, warnings, ..EngineState::default() };
        assert_eq!(report("etcd", &lost).health(), EngineHealth::NoQuorum);
    }
}
