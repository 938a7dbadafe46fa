//! The leader: one loop that serves all endpoints.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use control::{Link, LinkError, Tether, to_service};
use hypervisor::{Host, Port};
use xs_consensus::{CURSOR_BYTES, Cursor, LogError};
use xs_shm::{Kind, ReplicaStatus, ReplicaWords, SlotId, SlotState, Table};
use xs_store::entry::Entry;
use xs_store::{ConnId, Effect, Peer};

use super::backlog::Backlog;
use super::commit::{Outcome, Wait, Waiting};
use super::conn::{Conn, Flow, Transport};
use super::engine_told::EngineTold;
use super::machine::Machine;
use super::repairs::Repairs;
use super::send_snapshot;
use crate::endpoints::{Endpoints, Said};
use crate::error::Error;
use crate::fairness::Fairness;
use crate::limits::{
    EVENTS_PER_TURN_MAX, HANDOVER_BATCH, LEADER_BEAT, SNAPSHOT_LOG_BYTES_MIN, SNAPSHOT_RATIO, SNAPSHOT_WAIT,
};
use crate::log_limit::LogLimit;
use crate::poller::{Interest, Poller};
use crate::service::report;

pub(super) const WARDEN: u64 = 0;
pub(super) const GATEWAY: u64 = 1;
pub(super) const EVENTS: u64 = 2;
pub(super) const ENGINE: u64 = 3;

pub(super) struct Leader {
    pub machine: Machine,
    pub table: Table,
    pub words: ReplicaWords,
    pub status: ReplicaStatus,
    pub warden: Tether,
    pub gateway: Option<Link>,
    pub host: Host,
    pub poller: Poller,
    pub conns: HashMap<u64, Conn>,
    pub by_port: HashMap<u32, ConnId>,
    /// Connections with work left that no descriptor brings back.
    pub queue: VecDeque<ConnId>,
    /// Connections that ended and of which the gateway does not know yet.
    pub closed: Vec<u64>,
    pub effects: Vec<Effect>,
    pub reply: Vec<u8>,
    pub look_again: bool,
    pub snapshot: SnapshotState,
    pub log_limit: LogLimit,
    pub backlog: HashMap<u64, Backlog>,
    pub watch_event_timeout_s: u32,
    /// Entries that the log had no room for.
    pub owed: VecDeque<Entry>,
    /// The last append found no room.
    pub log_full: bool,
    /// Events are pending that the last turn left.
    pub events_left: bool,
    /// Domains that were warned of.
    pub over_soft_quota: BTreeSet<xs_protocol::DomId>,
    /// A port may be bound that nobody noted.
    pub unswept: bool,
    /// Guests that wait for somebody's transaction.
    pub fairness: Fairness,
    /// An INTRODUCE is under way or waits to be: nothing else is submitted.
    pub alone: bool,
    /// Connections whose requests wait until nothing is under way.
    pub held: Vec<ConnId>,
    /// Domains whose shutdown or end is on its way to the store.
    pub ending: BTreeSet<xs_protocol::DomId>,
    /// How long a request may wait for the engine.
    pub request_wait: Duration,
    pub repairs: Repairs,
    pub engine_told: EngineTold,
}

/// When the next snapshot is due.
#[derive(Default)]
pub(super) struct SnapshotState {
    asked: Option<Instant>,
    last_length_bytes: u64,
}

impl Leader {
    /// Serves until the warden says stop; tells the warden of damage that ends it.
    pub fn run(&mut self) -> Result<(), Error> {
        let served = self.serve();
        super::told(&self.warden, self.machine.index(), served)
    }

    fn serve(&mut self) -> Result<(), Error> {
        let mut ready = Vec::new();
        let mut beat = Instant::now();
        loop {
            let idle = self.queue.is_empty() && !self.events_left;
            let wait = if idle { LEADER_BEAT } else { Duration::ZERO };
            let wait = self.until_hold_ends().map_or(wait, |end| wait.min(end));
            self.poller.wait(wait, &mut ready).map_err(Error::system("epoll_wait"))?;
            for word in &ready {
                match *word {
                    WARDEN => {
                        if self.take_orders()? {
                            return Ok(());
                        }
                    }
                    GATEWAY => self.hear_gateway()?,
                    EVENTS => self.hear_events()?,
                    ENGINE => self.take_committed()?,
                    conn => self.serve_conn(ConnId(conn))?,
                }
            }
            if self.events_left {
                self.hear_events()?;
            }
            self.end_holds();
            for _ in 0..self.queue.len() {
                let Some(id) = self.queue.pop_front() else { break };
                self.serve_conn(id)?;
            }
            self.tell_closed()?;
            if beat.elapsed() >= LEADER_BEAT {
                beat = Instant::now();
                self.housekeeping()?;
            }
            self.publish();
        }
    }

    pub(super) fn publish(&mut self) {
        self.status.heartbeat += 1;
        self.status.applied = self.machine.index();
        self.words.publish(&self.status);
    }

    fn housekeeping(&mut self) -> Result<(), Error> {
        let rings = self.conns.values().filter(|conn| conn.is_ring()).count();
        self.status.rings = rings as u64;
        self.status.connections = (self.conns.len() - rings) as u64;
        self.status.domains =
            self.machine.store.domains().filter(|(_, domain)| domain.introduced).count() as u64;
        let store = &self.machine.store;
        self.status.nodes = store.domains().map(|(domid, _)| store.usage(domid).nodes).sum();
        self.status.log_bytes = self.machine.used_bytes();
        self.engine_told.tell(&self.warden, &self.machine.engine_state())?;
        self.sweep_ports();
        self.scrub()?;
        self.pay_owed()?;
        self.refuse_overdue()?;
        if std::mem::take(&mut self.look_again) {
            self.look_at_domains()?;
            self.queue_all();
        }
        self.look_at_backlog()?;
        self.look_at_soft_quota();
        let most = self.machine.capacity_bytes() / 3;
        let due = SNAPSHOT_LOG_BYTES_MIN.max(self.snapshot.last_length_bytes * SNAPSHOT_RATIO).min(most);
        if self.machine.used_bytes() > due {
            self.ask_for_snapshot()?;
        }
        Ok(())
    }

    /// Everybody gets a turn: something may have become possible.
    pub(super) fn queue_all(&mut self) {
        let ids: Vec<ConnId> = self.conns.values().map(|conn| conn.id).collect();
        for id in ids {
            self.queue_conn(id);
        }
    }

    pub(super) fn ask_for_snapshot(&mut self) -> Result<(), Error> {
        self.look_again = true;
        if self.snapshot.asked.is_some_and(|at| at.elapsed() < SNAPSHOT_WAIT) {
            return Ok(());
        }
        self.snapshot.asked = Some(Instant::now());
        report(&self.warden, control::from_service::Report::SnapshotWanted(true))
    }

    /// True if the warden says stop.
    fn take_orders(&mut self) -> Result<bool, Error> {
        loop {
            let Some(packet) = self.warden.order()? else { return Ok(false) };
            match packet.message.order {
                Some(to_service::Order::Lead(_)) => {
                    if let Some(fd) = packet.descriptors.into_iter().next() {
                        self.try_greet_gateway(Link::from_fd(fd));
                    }
                }
                Some(to_service::Order::TakeSnapshot(_)) => {
                    send_snapshot(&self.warden, &self.machine)?;
                }
                Some(to_service::Order::SnapshotKept(kept)) => self.snapshot_kept(&kept)?,
                Some(to_service::Order::Locate(question)) => {
                    report(&self.warden, self.machine.locate(&question))?;
                }
                Some(to_service::Order::Stop(_)) => return Ok(true),
                _ => {}
            }
        }
    }

    fn snapshot_kept(&mut self, kept: &control::SnapshotKept) -> Result<(), Error> {
        let Some(cursor) = kept.release_cursor.first_chunk::<CURSOR_BYTES>() else { return Ok(()) };
        self.machine.release(&Cursor::decode(cursor))?;
        self.save_to_engine()?;
        self.log_full = false;
        self.snapshot = SnapshotState { asked: None, last_length_bytes: kept.newest_length_bytes };
        self.queue_all();
        Ok(())
    }

    /// An engine that outlives this machine keeps the newest snapshot itself, and lets its log go by that.
    fn save_to_engine(&mut self) -> Result<(), Error> {
        if self.machine.wake_fd().is_none() {
            return Ok(());
        }
        let kept = self.warden.copies()?.into_iter().find(|(name, _)| name == control::names::SNAPSHOT);
        let Some((_, snapshot)) = kept else { return Ok(()) };
        let (cursor, bytes) = crate::snapshot::raw(snapshot)?;
        match self.machine.save_snapshot(&cursor, bytes) {
            // The next one will do.
            Ok(()) | Err(LogError::Busy { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A gateway that dies or stalls while it greets is no reason to end: nobody else holds the clients' descriptors.
    fn try_greet_gateway(&mut self, gateway: Link) {
        if let Err(error) = self.greet_gateway(gateway) {
            tracing::warn!(%error, "the new gateway failed while it took over");
            self.drop_gateway();
        }
    }

    /// A gateway that started anew: it says what it holds (nothing), and gets back what we hold.
    fn greet_gateway(&mut self, gateway: Link) -> Result<(), Error> {
        let began = Instant::now();
        let (clients, _) = super::takeover::receive_endpoints(&gateway)?;
        let lacking: Vec<u64> = self
            .conns
            .values()
            .filter(|conn| !conn.is_ring() && !clients.iter().any(|(id, _)| *id == conn.id.0))
            .map(|conn| conn.id.0)
            .collect();
        for batch in lacking.chunks(HANDOVER_BATCH) {
            let descriptors: Vec<_> = batch.iter().filter_map(|id| self.client_fd(*id)).collect();
            gateway.send(&Endpoints::clients(batch.to_vec()), &descriptors)?;
        }
        self.deposit_events(&gateway)?;
        gateway.set_nonblocking(true)?;
        self.drop_gateway();
        self.poller.add(&gateway, GATEWAY, Interest::READ).map_err(Error::system("epoll_ctl"))?;
        self.gateway = Some(gateway);
        // Clients that came while there was no leader to tell.
        for (id, fd) in clients {
            self.adopt_client(id, fd)?;
        }
        self.closed = self.closed_slots();
        self.tell_complete()?;
        self.report_leading(self.status.epoch, began.elapsed())
    }

    /// Connections that ended and whose slots the gateway has still to free.
    pub(super) fn closed_slots(&self) -> Vec<u64> {
        self.table
            .used()
            .filter(|(_, state, kind)| *state == SlotState::Closed && *kind == Kind::Socket)
            .map(|(id, _, _)| self.table.conn_id(id))
            .collect()
    }

    /// The gateway has now all that we hold, and knows what ended.
    pub(super) fn tell_complete(&mut self) -> Result<(), Error> {
        self.tell_closed()?;
        match &self.gateway {
            Some(gateway) => match gateway.send(&Endpoints::new(Said::Complete(true)), &[]) {
                // Without it a gateway keeps slots that nobody uses; nothing else is wrong.
                Ok(()) | Err(LinkError::WouldBlock | LinkError::Closed) => Ok(()),
                Err(error) => Err(error.into()),
            },
            None => Ok(()),
        }
    }

    fn client_fd(&self, id: u64) -> Option<std::os::fd::BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        match &self.conns.get(&id)?.transport {
            Transport::Socket { fd, .. } => Some(fd.as_fd()),
            Transport::Ring { .. } => None,
        }
    }

    /// Leaves the event-channel handles with the gateway, so that they outlive us.
    pub(super) fn deposit_events(&self, gateway: &Link) -> Result<(), Error> {
        let said = Endpoints::new(Said::EventChannels(true));
        Ok(gateway.send(&said, &self.host.events.handles())?)
    }

    fn hear_gateway(&mut self) -> Result<(), Error> {
        while let Some(gateway) = &self.gateway {
            match gateway.receive::<Endpoints>() {
                Ok(packet) => {
                    if let Some(Said::Clients(clients)) = packet.message.said {
                        for (id, fd) in clients.ids.into_iter().zip(packet.descriptors) {
                            self.adopt_client(id, fd)?;
                        }
                    }
                }
                Err(LinkError::WouldBlock) => return Ok(()),
                Err(LinkError::Closed) => self.drop_gateway(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn drop_gateway(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            // A closed descriptor leaves the poller by itself; a failure here changes nothing.
            let _ = self.poller.remove(&gateway);
        }
    }

    /// Takes a client's socket, new or of a former leader, and gives it its first turn.
    pub(super) fn adopt_client(&mut self, id: u64, fd: OwnedFd) -> Result<(), Error> {
        let slot_id = Table::slot_of(id);
        let ours = slot_id.0 < xs_shm::limits::SOCKETS_MAX
            && self.table.conn_id(slot_id) == id
            && self.table.state(slot_id) == SlotState::Open;
        if !ours || self.conns.contains_key(&id) {
            return Ok(());
        }
        let conn = ConnId(id);
        let connected = self.machine.store.is_connected(conn);
        let record = self.table.slot(slot_id).record();
        if !connected && (record.seq > 0 || record.delivered > 0) {
            // Its end is in the log; the former leader died before it could close it.
            let _ = rustix::net::shutdown(&fd, rustix::net::Shutdown::Both);
            self.table.close(slot_id);
            self.closed.push(id);
            return Ok(());
        }
        if !connected {
            let entry = Entry::Connect { conn, peer: Peer::Socket };
            match self.propose(&entry.as_ref())? {
                Outcome::Applied | Outcome::Submitted => {}
                Outcome::Full | Outcome::Unavailable => return self.refuse_client(slot_id, id),
            }
        }
        self.poller.add(&fd, id, Interest::READ).map_err(Error::system("epoll_ctl"))?;
        let mut slot = self.table.slot(slot_id);
        self.skip_logged(conn, &mut slot);
        let transport = Transport::Socket { fd, interest: Interest::READ };
        let mut adopted = Conn::new(conn, slot_id, slot, transport);
        if !self.machine.store.is_connected(conn) {
            adopted.waiting = Some(Waiting::begin(Wait::Opening));
        }
        self.conns.insert(id, adopted);
        self.serve_conn(conn)
    }

    /// A log that takes nothing: the client sees its connection closed, as with a daemon that has no memory left.
    fn refuse_client(&mut self, slot_id: SlotId, id: u64) -> Result<(), Error> {
        if self.log_limit.allow("refused_client") {
            tracing::warn!("the log takes nothing: a new client is refused");
        }
        self.table.close(slot_id);
        self.closed.push(id);
        Ok(())
    }

    fn hear_events(&mut self) -> Result<(), Error> {
        for _ in 0..EVENTS_PER_TURN_MAX {
            let Some(port) = self.host.events.pending()? else {
                self.events_left = false;
                return Ok(());
            };
            if port.0 == self.table.virq_port() {
                self.look_at_domains()?;
            } else if let Some(conn) = self.by_port.get(&port.0) {
                self.serve_conn(*conn)?;
            }
            // Served before it may come again; a port that was let go meanwhile has nothing to unmask.
            if let Err(error) = self.host.events.unmask(port) {
                tracing::debug!(%port, %error, "unmask");
            }
        }
        // The handle is to be waited on only when nothing is pending.
        self.events_left = true;
        Ok(())
    }

    pub(super) fn set_interest(&mut self, conn: &mut Conn, flow: Flow) -> Result<(), Error> {
        let Transport::Socket { fd, interest } = &mut conn.transport else { return Ok(()) };
        // A client that takes no answers is not heard either: its requests wait in its own socket.
        // Nobody is heard while the log has no room: a snapshot that makes some gives everybody a turn.
        let deaf = conn.deaf && conn.waiting.is_some();
        let read = flow != Flow::Blocked && !self.log_full && !deaf;
        let wanted = Interest { read, write: flow == Flow::Blocked };
        let before = std::mem::replace(interest, wanted);
        self.poller.change(fd, conn.id.0, before, wanted).map_err(Error::system("epoll_ctl"))
    }

    fn tell_closed(&mut self) -> Result<(), Error> {
        let Some(gateway) = &self.gateway else { return Ok(()) };
        while !self.closed.is_empty() {
            let batch: Vec<u64> = self.closed.iter().take(HANDOVER_BATCH).copied().collect();
            match gateway.send(&Endpoints::closed(batch.clone()), &[]) {
                Ok(()) => drop(self.closed.drain(..batch.len())),
                Err(LinkError::WouldBlock | LinkError::Closed) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Watches a descriptor of our own.
    pub(super) fn port_of(&self, slot: SlotId) -> Port {
        Port(self.table.ports(slot).0)
    }
}
