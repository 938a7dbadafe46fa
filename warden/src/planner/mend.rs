//! What is done about a damaged snapshot or log.
//!
//! A replica that cannot read the log at an entry is not started before a snapshot behind that entry is kept. One is
//! asked of a replica that applied the entry while it was whole. When no replica is left that may have, it is given up.

use super::service::Phase;
use super::{Action, Planner};
use crate::event::{Event, Kind, Severity};
use crate::ids::{ServiceId, TimeUs};

impl Planner {
    /// Whether a replica waits for a snapshot: then it is of interest how far the others are.
    pub fn is_mending(&self) -> bool {
        self.least_to_mend().is_some()
    }

    /// The entry behind which a snapshot helps one replica at least.
    pub(super) fn least_to_mend(&self) -> Option<u64> {
        self.services
            .values()
            .filter(|service| service.phase != Phase::GivenUp)
            .filter_map(|s| s.broken_at)
            .min()
    }

    /// Keeps a dead replica down that could not read the log. True if so.
    pub(super) fn hold_restart(&mut self, now: TimeUs, id: ServiceId) -> bool {
        let Some(index) = self.services[&id].broken_at else { return false };
        self.service(id).enter(Phase::Down { start_at: now }, now);
        let mut event = self.about(id, Severity::Error, Kind::RestartHeld);
        event.detail = format!("the log is damaged at entry {index}; a snapshot behind it is needed");
        self.emit(event);
        true
    }

    pub(super) fn mend(&mut self, now: TimeUs) {
        let newest = self.snapshot_index();
        let down = self.services.values().filter(|service| matches!(service.phase, Phase::Down { .. }));
        let broken: Vec<_> = down.filter_map(|service| Some((service.id, service.broken_at?))).collect();
        for (id, index) in broken {
            if newest >= index {
                self.service(id).broken_at = None;
                self.service(id).enter(Phase::Down { start_at: now }, now);
            } else if !self.can_be_mended(id) && self.stopping.is_none() {
                let why =
                    format!("the log is damaged at entry {index}, and no replica has its state behind it");
                self.give_up_because(now, id, why);
            }
        }
    }

    /// Whether another replica may be or come behind the damage.
    fn can_be_mended(&self, id: ServiceId) -> bool {
        self.services.values().any(|other| {
            let whole = other.broken_at.is_none() && other.phase != Phase::GivenUp;
            other.id != id && other.id.replica().is_some() && whole
        })
    }

    /// Keeps a snapshot no longer and has another one taken.
    pub(super) fn drop_snapshot(&mut self, index: u64, why: &str) {
        let before = self.snapshots.len();
        self.snapshots.retain(|snapshot| snapshot.index != index);
        if self.snapshots.len() == before {
            return;
        }
        self.snapshot_wanted = true;
        self.actions.push(Action::DropSnapshot { index });
        let detail = format!("index {index}: {why}");
        self.emit(Event { detail, ..Event::new(Severity::Error, Kind::SnapshotDropped) });
    }
}
