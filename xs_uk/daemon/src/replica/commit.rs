//! Entries that the engine has taken and not yet committed: who waits for them, and what follows when they come back.
//!
//! ```text
//!            submitted                      comes back: applied, the slot's commit, the next request
//!   reads ---------------> waits ---------------------------------------------------------------> reads
//!                            |  the bound passes: EIO, noted as refused in the slot
//!                            +---------------------------------------------------------------> reads
//! ```
//!
//! A connection has one request under way. A refused one may still be done later; its reply is then dropped, by this
//! leader or a later one.

use std::time::Instant;

use xs_protocol::{HEADER_BYTES, Header, MESSAGE_MAX, MessageType, XsError, message};
use xs_store::ConnId;

use super::conn::{Conn, Transport, ring_begin};
use super::leader::Leader;
use super::machine::Applied;
use crate::error::Error;
use crate::limits::COMMITTED_PER_TURN_MAX;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The store must get to know it.
    Opening,
    /// A request of `size` bytes with its header.
    Request { seq: u64, size: usize, kind: MessageType },
    /// The ring starts anew.
    Reset,
}

/// A wait and its beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub what: Wait,
    pub since: Instant,
}

impl Waiting {
    pub fn begin(what: Wait) -> Self {
        Self { what, since: Instant::now() }
    }
}

/// What became of a proposed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// In the log and applied.
    Applied,
    /// The engine has it.
    Submitted,
    /// No room before a snapshot, or before the engine has committed more.
    Full,
    /// The engine has committed nothing for too long.
    Unavailable,
}

impl Outcome {
    pub fn is_taken(self) -> bool {
        matches!(self, Self::Applied | Self::Submitted)
    }
}

impl Leader {
    /// Applies what the engine has committed.
    pub(super) fn take_committed(&mut self) -> Result<(), Error> {
        for _ in 0..COMMITTED_PER_TURN_MAX {
            let Some(applied) = self.machine.take_committed(&mut self.effects)? else { break };
            self.complete(applied)?;
        }
        self.unblock();
        if self.machine.in_flight() == 0 {
            self.alone = false;
            for id in std::mem::take(&mut self.held) {
                self.queue_conn(id);
            }
        }
        self.settle_effects()
    }

    fn complete(&mut self, applied: Applied) -> Result<(), Error> {
        match applied {
            Applied::Request { conn, seq, ring_conn } => {
                self.complete_request(conn, seq);
                match ring_conn {
                    Some(ring) if self.machine.store.is_connected(ring) => self.resume(ring),
                    // The store refused the INTRODUCE.
                    Some(ring) => self.close(ring)?,
                    None => {}
                }
            }
            Applied::Connect(conn) => {
                if let Some(conn) = self.conns.get(&conn.0) {
                    self.table.set_known(conn.slot_id);
                }
                self.resume(conn);
            }
            Applied::Reset(conn) => self.complete_reset(conn),
            Applied::Domain(domid) => drop(self.ending.remove(&domid)),
            // It may have died while the store did not know it yet, when nobody would have looked at it.
            Applied::Known => self.look_again = true,
            Applied::Other => {}
        }
        Ok(())
    }

    fn complete_request(&mut self, id: ConnId, seq: u64) {
        let Some(conn) = self.conns.get_mut(&id.0) else { return };
        match conn.waiting {
            Some(Waiting { what: Wait::Request { seq: awaited, size, kind }, .. }) if awaited == seq => {
                conn.slot.commit(size, 1, None);
                let is_ring = conn.is_ring();
                self.note_logged(id, is_ring, kind);
                self.resume(id);
            }
            _ => self.machine.store.discard_reply(id),
        }
    }

    fn complete_reset(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id.0) {
            conn.begin_anew(self.host.events.as_mut());
            self.resume(id);
        }
    }

    fn resume(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id.0) {
            conn.waiting = None;
            self.queue_conn(id);
        }
    }

    pub(super) fn queue_conn(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id.0)
            && !std::mem::replace(&mut conn.queued, true)
        {
            self.queue.push_back(id);
        }
    }

    /// Whether a request may be logged at this moment. INTRODUCE acts on the host before it is logged and reads the
    /// store's view of the domain for that, so nothing else may be under way; what comes meanwhile is held back.
    pub(super) fn may_submit(&mut self, conn: ConnId, alone: bool) -> bool {
        if self.machine.in_flight() == 0 {
            return true;
        }
        self.alone |= alone;
        if self.alone && !self.held.contains(&conn) {
            self.held.push(conn);
        }
        !self.alone
    }

    /// Answers requests whose outcome nobody knows after the bound, and gives up connections that could not be opened.
    pub(super) fn refuse_overdue(&mut self) -> Result<(), Error> {
        if self.machine.in_flight() == 0 && self.owed.is_empty() {
            return Ok(());
        }
        let bound = self.request_wait;
        let overdue = |conn: &&Conn| conn.waiting.is_some_and(|waiting| waiting.since.elapsed() >= bound);
        let overdue: Vec<ConnId> = self.conns.values().filter(overdue).map(|conn| conn.id).collect();
        for id in overdue {
            let Some(conn) = self.conns.get_mut(&id.0) else { continue };
            match conn.waiting.map(|waiting| waiting.what) {
                Some(Wait::Request { size, .. }) if conn.refuse(size) => {
                    self.status.refused += 1;
                    self.note_refusal(id);
                    self.resume(id);
                }
                Some(Wait::Opening) if !conn.is_ring() => {
                    if let Some(conn) = self.conns.remove(&id.0) {
                        self.disconnect(conn)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn note_refusal(&mut self, id: ConnId) {
        if self.log_limit.allow("engine_unavailable") {
            let state = self.machine.engine_state();
            tracing::warn!(conn = id.0, ?state, "the log commits nothing: requests are refused with EIO");
        }
    }
}

impl Conn {
    /// Answers EIO to the first request received, of `size` bytes, whose outcome is not known. False if there is no
    /// room for the answer.
    fn refuse(&mut self, size: usize) -> bool {
        if self.slot.stageable_bytes() < MESSAGE_MAX {
            return false;
        }
        self.stage_eio();
        self.slot.commit_refused(size);
        true
    }

    /// Stages EIO as the answer to the first request received.
    pub(super) fn stage_eio(&mut self) {
        let mut bytes = [0; HEADER_BYTES];
        self.slot.peek(0, &mut bytes);
        if let Some(header) = Header::parse(&bytes) {
            let mut answer = Vec::new();
            message::push_error(&mut answer, &header, XsError::EIO);
            self.slot.stage(&answer);
        }
    }

    /// The store has forgotten what the ring was in the middle of; so do slot and page.
    pub(super) fn begin_anew(&mut self, events: &mut dyn hypervisor::EventChannels) {
        self.slot.commit(self.slot.readable_bytes(), 0, None);
        if let Transport::Ring { page, port, broken } = &mut self.transport {
            *broken = false;
            ring_begin(&mut self.slot, page, *port, events);
        }
    }
}
