//! The status over gRPC: the planner's view, the board, and what `/proc` tells.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use api::v1;
use control::proc::rss_bytes;
use tokio::sync::watch;
use xs_shm::{Board, GatewayStatus, ReplicaStatus};

use crate::engine::EngineView;
use crate::ids::{ServiceId, TimeUs};
use crate::planner::{Planner, ServiceView, State};

/// What the planner knew after its last step.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The services.
    pub services: Vec<ServiceView>,
    /// Whether clients are served.
    pub serving: bool,
    /// The newest leader's epoch.
    pub epoch: u64,
    /// Last log index in the newest snapshot.
    pub snapshot_index: u64,
}

impl From<&Planner> for View {
    fn from(planner: &Planner) -> Self {
        Self {
            services: planner.view(),
            serving: planner.is_serving(),
            epoch: planner.epoch(),
            snapshot_index: planner.snapshot_index(),
        }
    }
}

/// Puts the status together when it is asked for.
#[derive(Debug)]
pub struct StatusSource {
    pub(crate) view: watch::Receiver<View>,
    pub(crate) engine: watch::Receiver<EngineView>,
    pub(crate) board: Arc<OnceLock<Board>>,
    pub(crate) profile: String,
    pub(crate) injection: bool,
    pub(crate) started_unix_ms: i64,
    /// Clients of which the warden keeps a copy.
    pub(crate) clients: AtomicU64,
}

impl StatusSource {
    /// Whether faults may be injected.
    pub fn injection_enabled(&self) -> bool {
        self.injection
    }

    /// The status at this moment.
    pub fn now(&self) -> v1::StatusResponse {
        let view = self.view.borrow().clone();
        let (gateway, kept) = (self.gateway(&view), self.clients.load(Ordering::Relaxed));
        v1::StatusResponse {
            gateway_clients: saturate(gateway.clients),
            warden_clients: saturate(kept),
            handed_over: is_handed_over(&view, &gateway, kept),
            profile: self.profile.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            warden_pid: std::process::id(),
            serving: view.serving,
            epoch: view.epoch,
            since_ms: self.started_unix_ms,
            injection_enabled: self.injection,
            services: view.services.iter().map(|service| self.service(service, view.epoch)).collect(),
            snapshot_index: view.snapshot_index,
            warden_rss_bytes: rss_bytes(std::process::id()),
            engine: self.engine.borrow().status(),
        }
    }

    /// The row of the gateway that lives, or an empty one.
    fn gateway(&self, view: &View) -> GatewayStatus {
        let row = self.board.get().map(Board::gateway).unwrap_or_default();
        let lives = |service: &ServiceView| {
            service.service == ServiceId::Gateway && service.pid.is_some_and(|pid| u64::from(pid) == row.pid)
        };
        if view.services.iter().any(lives) { row } else { GatewayStatus::default() }
    }

    /// The rows of the board of all replicas that live, with their names.
    pub fn rows(&self) -> Vec<(String, ReplicaStatus)> {
        let Some(board) = self.board.get() else { return Vec::new() };
        let view = self.view.borrow();
        let live = view.services.iter().filter(|service| service.pid.is_some());
        live.filter_map(|view| Some((view.service.to_string(), board.replica(view.service.replica()?))))
            .collect()
    }

    fn service(&self, view: &ServiceView, epoch: u64) -> v1::ServiceStatus {
        let live_replica = view.service.replica().filter(|_| view.pid.is_some());
        let row = live_replica.zip(self.board.get()).map(|(number, board)| board.replica(number));
        let row = row.unwrap_or_default();
        v1::ServiceStatus {
            name: view.service.to_string(),
            role: role(view).into(),
            replica: view.service.replica(),
            pid: view.pid.unwrap_or(0),
            state: state(view.state).into(),
            epoch: if view.leader { epoch } else { row.epoch },
            applied: view.applied.max(row.applied),
            incarnation: view.incarnation,
            restarts: view.restarts,
            since_ms: self.unix_ms(view.since),
            last_death: view.last_death.clone().unwrap_or_default(),
            rss_bytes: view.pid.map_or(0, rss_bytes),
            requests: row.requests,
            connections: saturate(row.connections),
            rings: saturate(row.rings),
            domains: saturate(row.domains),
        }
    }

    fn unix_ms(&self, at: TimeUs) -> i64 {
        self.started_unix_ms.saturating_add(i64::try_from(at.0 / 1_000).unwrap_or(i64::MAX))
    }
}

/// Whether leader, gateway and warden, as they are now, have each their copy of every client.
fn is_handed_over(view: &View, gateway: &GatewayStatus, kept: u64) -> bool {
    let with_leader = view.serving && gateway.epoch == view.epoch;
    with_leader && gateway.untold == 0 && gateway.clients == kept
}

fn saturate(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn role(view: &ServiceView) -> v1::Role {
    match (view.service, view.leader) {
        (ServiceId::Gateway, _) => v1::Role::Gateway,
        (ServiceId::Member(_), _) => v1::Role::Member,
        (ServiceId::Replica(_), true) => v1::Role::Leader,
        (ServiceId::Replica(_), false) => v1::Role::Follower,
    }
}

fn state(state: State) -> v1::State {
    match state {
        State::Down => v1::State::Down,
        State::Starting => v1::State::Starting,
        State::Ready => v1::State::Ready,
        State::TakingOver => v1::State::TakingOver,
        State::Serving => v1::State::Serving,
        State::Stopping => v1::State::Stopping,
        State::Fencing => v1::State::Fencing,
        State::GivenUp => v1::State::GivenUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_over_takes_leader_gateway_and_warden() {
        let view = View { serving: true, epoch: 3, ..View::default() };
        let whole = GatewayStatus { pid: 1, epoch: 3, untold: 0, clients: 5 };
        assert!(is_handed_over(&view, &whole, 5));
        assert!(!is_handed_over(&view, &whole, 4), "a new warden has not all");
        assert!(!is_handed_over(&View { epoch: 4, ..view.clone() }, &whole, 5), "a new leader has not all");
        assert!(!is_handed_over(&view, &GatewayStatus { untold: 1, ..whole }, 5));
        assert!(!is_handed_over(&View { serving: false, ..view.clone() }, &whole, 5));
        assert!(!is_handed_over(&view, &GatewayStatus::default(), 0), "a new gateway");
    }
}
