//! Clients that do not take their events: a guest's are dropped after a while, a tool's connection is ended.

use std::time::{Duration, Instant};

use xs_store::ConnId;
use xs_store::entry::Entry;
use xs_store::limits::{BACKLOG_BYTES, GUEST_BACKLOG_BYTES_MAX, PRIVILEGED_BACKLOG_BYTES};

use super::leader::Leader;
use crate::error::Error;

/// A connection that the store found behind with its events.
pub(super) struct Backlog {
    since: Instant,
}

impl Leader {
    pub(super) fn note_backlog(&mut self, conn: ConnId) {
        self.backlog.entry(conn.0).or_insert_with(|| Backlog { since: Instant::now() });
    }

    /// The store tells of a backlog when it begins; a new leader has to look.
    pub(super) fn seed_backlog(&mut self) {
        let store = &self.machine.store;
        let behind: Vec<ConnId> = store
            .connections()
            .map(|(conn, _)| conn)
            .filter(|conn| store.event_bytes(*conn) > BACKLOG_BYTES)
            .collect();
        for conn in behind {
            self.note_backlog(conn);
        }
    }

    /// Whatever causes events faster than a client takes them, what waits for it stays within its bound.
    pub(super) fn bound_backlog(&mut self, id: ConnId) -> Result<(), Error> {
        let event_bytes = self.machine.store.event_bytes(id);
        let privileged = self.machine.store.is_privileged(id);
        let most = if privileged { PRIVILEGED_BACKLOG_BYTES } else { GUEST_BACKLOG_BYTES_MAX };
        if event_bytes <= most {
            return Ok(());
        }
        let Some(conn) = self.conns.get(&id.0) else { return Ok(()) };
        if conn.is_ring() {
            return self.discard_events(id);
        }
        tracing::warn!(conn = id.0, event_bytes, "a client that reads no events is ended");
        self.backlog.remove(&id.0);
        match self.conns.remove(&id.0) {
            Some(conn) => self.disconnect(conn),
            None => Ok(()),
        }
    }

    fn discard_events(&mut self, conn: ConnId) -> Result<(), Error> {
        let up_to = self.machine.store.last_ordinal(conn);
        if self.log_limit.allow("events_discarded") {
            tracing::warn!(conn = conn.0, up_to, "unread events of a guest are dropped");
        }
        self.propose_or_retry(&Entry::DiscardEvents { conn, up_to }).map(drop)
    }

    /// Drops what guests left unread for too long, and ends tools that let too much pile up.
    pub(super) fn look_at_backlog(&mut self) -> Result<(), Error> {
        let behind: Vec<u64> = self.backlog.keys().copied().collect();
        for id in behind {
            let conn = ConnId(id);
            let waiting = self.machine.store.outbox(conn).next().is_some();
            let Some(backlog) = self.backlog.get(&id).filter(|_| waiting) else {
                self.backlog.remove(&id);
                continue;
            };
            let is_ring = self.conns.get(&id).is_some_and(super::conn::Conn::is_ring);
            let timeout = Duration::from_secs(u64::from(self.watch_event_timeout_s));
            if is_ring && !timeout.is_zero() && backlog.since.elapsed() >= timeout {
                self.discard_events(conn)?;
                self.backlog.remove(&id);
            }
        }
        Ok(())
    }
}
