//! Clients that do not take their events: a guest's are dropped after a while, a tool's connection is ended.

use std::time::{Duration, Instant};

use xs_store::ConnId;
use xs_store::entry::Entry;
use xs_store::limits::{BACKLOG_BYTES, PRIVILEGED_BACKLOG_BYTES};

use super::leader::Leader;
use crate::error::Error;

/// A connection that the store found behind with its events.
pub(super) struct Backlog {
    since: Instant,
    event_bytes: usize,
}

impl Leader {
    pub(super) fn note_backlog(&mut self, conn: ConnId, event_bytes: usize) {
        let entry =
            self.backlog.entry(conn.0).or_insert_with(|| Backlog { since: Instant::now(), event_bytes });
        entry.event_bytes = event_bytes;
    }

    /// The store tells of a backlog when it begins; a new leader has to look.
    pub(super) fn seed_backlog(&mut self) {
        let store = &self.machine.store;
        let waiting = |conn| store.outbox(conn).map(|(_, _, bytes)| bytes.len()).sum::<usize>();
        let behind: Vec<(ConnId, usize)> = store
            .connections()
            .map(|(conn, _)| (conn, waiting(conn)))
            .filter(|(_, waiting_bytes)| *waiting_bytes > BACKLOG_BYTES)
            .collect();
        for (conn, waiting_bytes) in behind {
            self.note_backlog(conn, waiting_bytes);
        }
    }

    /// Drops what guests left unread for too long, and ends tools that let too much pile up.
    pub(super) fn look_at_backlog(&mut self) -> Result<(), Error> {
        let behind: Vec<u64> = self.backlog.keys().copied().collect();
        for id in behind {
            let conn = ConnId(id);
            let last = self.machine.store.outbox(conn).last().map(|(ordinal, _, _)| ordinal);
            let (Some(up_to), Some(backlog)) = (last, self.backlog.get(&id)) else {
                self.backlog.remove(&id);
                continue;
            };
            let is_ring = self.conns.get(&id).is_some_and(super::conn::Conn::is_ring);
            let timeout = Duration::from_secs(u64::from(self.watch_event_timeout_s));
            if is_ring && !timeout.is_zero() && backlog.since.elapsed() >= timeout {
                tracing::warn!(conn = id, up_to, "unread events of a guest are dropped");
                self.propose_or_retry(&Entry::DiscardEvents { conn, up_to })?;
                self.backlog.remove(&id);
            } else if !is_ring && backlog.event_bytes > PRIVILEGED_BACKLOG_BYTES {
                tracing::warn!(
                    conn = id,
                    event_bytes = backlog.event_bytes,
                    "a client that reads no events is ended"
                );
                self.backlog.remove(&id);
                if let Some(conn) = self.conns.remove(&id) {
                    self.disconnect(conn)?;
                }
            }
        }
        Ok(())
    }
}
