//! What nobody reports: the warden looks at the board by itself.

use super::Warden;
use crate::planner::{Input, ServiceView};
use crate::pulse::Look;
use control::proc::Run;

impl Warden {
    /// How far the replicas are decides who is promoted, so it is read before a death is planned for.
    pub(super) fn progress(&self) -> Vec<Input> {
        let Some(board) = self.board.get() else { return Vec::new() };
        let read = |view: ServiceView| {
            let replica = view.service.replica().filter(|_| view.pid.is_some())?;
            let applied = board.replica(replica).applied.max(view.applied);
            Some(Input::Progress { replica, incarnation: view.incarnation, applied })
        };
        self.planner.view().into_iter().filter_map(read).collect()
    }

    pub(super) fn read_board(&mut self) {
        if self.planner.is_mending() {
            let progress = self.progress();
            self.step_all(progress);
        }
        let Some(board) = self.board.get().cloned() else { return };
        let (leader, serves) = (self.planner.leader(), self.planner.is_serving());
        for view in self.planner.view() {
            let Some(replica) = view.service.replica().filter(|_| view.pid.is_some()) else { continue };
            let (row, incarnation) = (board.replica(replica), view.incarnation);
            let Some(run) = view.pid.and_then(Run::of) else { continue };
            let look = Look {
                beat: row.heartbeat,
                nodes: row.nodes,
                serves: serves && leader == Some(replica),
                ran_us: run.ran_us,
                asleep: run.asleep,
            };
            if let Some(silent_ms) = self.pulses.observe(self.now(), replica, incarnation, look) {
                let why = format!("no heartbeat for {silent_ms} ms");
                self.step(Input::Unresponsive { service: view.service, incarnation, why });
            }
        }
    }
}
