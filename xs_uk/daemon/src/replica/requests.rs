//! From received bytes to queued answers.
//!
//! Order of the steps for a request that changes state: append (now it is done for good), apply, commit it as
//! consumed, queue the answer. Killed after the append, the successor finds the request's sequence number in
//! the store and only commits and queues.

use control::Severity;
use xs_consensus::LogError;
use xs_protocol::{HEADER_BYTES, Header, MESSAGE_MAX};
use xs_store::entry::{Entry, EntryRef};
use xs_store::{ConnId, Effect, Peer, Route};

use super::commit::{Outcome, Wait, Waiting};
use super::conn::{Conn, Flow};
use super::leader::Leader;
use super::machine::{self, Proposed};
use crate::error::Error;
use crate::limits::REQUESTS_PER_TURN_MAX;

/// Ring error word (`xs_wire.h`): communication, i.e. impossible indices.
const RING_ERROR_INDEX: u32 = 2;
/// Ring error word: protocol violation.
const RING_ERROR_PROTOCOL: u32 = 3;

/// What became of one attempt to answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    Yes,
    /// The message has not come whole yet.
    Incomplete,
    /// Its answer would not fit, the log is full, or it waits for the engine: later.
    Later,
    /// It breaks the protocol.
    Violation,
}

impl Leader {
    /// Gives a connection its turn: sends, receives, answers, until nothing moves or its turn is over.
    pub(super) fn serve_conn(&mut self, id: ConnId) -> Result<(), Error> {
        let Some(mut conn) = self.conns.remove(&id.0) else { return Ok(()) };
        conn.queued = false;
        let outcome = self.turn(&mut conn);
        if matches!(outcome, Ok(Flow::Ended)) && !conn.is_ring() {
            self.disconnect(conn)?;
        } else {
            // Also with an error of our own, which ends this process: dropped, the client would be closed in the heir too.
            self.conns.insert(id.0, conn);
        }
        outcome.and_then(|_| self.settle_effects())
    }

    /// Queues and sends what the outbox of a connection holds.
    pub(super) fn deliver(&mut self, id: ConnId) -> Result<(), Error> {
        let Some(mut conn) = self.conns.remove(&id.0) else { return Ok(()) };
        // A socket that breaks while an event is sent is found ended when it is next served.
        let pushed = self.push(&mut conn).and_then(|flow| self.set_interest(&mut conn, flow));
        self.conns.insert(id.0, conn);
        pushed
    }

    fn turn(&mut self, conn: &mut Conn) -> Result<Flow, Error> {
        let mut answered = 0;
        // Woken while it waits: it is not to be woken again by the same bytes.
        conn.deaf = conn.waiting.is_some();
        self.reconnect_if_asked(conn)?;
        let mut pushed = self.push(conn)?;
        let mut received = conn.receive(self.host.events.as_mut());
        while answered < REQUESTS_PER_TURN_MAX {
            match self.answer(conn)? {
                Answered::Yes => answered += 1,
                Answered::Violation => return self.violation(conn, RING_ERROR_PROTOCOL),
                Answered::Incomplete | Answered::Later => {
                    pushed = self.push(conn)?;
                    if pushed == Flow::Blocked || received == Flow::Ended || !conn.more {
                        break;
                    }
                    received = conn.receive(self.host.events.as_mut());
                    if received != Flow::Moved {
                        break;
                    }
                }
            }
        }
        if answered > 0 {
            pushed = self.push(conn)?;
        }
        self.end_turn(conn, received, pushed, answered)
    }

    fn end_turn(
        &mut self,
        conn: &mut Conn,
        received: Flow,
        pushed: Flow,
        answered: usize,
    ) -> Result<Flow, Error> {
        if received == Flow::Ended || pushed == Flow::Ended {
            if conn.is_ring() && !conn.is_broken() {
                return self.violation(conn, RING_ERROR_INDEX);
            }
            if pushed == Flow::Ended || answered < REQUESTS_PER_TURN_MAX {
                return Ok(Flow::Ended);
            }
        }
        // Rings have no level-triggered descriptor that would bring them here again.
        if answered == REQUESTS_PER_TURN_MAX && !conn.queued {
            conn.queued = true;
            self.queue.push_back(conn.id);
        }
        self.set_interest(conn, pushed)?;
        Ok(Flow::Idle)
    }

    fn violation(&mut self, conn: &mut Conn, error: u32) -> Result<Flow, Error> {
        self.status.protocol_errors += 1;
        if self.log_limit.allow("protocol_error") {
            tracing::warn!(conn = conn.id.0, ring = conn.is_ring(), error, "client breaks the protocol");
        }
        conn.mark_broken(error, self.host.events.as_mut());
        if conn.is_ring() {
            // Kept, but ignored (XSA-325): its watches and transactions end, its domain does not.
            self.propose_or_retry(&Entry::Disconnect { conn: conn.id })?;
        }
        Ok(Flow::Ended)
    }

    /// Queues the outbox's items that fit, then sends. The outbox may hold more afterwards: [`Flow::Blocked`]. An error
    /// ends the process: what waits is damaged, and another replica has it as it was.
    pub(super) fn push(&mut self, conn: &mut Conn) -> Result<Flow, Error> {
        let mut sent;
        loop {
            let mut last = None;
            for waiting in self.machine.store.verified_outbox(conn.id) {
                let (ordinal, bytes) = waiting?;
                if bytes.len() > conn.slot.stageable_bytes() {
                    break;
                }
                conn.slot.stage(bytes);
                last = Some(ordinal);
            }
            if let Some(ordinal) = last {
                conn.slot.commit(0, 0, Some(ordinal));
                self.machine.store.trim(conn.id, ordinal);
            }
            sent = conn.send(self.host.events.as_mut());
            let more = self.machine.store.outbox(conn.id).next().is_some();
            if !more || sent != Flow::Moved {
                return Ok(if more && sent != Flow::Ended { Flow::Blocked } else { sent });
            }
        }
    }

    fn answer(&mut self, conn: &mut Conn) -> Result<Answered, Error> {
        let readable = conn.slot.readable_bytes();
        if readable < HEADER_BYTES || conn.is_broken() || conn.waiting.is_some() {
            return Ok(Answered::Incomplete);
        }
        if self.is_held(conn) {
            return Ok(Answered::Later);
        }
        let mut bytes = [0; MESSAGE_MAX];
        conn.slot.peek(0, &mut bytes[..HEADER_BYTES]);
        let Some(header) = Header::parse(&bytes[..HEADER_BYTES]) else { return Ok(Answered::Violation) };
        let Ok(payload_bytes) = header.payload_len() else { return Ok(Answered::Violation) };
        let size = HEADER_BYTES + payload_bytes;
        if readable < size {
            return Ok(Answered::Incomplete);
        }
        let blocked =
            conn.slot.stageable_bytes() < MESSAGE_MAX || self.machine.store.outbox(conn.id).next().is_some();
        if blocked && self.push(conn)? == Flow::Blocked {
            return Ok(Answered::Later);
        }
        if conn.slot.stageable_bytes() < MESSAGE_MAX {
            return Ok(Answered::Later);
        }
        conn.slot.peek(HEADER_BYTES, &mut bytes[HEADER_BYTES..size]);
        self.execute(conn, header, &bytes[HEADER_BYTES..size])
    }

    fn execute(&mut self, conn: &mut Conn, header: Header, payload: &[u8]) -> Result<Answered, Error> {
        let store = &self.machine.store;
        let fresh = !conn.is_ring() && !store.is_connected(conn.id);
        // It has ended, or the store is damaged, which the scrubber finds: no answer is made up as if it had just come.
        if fresh && self.table.is_known(conn.slot_id) {
            return Ok(Answered::Later);
        }
        let route = match fresh {
            true => store.route_fresh(&header, payload),
            false => store.route(conn.id, &header, payload),
        };
        match route {
            Route::Read => {
                self.reply.clear();
                let read = match fresh {
                    true => store.read_fresh(&header, payload, &mut self.reply),
                    false => store.read(conn.id, &header, payload, &mut self.reply),
                };
                if let Err(damage) = read {
                    self.after_damage(conn, payload.len(), damage)?;
                    return Ok(Answered::Yes);
                }
                conn.slot.stage(&self.reply);
                conn.slot.commit(HEADER_BYTES + payload.len(), 1, None);
                self.status.reads += 1;
            }
            route if !fresh => return self.submit(conn, route, header, payload),
            _ => match self.open(conn)? {
                Outcome::Applied if self.machine.store.is_connected(conn.id) => {
                    return self.execute(conn, header, payload);
                }
                // A store with too many connections has it closed.
                Outcome::Applied => return Ok(Answered::Later),
                Outcome::Submitted | Outcome::Full => return Ok(Answered::Later),
                Outcome::Unavailable => self.refuse_request(conn, HEADER_BYTES + payload.len()),
            },
        }
        self.status.requests += 1;
        Ok(Answered::Yes)
    }

    /// Logs a client's opening, before the first of its requests that needs the log. Most clients only read: of them no
    /// replica has to know.
    fn open(&mut self, conn: &mut Conn) -> Result<Outcome, Error> {
        let outcome = self.propose(&EntryRef::Connect { conn: conn.id, peer: Peer::Socket })?;
        match outcome {
            Outcome::Applied => self.table.set_known(conn.slot_id),
            Outcome::Submitted => conn.waiting = Some(Waiting::begin(Wait::Opening)),
            Outcome::Full | Outcome::Unavailable => {}
        }
        Ok(outcome)
    }

    fn refuse_request(&mut self, conn: &mut Conn, size: usize) {
        self.status.refused += 1;
        self.note_refusal(conn.id);
        conn.stage_eio();
        conn.slot.commit(size, 1, None);
    }

    /// Logs a request.
    fn submit(
        &mut self,
        conn: &mut Conn,
        route: Route,
        header: Header,
        payload: &[u8],
    ) -> Result<Answered, Error> {
        if !self.owed.is_empty() {
            return self.submit_behind_owed(conn, header, payload);
        }
        let introduces = route == Route::Introduce;
        if !self.may_submit(conn.id, introduces) {
            return Ok(Answered::Later);
        }
        if let Err(damage) = self.machine.store.examine(conn.id, &header, payload) {
            self.after_damage(conn, payload.len(), damage)?;
            return Ok(Answered::Yes);
        }
        let known = match introduces {
            true => self.forget_former(conn.id, payload)?,
            false => self.make_known(conn.id, &header, payload)?,
        };
        let (verdict, ring_conn) = match introduces && known.is_taken() {
            true => self.introduce(conn, payload)?,
            false => (None, None),
        };
        let (seq, size) = (conn.slot.record().seq + 1, HEADER_BYTES + payload.len());
        let entry = machine::request(conn.id, seq, header, payload, verdict, ring_conn);
        let outcome = if known.is_taken() { self.propose(&entry)? } else { known };
        if !outcome.is_taken()
            && let Some(ring) = ring_conn.filter(|ring| !self.machine.store.is_connected(*ring))
        {
            // It is mapped again when its turn comes again.
            self.close(ring)?;
        }
        match outcome {
            Outcome::Applied => {
                conn.slot.commit(size, 1, None);
                self.note_logged(conn.id, conn.is_ring(), header.kind);
            }
            Outcome::Submitted => {
                conn.waiting = Some(Waiting::begin(Wait::Request { seq, size, kind: header.kind }));
                self.wait_for_opening(ring_conn);
                self.alone |= introduces;
                self.status.requests += 1;
                return Ok(Answered::Later);
            }
            Outcome::Full => return Ok(Answered::Later),
            Outcome::Unavailable => self.refuse_request(conn, size),
        }
        self.status.requests += 1;
        Ok(Answered::Yes)
    }

    /// What is owed to the log comes first: logged before a domain's end, a request would meet a domain that is gone. What
    /// keeps that out of the log keeps the request out, too.
    fn submit_behind_owed(
        &mut self,
        conn: &mut Conn,
        header: Header,
        payload: &[u8],
    ) -> Result<Answered, Error> {
        match self.pay_owed()? {
            // It may have ended this connection, or be what the answer depends on.
            Outcome::Applied | Outcome::Submitted if self.machine.store.is_connected(conn.id) => {
                self.execute(conn, header, payload)
            }
            Outcome::Applied | Outcome::Submitted | Outcome::Full => Ok(Answered::Later),
            Outcome::Unavailable => {
                self.refuse_request(conn, HEADER_BYTES + payload.len());
                self.status.requests += 1;
                Ok(Answered::Yes)
            }
        }
    }

    /// A ring that an INTRODUCE under way brings is served when the store knows it.
    fn wait_for_opening(&mut self, ring: Option<ConnId>) {
        let unknown = ring.filter(|ring| !self.machine.store.is_connected(*ring));
        if let Some(conn) = unknown.and_then(|ring| self.conns.get_mut(&ring.0)) {
            conn.waiting = Some(Waiting::begin(Wait::Opening));
        }
    }

    /// Proposes an entry to the engine.
    pub(super) fn propose(&mut self, entry: &EntryRef<'_>) -> Result<Outcome, Error> {
        match self.machine.propose(entry, &mut self.effects) {
            Ok(Proposed::Applied) => Ok(Outcome::Applied),
            Ok(Proposed::Submitted) => Ok(Outcome::Submitted),
            Err(Error::Log(LogError::Full { .. })) => {
                self.log_full = true;
                self.ask_for_snapshot()?;
                Ok(Outcome::Full)
            }
            // Entries on their way back make room, which nobody's descriptor tells.
            Err(Error::Log(LogError::Busy { .. })) => {
                (self.log_full, self.look_again) = (true, true);
                Ok(Outcome::Full)
            }
            Err(Error::Log(LogError::Unavailable { .. })) => Ok(Outcome::Unavailable),
            Err(error) => Err(error),
        }
    }

    /// Does what applied entries ask for. Effects can bring new entries and so new effects; each of them ends
    /// something that existed, so this ends too.
    pub(super) fn settle_effects(&mut self) -> Result<(), Error> {
        while !self.effects.is_empty() {
            let effects = std::mem::take(&mut self.effects);
            for effect in effects {
                self.settle(effect)?;
            }
        }
        Ok(())
    }

    fn settle(&mut self, effect: Effect) -> Result<(), Error> {
        match effect {
            Effect::Output(conn) => {
                self.deliver(conn)?;
                self.bound_backlog(conn)?;
            }
            Effect::Conflict { conn, since, path } => self.note_conflict(conn, since, &path),
            Effect::Close(conn) => self.close(conn)?,
            Effect::Unmap(domid) => self.unmap(domid)?,
            Effect::QuotaHit { domid, quota } => {
                self.status.quota_hits += 1;
                if self.log_limit.allow("quota_hit") {
                    let detail = format!("domain {domid} reached its quota of {}", quota.name());
                    tracing::warn!(%domid, quota = quota.name(), "quota reached");
                    crate::service::note(&self.warden, Severity::Warning, "quota_hit", detail)?;
                }
            }
            Effect::Control(words) => self.control(&words),
            Effect::Backlog { conn, .. } => self.note_backlog(conn),
            Effect::EventsDropped(conn) => {
                if self.log_limit.allow("events_dropped") {
                    tracing::warn!(
                        conn = conn.0,
                        "more events at once than a client may have; the rest is dropped"
                    );
                }
            }
            other => tracing::debug!(effect = ?other, "effect"),
        }
        Ok(())
    }
}
