//! Where the rule of [`crate::fairness`] meets the leader's connections.

use std::time::{Duration, Instant};

use xs_protocol::MessageType;
use xs_store::{ConnId, Effect};

use super::conn::Conn;
use super::leader::Leader;

impl Leader {
    /// A request was logged and applied.
    pub(super) fn note_logged(&mut self, id: ConnId, is_ring: bool, kind: MessageType) {
        if is_ring && !self.machine.store.is_privileged(id) {
            self.fairness.changed(id.0, self.machine.index(), Instant::now());
        } else if kind == MessageType::TRANSACTION_END {
            let refused =
                |effect: &Effect| matches!(effect, Effect::Conflict { conn: other, .. } if *other == id);
            if !self.effects.iter().any(refused) {
                let free = self.fairness.succeeded(id.0);
                self.let_go_on(&free);
            }
        }
    }

    /// A privileged client met a conflict.
    pub(super) fn note_conflict(&mut self, client: ConnId, since: u64, path: &str) {
        let store = &self.machine.store;
        let may_write = |guest| store.may_write(ConnId(guest), path);
        let held = self.fairness.refused(client.0, since, may_write, Instant::now());
        if !held.is_empty() && self.log_limit.allow("conflict_hold") {
            tracing::info!(client = client.0, path, guests = held.len(), "held for a client's transaction");
        }
    }

    /// Must this connection wait for somebody's transaction?
    pub(super) fn is_held(&self, conn: &Conn) -> bool {
        self.fairness.holds_any() && self.fairness.is_held(conn.id.0, Instant::now())
    }

    /// Those who waited long enough get their turn.
    pub(super) fn end_holds(&mut self) {
        if self.fairness.holds_any() {
            let free = self.fairness.expired(Instant::now());
            self.let_go_on(&free);
        }
    }

    /// How long the leader may sleep before somebody's wait is over.
    pub(super) fn until_hold_ends(&self) -> Option<Duration> {
        self.fairness.next_expiry(Instant::now())
    }

    fn let_go_on(&mut self, guests: &[u64]) {
        for guest in guests {
            if let Some(conn) = self.conns.get_mut(guest).filter(|conn| !conn.queued) {
                conn.queued = true;
                self.queue.push_back(conn.id);
            }
        }
    }
}
