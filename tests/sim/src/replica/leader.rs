//! The leader; as the daemon's `takeover.rs`, `requests.rs` and `commit.rs`.

use std::collections::BTreeMap;

use warden::planner::Input;
use xs_protocol::{HEADER_BYTES, Header, MESSAGE_MAX, MessageType};
use xs_shm::{Slot, SlotState, Table};
use xs_store::{ConnId, Effect, Entry, Peer, Route};

use super::conn::{Conn, Flow, Wait};
use super::machine::{Applied, Machine, Outcome};
use super::{hand_in_snapshot, take_order};
use crate::kernel::Order;
use crate::limits::REQUESTS_PER_TURN_MAX;
use crate::options::Mutant;
use crate::process::{End, Env};

/// What became of one attempt to answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    Yes,
    Later,
}

struct Leader {
    env: Env,
    machine: Machine,
    table: Table,
    epoch: u64,
    conns: BTreeMap<u64, Conn>,
    effects: Vec<Effect>,
    snapshot_asked: bool,
    mutant: Option<Mutant>,
}

/// Takes over, then serves.
pub async fn lead(env: &Env, mut machine: Machine, epoch: u64) -> Result<(), End> {
    env.point("takes over").await?;
    let mutant = env.with(|kernel| kernel.options.mutant);
    machine.begin_lead(epoch)?;
    env.point("fences").await?;
    while mutant != Some(Mutant::LeadEarly) && !machine.finish_lead().await? {
        env.rest().await?;
    }
    let table = env.with(|kernel| kernel.map_table()).map_err(|error| End::Failed(error.to_string()))?;
    let (conns, effects) = (BTreeMap::new(), Vec::new());
    let env = env.clone();
    let mut leader = Leader { env, machine, table, epoch, conns, effects, snapshot_asked: false, mutant };
    leader.adopt().await?;
    leader.env.point("adopted").await?;
    let (service, incarnation) = (leader.env.id, leader.env.incarnation);
    let (applied, replica) = (leader.machine.index(), leader.env.replica());
    leader.env.with(|kernel| {
        kernel.note_serving(replica, epoch);
        let (takeover_us, detail) = (0, String::new());
        kernel.inputs.push_back(Input::Leading { service, incarnation, epoch, applied, takeover_us, detail });
    });
    leader.serve().await
}

impl Leader {
    async fn serve(&mut self) -> Result<(), End> {
        loop {
            self.adopt().await?;
            self.take_committed().await?;
            let ids: Vec<u64> = self.conns.keys().copied().collect();
            for id in ids {
                self.serve_conn(ConnId(id)).await?;
            }
            self.refuse_overdue().await?;
            self.obey()?;
            self.machine.report();
            self.env.rest().await?;
        }
    }

    fn obey(&mut self) -> Result<(), End> {
        if self.machine.is_filling() && !self.snapshot_asked {
            self.snapshot_asked = true;
            let (service, incarnation) = (self.env.id, self.env.incarnation);
            self.env.with(|kernel| kernel.inputs.push_back(Input::SnapshotWanted { service, incarnation }));
        }
        while let Some(order) = take_order(&self.env) {
            match order {
                // The same epoch again: a new gateway.
                Order::Lead(epoch) => {
                    let (service, incarnation) = (self.env.id, self.env.incarnation);
                    let (applied, takeover_us, detail) = (self.machine.index(), 0, String::new());
                    self.env.with(|kernel| {
                        let leading =
                            Input::Leading { service, incarnation, epoch, applied, takeover_us, detail };
                        kernel.inputs.push_back(leading);
                    });
                }
                Order::TakeSnapshot => hand_in_snapshot(&self.env, &self.machine)?,
                Order::Release(cursor) => {
                    self.snapshot_asked = false;
                    self.machine.release(&cursor)?;
                }
            }
        }
        Ok(())
    }

    /// Takes the clients that are there and not known yet.
    async fn adopt(&mut self) -> Result<(), End> {
        let held = self.env.with(|kernel| kernel.held.clone());
        for (id, socket) in held {
            let slot_id = Table::slot_of(id);
            if self.conns.contains_key(&id) || self.table.state(slot_id) != SlotState::Open {
                continue;
            }
            let conn = ConnId(id);
            let mut waiting = None;
            if !self.machine.store.is_connected(conn) {
                let entry = Entry::Connect { conn, peer: Peer::Socket };
                match self.machine.propose(&entry, &mut self.effects).await? {
                    Outcome::Applied => {}
                    Outcome::Submitted => waiting = Some(Wait::Opening),
                    Outcome::Full | Outcome::Unavailable => continue,
                }
            }
            let mut slot = self.table.slot(slot_id);
            self.skip_logged(conn, &mut slot);
            self.env.point("slot mended").await?;
            self.conns.insert(id, Conn { id: conn, slot, socket, waiting });
            self.settle().await?;
        }
        Ok(())
    }

    /// A request that was logged, but whose slot does not know it yet: it is done, only the slot catches up.
    fn skip_logged(&mut self, id: ConnId, slot: &mut Slot) {
        let record = slot.record();
        let store = &mut self.machine.store;
        if self.mutant != Some(Mutant::Redeliver) {
            store.trim(id, record.delivered);
        }
        match self.mutant {
            Some(Mutant::RefusedOnce) if record.refused == store.last_seq(id) => store.discard_reply(id),
            Some(Mutant::RefusedOnce) => {}
            _ => store.discard_refused(id, record.refused),
        }
        if store.last_seq(id) <= record.seq || self.mutant == Some(Mutant::ForgetLogged) {
            return;
        }
        assert_eq!(store.last_seq(id), record.seq + 1, "one request is under way at a time");
        let mut header = [0; HEADER_BYTES];
        slot.peek(0, &mut header);
        let payload = Header::parse(&header).map_or(0, |header| header.len as usize);
        slot.commit(HEADER_BYTES + payload, 1, None);
    }

    async fn serve_conn(&mut self, id: ConnId) -> Result<(), End> {
        let Some(mut conn) = self.conns.remove(&id.0) else { return Ok(()) };
        self.push(&mut conn).await?;
        let received = conn.receive();
        if received == Flow::Moved {
            self.env.point("received").await?;
        }
        for _ in 0..REQUESTS_PER_TURN_MAX {
            if self.answer(&mut conn).await? == Answered::Later {
                break;
            }
        }
        self.push(&mut conn).await?;
        self.conns.insert(id.0, conn);
        self.settle().await
    }

    /// Queues the outbox's items that fit, then sends.
    async fn push(&mut self, conn: &mut Conn) -> Result<Flow, End> {
        if conn.waiting == Some(Wait::Opening) {
            return Ok(Flow::Idle);
        }
        let mut last = None;
        for (ordinal, _, bytes) in self.machine.store.outbox(conn.id) {
            if bytes.len() > conn.slot.stageable_bytes() {
                break;
            }
            conn.slot.stage(bytes);
            last = Some(ordinal);
        }
        if let Some(ordinal) = last {
            self.env.point("staged").await?;
            if self.mutant == Some(Mutant::DeliveredTooMuch) {
                conn.slot.commit(0, 0, Some(ordinal + 1));
            } else {
                conn.slot.commit(0, 0, Some(ordinal));
            }
            self.env.point("queued").await?;
            self.machine.store.trim(conn.id, ordinal);
        }
        if conn.slot.sendable_bytes() > 0 {
            self.env.point("sends").await?;
            let (replica, epoch) = (self.env.replica(), self.epoch);
            self.env.with(|kernel| kernel.note_send(replica, epoch));
        }
        let sent = conn.send();
        if sent == Flow::Moved {
            self.env.point("sent").await?;
        }
        Ok(sent)
    }

    async fn answer(&mut self, conn: &mut Conn) -> Result<Answered, End> {
        if conn.waiting.is_some() {
            return Ok(Answered::Later);
        }
        let Some((header, payload)) = conn.request() else { return Ok(Answered::Later) };
        if self.machine.store.outbox(conn.id).next().is_some() {
            self.push(conn).await?;
        }
        let behind = self.machine.store.outbox(conn.id).next().is_some();
        if behind || conn.slot.stageable_bytes() < MESSAGE_MAX {
            return Ok(Answered::Later);
        }
        let size = HEADER_BYTES + payload.len();
        if self.machine.store.route(conn.id, &header, &payload) == Route::Read {
            let mut reply = Vec::new();
            let read = self.machine.store.read(conn.id, &header, &payload, &mut reply);
            read.map_err(|damage| End::Failed(format!("damage: {damage:?}")))?;
            conn.slot.stage(&reply);
            self.env.point("read").await?;
            conn.slot.commit(size, 1, None);
            self.env.point("committed").await?;
            return Ok(Answered::Yes);
        }
        self.submit(conn, header, payload).await
    }

    async fn submit(&mut self, conn: &mut Conn, header: Header, payload: Vec<u8>) -> Result<Answered, End> {
        let examined = self.machine.store.examine(conn.id, &header, &payload);
        examined.map_err(|damage| End::Failed(format!("damage: {damage:?}")))?;
        let (seq, size) = (conn.slot.record().seq + 1, HEADER_BYTES + payload.len());
        let skips = header.kind == MessageType::WRITE && header.tx_id == 0 && seq % 5 == 0;
        if self.mutant == Some(Mutant::AnswerFirst) && skips {
            let answer = xs_protocol::message::reply(&header, b"OK\0");
            conn.slot.stage(&answer);
            conn.slot.commit(size, 1, None);
            return Ok(Answered::Yes);
        }
        let entry = Entry::Request { conn: conn.id, seq, header, payload, verdict: None, ring_conn: None };
        match self.machine.propose(&entry, &mut self.effects).await? {
            Outcome::Applied => conn.slot.commit(size, 1, None),
            Outcome::Submitted => {
                let since_ms = self.env.with(|kernel| kernel.now_ms);
                conn.waiting = Some(Wait::Request { seq, size, since_ms });
                return Ok(Answered::Later);
            }
            Outcome::Full => return Ok(Answered::Later),
            Outcome::Unavailable => {
                conn.stage_eio();
                conn.slot.commit(size, 1, None);
            }
        }
        self.env.point("committed").await?;
        Ok(Answered::Yes)
    }

    async fn take_committed(&mut self) -> Result<(), End> {
        while let Some(applied) = self.machine.take_committed(&mut self.effects).await? {
            match applied {
                Applied::Request { conn, seq } => self.complete(conn, seq),
                Applied::Connect(conn) => {
                    if let Some(conn) = self.conns.get_mut(&conn.0) {
                        conn.waiting = None;
                    }
                }
                Applied::Other => {}
            }
            self.env.point("completed").await?;
        }
        self.settle().await
    }

    fn complete(&mut self, id: ConnId, done: u64) {
        let Some(conn) = self.conns.get_mut(&id.0) else { return };
        match conn.waiting {
            Some(Wait::Request { seq, size, .. }) if seq == done => {
                conn.slot.commit(size, 1, None);
                conn.waiting = None;
            }
            _ => self.machine.store.discard_reply(id),
        }
    }

    /// Answers requests whose outcome nobody knows after the bound.
    async fn refuse_overdue(&mut self) -> Result<(), End> {
        let (now_ms, bound_ms) = self.env.with(|kernel| (kernel.now_ms, kernel.options.request_wait_ms));
        let mut refused = 0;
        for conn in self.conns.values_mut() {
            if let Some(Wait::Request { size, since_ms, .. }) = conn.waiting
                && now_ms >= since_ms + bound_ms
                && conn.refuse(size)
            {
                conn.waiting = None;
                refused += 1;
            }
        }
        if refused > 0 {
            self.env.point("refused").await?;
        }
        Ok(())
    }

    /// Delivers what applied entries have queued.
    async fn settle(&mut self) -> Result<(), End> {
        for effect in std::mem::take(&mut self.effects) {
            if let Effect::Output(id) = effect
                && let Some(mut conn) = self.conns.remove(&id.0)
            {
                self.push(&mut conn).await?;
                self.conns.insert(id.0, conn);
            }
        }
        Ok(())
    }
}
