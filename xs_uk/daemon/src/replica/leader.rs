//! The leader: one loop that serves all endpoints.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use control::{Link, LinkError, Tether, to_service};
use hypervisor::{Host, Port};
use xs_consensus::{CURSOR_BYTES, Cursor, LogError};
use xs_shm::{ReplicaStatus, ReplicaWords, SlotId, Table};
use xs_store::entry::Entry;
use xs_store::{ConnId, Effect};

use super::arrivals::Arrivals;
use super::backlog::Backlog;
use super::conn::{Conn, Flow, Transport};
use super::engine_told::EngineTold;
use super::machine::Machine;
use super::repairs::Repairs;
use super::send_snapshot;
use super::unmapped::Unmapped;
use crate::attention::Attention;
use crate::endpoints::{Endpoints, Said};
use crate::error::Error;
use crate::fairness::Fairness;
use crate::limits::{
    EVENTS_PER_TURN_MAX, HANDOVER_BATCH, LEADER_BEAT, SERVED_PER_BEAT, SNAPSHOT_LOG_BYTES_MIN,
    SNAPSHOT_RATIO, SNAPSHOT_WAIT,
};
use crate::log_limit::LogLimit;
use crate::poller::{Interest, Poller};
use crate::service::report;

pub(super) const WARDEN: u64 = 0;
pub(super) const GATEWAY: u64 = 1;
pub(super) const EVENTS: u64 = 2;
pub(super) const ENGINE: u64 = 3;
pub(super) const LISTENER: u64 = 4;
pub(super) const HEIR: u64 = 5;

pub(super) struct Leader {
    pub machine: Machine,
    pub table: Table,
    pub words: ReplicaWords,
    pub status: ReplicaStatus,
    pub warden: Tether,
    pub gateway: Option<Link>,
    pub arrivals: Arrivals,
    /// The gateway has not been told yet that it has all that it lacked.
    pub complete_untold: bool,
    pub host: Host,
    pub poller: Poller,
    pub attention: Attention,
    pub conns: HashMap<u64, Conn>,
    pub by_port: HashMap<u32, ConnId>,
    /// Connections with work left that no descriptor brings back.
    pub queue: VecDeque<ConnId>,
    /// Connections that ended and whose descriptors the gateway holds.
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
    /// Rings that could not be mapped again.
    pub unmapped: Unmapped,
}

/// When the next snapshot is due.
#[derive(Default)]
pub(super) struct SnapshotState {
    asked: Option<Instant>,
    last_length_bytes: u64,
    /// Of the log in use, what the newest snapshot does not change: an engine lets it go by its own time.
    base_bytes: u64,
    /// The log's end when the newest one was kept, and how many in a row were.
    kept_at: u64,
    kept_there: u32,
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
            let wait = self.arrivals.wait().map_or(wait, |due| wait.min(due));
            self.attention.wait(&mut self.poller, wait, &mut ready).map_err(Error::system("epoll_wait"))?;
            for (served, word) in ready.iter().enumerate() {
                self.beat_after(served);
                match *word {
                    WARDEN => {
                        if self.take_orders()? {
                            return Ok(());
                        }
                    }
                    GATEWAY => self.hear_gateway()?,
                    EVENTS => self.hear_events()?,
                    ENGINE => self.take_committed()?,
                    LISTENER => self.accept()?,
                    HEIR => return Err(self.resign()),
                    conn => self.serve_conn(ConnId(conn))?,
                }
            }
            if self.events_left {
                self.hear_events()?;
            }
            self.end_holds();
            for served in 0..self.queue.len() {
                self.beat_after(served);
                let Some(id) = self.queue.pop_front() else { break };
                self.serve_conn(id)?;
            }
            self.hand_over_due()?;
            self.tell_complete()?;
            self.tell_closed()?;
            if beat.elapsed() >= LEADER_BEAT {
                beat = Instant::now();
                self.housekeeping()?;
            }
            self.publish();
        }
    }

    /// With many busy clients a pass takes long: who waits for the heartbeat must not take that for a hang.
    fn beat_after(&mut self, served: usize) {
        if served % SERVED_PER_BEAT == SERVED_PER_BEAT - 1 {
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
        self.arrivals.try_again();
        self.listen_again()?;
        self.engine_told.tell(&self.warden, &self.machine.engine_state())?;
        self.sweep_ports();
        self.map_again()?;
        self.scrub()?;
        self.pay_owed()?;
        self.settle_effects()?;
        self.refuse_overdue()?;
        if std::mem::take(&mut self.look_again) {
            self.look_at_domains()?;
            self.queue_all();
        }
        self.look_at_backlog()?;
        self.look_at_soft_quota();
        let most = self.machine.capacity_bytes() / 3;
        let due = SNAPSHOT_LOG_BYTES_MIN.max(self.snapshot.last_length_bytes * SNAPSHOT_RATIO).min(most);
        let used = self.machine.used_bytes();
        let retained = if self.machine.retains() { self.snapshot.base_bytes.min(used) } else { 0 };
        self.snapshot.base_bytes = retained;
        if used > self.snapshot.base_bytes + due {
            self.ask_for_snapshot()?;
        }
        self.unblock();
        Ok(())
    }

    /// An engine that says when there is room again may have said so a moment too early.
    pub(super) fn unblock(&mut self) {
        if self.log_full && self.machine.wake_fd().is_some() {
            self.log_full = false;
            self.queue_all();
        }
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
        // Two at the end of the log let all of it go as soon as the engine lets it; a third one makes no room.
        if self.snapshot.kept_at == self.machine.index() && self.snapshot.kept_there >= 2 {
            return Ok(());
        }
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
                        self.try_greet_gateway(Link::from_fd(fd))?;
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
        let index = self.machine.index();
        let before = if self.snapshot.kept_at == index { self.snapshot.kept_there } else { 0 };
        self.snapshot = SnapshotState {
            asked: None,
            last_length_bytes: kept.newest_length_bytes,
            base_bytes: self.machine.used_bytes(),
            kept_at: index,
            kept_there: before.saturating_add(1),
        };
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
            Err(error @ LogError::TooLarge { .. }) => {
                tracing::warn!(%error, "the engine cannot keep this snapshot");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A gateway that dies or stalls while it greets is no reason to end: nobody else holds the clients' descriptors.
    fn try_greet_gateway(&mut self, gateway: Link) -> Result<(), Error> {
        if let Err(error) = self.greet_gateway(gateway) {
            tracing::warn!(%error, "the new gateway failed while it took over");
            self.drop_gateway()?;
        }
        Ok(())
    }

    /// A gateway that started anew, or a fresh link to the one that was there: it says what it holds, and gets what it
    /// lacks. It waits for the end of the former link first.
    fn greet_gateway(&mut self, gateway: Link) -> Result<(), Error> {
        let began = Instant::now();
        let former = self.gateway.replace(gateway);
        // Whatever happens from here on, the heir speaks to the new one.
        self.note_link();
        if let Some(former) = former {
            let _ = self.poller.remove(&former);
        }
        let Some(gateway) = &self.gateway else { return Ok(()) };
        let (clients, _) = super::takeover::receive_endpoints(gateway)?;
        self.poller.add(gateway, GATEWAY, Interest::READ).map_err(Error::system("epoll_ctl"))?;
        self.hand_over_lacking(&clients)?;
        if let Some(gateway) = &self.gateway {
            self.deposit_events(gateway)?;
            gateway.set_nonblocking(true)?;
        }
        self.closed.clear();
        self.take_clients(clients)?;
        self.tell_closed()?;
        self.complete_untold = true;
        self.listen_again()?;
        self.report_leading(self.status.epoch, began.elapsed())
    }

    fn hand_over_lacking(&mut self, had: &[(u64, OwnedFd)]) -> Result<(), Error> {
        let had: BTreeSet<u64> = had.iter().map(|(id, _)| *id).collect();
        let sockets = self.conns.values().filter(|conn| !conn.is_ring());
        self.arrivals.expect(sockets.map(|conn| conn.id.0).filter(|id| !had.contains(id)));
        self.hand_over_all()
    }

    /// Leaves the event-channel handles with the gateway, so that they outlive us.
    pub(super) fn deposit_events(&self, gateway: &Link) -> Result<(), Error> {
        let said = Endpoints::new(Said::EventChannels(true));
        Ok(gateway.send(&said, &self.host.events.handles())?)
    }

    /// After the greeting a gateway says nothing more; it may end.
    fn hear_gateway(&mut self) -> Result<(), Error> {
        while let Some(gateway) = &self.gateway {
            match gateway.receive::<Endpoints>() {
                Ok(packet) => tracing::warn!(message = ?packet.message, "the gateway says what it must not"),
                Err(LinkError::WouldBlock) => return Ok(()),
                Err(LinkError::Closed) => {
                    self.leave_to_warden()?;
                    self.drop_gateway()?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn drop_gateway(&mut self) -> Result<(), Error> {
        if let Some(gateway) = self.gateway.take() {
            self.note_link();
            // A closed descriptor leaves the poller by itself; a failure here changes nothing.
            let _ = self.poller.remove(&gateway);
        }
        self.listen(false)
    }

    /// Takes clients that the gateway holds.
    pub(super) fn take_clients(&mut self, clients: Vec<(u64, OwnedFd)>) -> Result<(), Error> {
        for (id, fd) in clients {
            if self.conns.contains_key(&id) {
                continue;
            }
            if self.is_in_table(id) {
                self.adopt_client(ConnId(id), fd)?;
            } else {
                self.closed.push(id);
            }
        }
        Ok(())
    }

    /// Takes a client of a former leader, or one that was accepted for it, and gives it its turn.
    fn adopt_client(&mut self, conn: ConnId, fd: OwnedFd) -> Result<(), Error> {
        let slot_id = Table::slot_of(conn.0);
        if !self.machine.store.is_connected(conn) && self.table.is_known(slot_id) {
            // Its end is in the log; the former leader died before it could close it.
            return self.close_socket(conn.0, slot_id, fd, true);
        }
        self.table.note_descriptor(slot_id, fd.as_raw_fd(), true);
        self.begin_client(conn, slot_id, fd, true)
    }

    /// Begins to serve a client that has its slot. `handed`: the gateway has it too.
    pub(super) fn begin_client(
        &mut self,
        conn: ConnId,
        slot_id: SlotId,
        fd: OwnedFd,
        handed: bool,
    ) -> Result<(), Error> {
        if self.machine.store.is_connected(conn) {
            self.table.set_known(slot_id);
        }
        let mut slot = self.table.slot(slot_id);
        if !self.skip_logged(conn, &mut slot) {
            self.end_damaged(conn)?;
            return self.close_socket(conn.0, slot_id, fd, handed);
        }
        // Its first turn gives it to the poller: most have sent their request by now, and are answered sooner so.
        let transport = Transport::Socket { fd, interest: Interest::NONE, handed };
        self.conns.insert(conn.0, Conn::new(conn, slot_id, slot, transport));
        self.serve_conn(conn)
    }

    /// The end of a client's connection, which is nobody's in the table before its descriptor is closed.
    pub(super) fn close_socket(
        &mut self,
        id: u64,
        slot_id: SlotId,
        fd: OwnedFd,
        handed: bool,
    ) -> Result<(), Error> {
        if handed {
            // The gateway's copy of the descriptor must not keep the client waiting for its end.
            let _ = rustix::net::shutdown(&fd, rustix::net::Shutdown::Both);
            self.closed.push(id);
        }
        self.table.free(slot_id);
        drop(fd);
        self.listen_again()
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
        let Transport::Socket { fd, interest, .. } = &mut conn.transport else { return Ok(()) };
        // A client that takes no answers is not heard either: its requests wait in its own socket.
        // Nobody is heard while the log has no room: a snapshot that makes some gives everybody a turn.
        let deaf = conn.deaf && conn.waiting.is_some();
        let read = flow != Flow::Blocked && !self.log_full && !deaf;
        let wanted = Interest { read, write: flow == Flow::Blocked };
        let before = std::mem::replace(interest, wanted);
        self.poller.change(fd, conn.id.0, before, wanted).map_err(Error::system("epoll_ctl"))
    }

    pub(super) fn tell_closed(&mut self) -> Result<(), Error> {
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
