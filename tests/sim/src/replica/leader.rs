//! The leader; as the daemon's `takeover.rs`, `requests.rs` and `commit.rs`.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use warden::ids::ServiceId;
use warden::planner::Input;
use xs_protocol::{HEADER_BYTES, Header, MESSAGE_MAX, MessageType};
use xs_shm::{Slot, SlotState, Table};
use xs_store::{ConnId, Effect, Entry, Peer, Route};

use super::conn::{Conn, Flow, Wait};
use super::machine::{Applied, Machine, Outcome};
use super::{hand_in_snapshot, take_order};
use crate::kernel::{Kernel, Order};
use crate::limits::{HEIR_WAIT_MS, REQUESTS_PER_TURN_MAX};
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
    leader.begin_to_accept().await?;
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
            self.accept().await?;
            self.take_committed().await?;
            let ids: Vec<u64> = self.conns.keys().copied().collect();
            for id in ids {
                self.serve_conn(ConnId(id)).await?;
            }
            self.refuse_overdue().await?;
            self.hand_over().await?;
            self.obey()?;
            self.machine.report();
            self.machine.examine_copy();
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
                    self.machine.keep_snapshot(&cursor)?;
                }
            }
        }
        Ok(())
    }

    /// The gateway gives a leader nothing before the former one's heir is heard to its end.
    async fn begin_to_accept(&mut self) -> Result<(), End> {
        let (replica, incarnation) = (self.env.replica(), self.env.incarnation);
        let began_ms = self.env.with(|kernel| kernel.now_ms);
        let begun = |kernel: &mut Kernel| {
            let late = kernel.now_ms >= began_ms + HEIR_WAIT_MS;
            kernel.begin_to_accept(replica, incarnation, late)
        };
        while !self.env.with(begun) {
            self.env.rest().await?;
        }
        Ok(())
    }

    async fn accept(&mut self) -> Result<(), End> {
        while self.env.with(|kernel| kernel.is_alive(ServiceId::Gateway)) {
            let Some(socket) = self.env.with(|kernel| kernel.listening.pop_front()) else { break };
            self.env.with(|kernel| kernel.estate.accepted = Some(socket));
            self.env.point("accepted").await?;
            let begun = self.env.with(|kernel| {
                // The table is sized for far more clients than a world has.
                let (socket, slot) = (kernel.estate.accepted.take()?, kernel.table.allocate_socket()?);
                let (id, socket) = (kernel.table.conn_id(slot), Rc::new(socket));
                kernel.estate.unhanded.insert(id, socket.clone());
                Some((id, socket))
            });
            let Some((id, socket)) = begun else { break };
            self.env.point("has its slot").await?;
            self.begin_client(id, socket).await?;
        }
        Ok(())
    }

    /// Gives the gateway the clients that it lacks.
    async fn hand_over(&mut self) -> Result<(), End> {
        let handed = self.env.with(|kernel| {
            let gateway = kernel.is_alive(ServiceId::Gateway);
            let unhanded =
                if gateway { std::mem::take(&mut kernel.estate.unhanded) } else { BTreeMap::new() };
            let some = !unhanded.is_empty();
            kernel.held.extend(unhanded);
            some
        });
        if handed {
            self.env.point("handed over").await?;
        }
        Ok(())
    }

    /// Takes the clients that the gateway holds.
    async fn adopt(&mut self) -> Result<(), End> {
        let held = self.env.with(|kernel| kernel.held.clone());
        for (id, socket) in held {
            if self.table.state(Table::slot_of(id)) == SlotState::Open {
                self.begin_client(id, socket).await?;
            }
        }
        Ok(())
    }

    async fn begin_client(&mut self, id: u64, socket: Rc<UnixStream>) -> Result<(), End> {
        let (conn, mut slot) = (ConnId(id), self.table.slot(Table::slot_of(id)));
        self.skip_logged(conn, &mut slot);
        self.env.point("slot mended").await?;
        self.conns.insert(id, Conn { id: conn, slot, socket, waiting: None });
        self.settle().await
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
        let store = &self.machine.store;
        let fresh = !store.is_connected(conn.id);
        let route = match fresh {
            true => store.route_fresh(&header, &payload),
            false => store.route(conn.id, &header, &payload),
        };
        if route == Route::Read {
            let mut reply = Vec::new();
            let read = match fresh {
                true => store.read_fresh(&header, &payload, &mut reply),
                false => store.read(conn.id, &header, &payload, &mut reply),
            };
            read.map_err(|damage| End::Failed(format!("damage: {damage:?}")))?;
            conn.slot.stage(&reply);
            self.env.point("read").await?;
            conn.slot.commit(size, 1, None);
            self.env.point("committed").await?;
            return Ok(Answered::Yes);
        }
        match if fresh { self.open(conn).await? } else { Outcome::Applied } {
            Outcome::Applied => self.submit(conn, header, payload).await,
            Outcome::Submitted | Outcome::Full => Ok(Answered::Later),
            Outcome::Unavailable => {
                conn.stage_eio();
                conn.slot.commit(size, 1, None);
                Ok(Answered::Yes)
            }
        }
    }

    /// Logs a client's opening, before the first of its requests that needs the log.
    async fn open(&mut self, conn: &mut Conn) -> Result<Outcome, End> {
        let entry = Entry::Connect { conn: conn.id, peer: Peer::Socket };
        let outcome = self.machine.propose(&entry, &mut self.effects).await?;
        if outcome == Outcome::Submitted {
            conn.waiting = Some(Wait::Opening);
        }
        self.env.point("opened").await?;
        Ok(outcome)
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
