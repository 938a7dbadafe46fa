//! From follower to leader: fence, catch up, take the endpoints, mend what the former leader was in the middle of.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use control::{Leading, Link, LinkError, Severity, Tether, from_service, notes};
use hypervisor::{Host, Virq};
use xs_protocol::{HEADER_BYTES, Header, MESSAGE_MAX};
use xs_shm::{Kind, ReplicaStatus, ReplicaWords, Slot, SlotId, Table};
use xs_store::ConnId;
use xs_store::entry::Entry;

use super::ReplicaOptions;
use super::arrivals::Arrivals;
use super::conn::{Conn, Transport};
use super::engine_told::EngineTold;
use super::leader::{ENGINE, EVENTS, GATEWAY, HEIR, Leader, SnapshotState, WARDEN};
use super::machine::Machine;
use super::repairs::Repairs;
use super::told;
use super::unmapped::Unmapped;
use crate::attention::Attention;
use crate::endpoints::{Endpoints, Said};
use crate::error::Error;
use crate::fairness::Fairness;
use crate::limits::{ENGINE_WAIT_NOTE, HANDOVER_WAIT, LEADER_BEAT, PORTS_SWEPT};
use crate::log_limit::LogLimit;
use crate::poller::{Interest, Poller};
use crate::service::{Service, note, report};

/// What a follower brings along.
pub(super) struct Parts {
    pub service: Service,
    pub machine: Machine,
    pub table: Table,
    pub words: ReplicaWords,
    pub status: ReplicaStatus,
    pub kick: Option<OwnedFd>,
    pub arrivals: Arrivals,
    pub options: ReplicaOptions,
}

/// Client sockets by connection id, and the event-channel handles.
pub(super) type Held = (Vec<(u64, OwnedFd)>, Vec<OwnedFd>);

/// Takes over with what the gateway `held`.
pub(super) fn take_over(
    parts: Parts,
    epoch: u64,
    gateway: Link,
    held: Held,
    began: Instant,
) -> Result<Leader, Error> {
    let Parts { service, mut machine, table, words, mut status, kick, arrivals, options } = parts;
    status.epoch = epoch;
    let mut engine_told = EngineTold::new(options.engine.name());
    let fenced = fence(&service.warden, &mut machine, epoch, &words, &mut status, &mut engine_told);
    told(&service.warden, machine.index(), fenced)?;
    machine.set_kick(kick);
    // Nobody may have compared what it was when the former leader died.
    let right = if machine.begins_wrong() { Err(Error::OutVoted { index: machine.index() }) } else { Ok(()) };
    told(&service.warden, machine.index(), right)?;
    let (clients, handles) = held;
    let fresh_host = handles.is_empty();
    let host = if fresh_host { Host::open(&options.host)? } else { Host::adopt(&options.host, handles)? };
    let poller = Poller::new().map_err(Error::system("epoll_create"))?;
    let mut leader = Leader {
        machine,
        table,
        words,
        status,
        warden: service.warden,
        gateway: None,
        arrivals,
        host,
        poller,
        attention: Attention::new(),
        conns: HashMap::new(),
        by_port: HashMap::new(),
        queue: VecDeque::new(),
        closed: Vec::new(),
        effects: Vec::new(),
        reply: Vec::new(),
        look_again: false,
        snapshot: SnapshotState::default(),
        log_limit: LogLimit::default(),
        backlog: HashMap::new(),
        watch_event_timeout_s: options.watch_event_timeout_s,
        owed: VecDeque::new(),
        log_full: false,
        events_left: false,
        unswept: false,
        complete_untold: true,
        over_soft_quota: BTreeSet::new(),
        fairness: Fairness::default(),
        alone: false,
        held: Vec::new(),
        ending: BTreeSet::new(),
        request_wait: options.engine.request_wait(),
        repairs: Repairs::new(),
        engine_told,
        unmapped: Unmapped::default(),
    };
    if leader.machine.index() == 0 {
        leader.propose_or_retry(&Entry::SetConfig(options.config))?;
    }
    leader.begin(&gateway, fresh_host)?;
    leader.take_rings(fresh_host)?;
    if options.own_ring && !leader.has_own_ring() {
        leader.sweep_ports();
        leader.open_own_ring()?;
    }
    if fresh_host {
        // Not before all ports are bound and noted: a handle that nobody else holds closes its ports when we die.
        leader.deposit_events(&gateway)?;
    }
    leader.gateway = Some(gateway);
    leader.take_clients(clients)?;
    leader.forget_lost()?;
    leader.begin_to_accept()?;
    leader.look_at_domains()?;
    leader.seed_backlog();
    leader.deliver_all()?;
    leader.report_leading(epoch, began.elapsed())?;
    Ok(leader)
}

/// Fences older leaders and applies what they left, for as long as the engine takes for that.
fn fence(
    warden: &Tether,
    machine: &mut Machine,
    epoch: u64,
    words: &ReplicaWords,
    status: &mut ReplicaStatus,
    engine_told: &mut EngineTold,
) -> Result<(), Error> {
    machine.begin_lead(epoch)?;
    let mut poller = Poller::new().map_err(Error::system("epoll_create"))?;
    if let Some(wake) = machine.wake_fd() {
        poller.add(wake, ENGINE, Interest::READ).map_err(Error::system("epoll_ctl"))?;
    }
    let (mut ready, mut told) = (Vec::new(), Instant::now());
    while !machine.finish_lead()? {
        if told.elapsed() >= ENGINE_WAIT_NOTE {
            told = Instant::now();
            let detail = format!("{:?}", machine.engine_state().health);
            note(warden, Severity::Warning, notes::ENGINE_WAITS, detail)?;
        }
        engine_told.tell(warden, &machine.engine_state())?;
        poller.wait(LEADER_BEAT, &mut ready).map_err(Error::system("epoll_wait"))?;
        status.heartbeat += 1;
        status.applied = machine.index();
        words.publish(status);
    }
    Ok(())
}

/// Receives everything that the gateway holds.
pub(super) fn receive_endpoints(gateway: &Link) -> Result<Held, Error> {
    gateway.set_nonblocking(true)?;
    let mut poller = Poller::new().map_err(Error::system("epoll_create"))?;
    poller.add(gateway, 0, Interest::READ).map_err(Error::system("epoll_ctl"))?;
    let (mut clients, mut handles, mut ready) = (Vec::new(), Vec::new(), Vec::new());
    let began = Instant::now();
    loop {
        match gateway.receive::<Endpoints>() {
            Ok(packet) => match packet.message.said {
                Some(Said::Clients(said)) => clients.extend(said.ids.into_iter().zip(packet.descriptors)),
                Some(Said::EventChannels(_)) => handles = packet.descriptors,
                Some(Said::Complete(_)) => return Ok((clients, handles)),
                _ => {}
            },
            Err(LinkError::WouldBlock) => {
                let waited = began.elapsed();
                let left = HANDOVER_WAIT.checked_sub(waited);
                let left = left.ok_or(Error::Handover { waited_ms: waited.as_millis() })?;
                poller.wait(left, &mut ready).map_err(Error::system("epoll_wait"))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

impl Leader {
    fn begin(&mut self, gateway: &Link, fresh_host: bool) -> Result<(), Error> {
        let add = Error::system("epoll_ctl");
        self.poller.add(&self.warden, WARDEN, Interest::READ).map_err(add)?;
        self.poller
            .add(self.host.events.wait_fd(), EVENTS, Interest::READ)
            .map_err(Error::system("epoll_ctl"))?;
        self.poller.add(gateway, GATEWAY, Interest::READ).map_err(Error::system("epoll_ctl"))?;
        self.poller.add(&self.arrivals.heir, HEIR, Interest::READ).map_err(Error::system("epoll_ctl"))?;
        if let Some(wake) = self.machine.wake_fd() {
            self.poller.add(wake, ENGINE, Interest::READ).map_err(Error::system("epoll_ctl"))?;
        }
        if fresh_host {
            self.table.set_virq_port(0);
            self.table.set_binding(false);
        }
        self.unswept = self.table.is_binding();
        if self.table.virq_port() == 0 {
            let port = self.host.events.bind_virq(Virq::DomExc)?;
            self.table.set_virq_port(port.0);
        }
        self.unmask(self.table.virq_port());
        Ok(())
    }

    /// The former leader died between binding a port and noting it: the peer's port stays taken until ours is let go.
    /// That takes many calls, so it is done before the next port is bound or on the next beat, not while clients wait
    /// for the takeover: leaders that were killed during it, each in turn, never came to serve.
    pub(super) fn sweep_ports(&mut self) {
        if !std::mem::take(&mut self.unswept) {
            return;
        }
        let rings = self.table.used().filter(|(_, kind)| *kind == Kind::Ring);
        let mut known: BTreeSet<u32> = rings.map(|(id, _)| self.port_of(id).0).collect();
        known.insert(self.table.virq_port());
        let last = known.last().map_or(0, |port| port.saturating_add(PORTS_SWEPT));
        for port in (1..=last).filter(|port| !known.contains(port)) {
            // Nearly all of them are not ours.
            let _ = self.host.events.unbind(hypervisor::Port(port));
        }
        self.table.set_binding(false);
    }

    /// A port that the former leader had read is masked until somebody says otherwise.
    fn unmask(&mut self, port: u32) {
        if let Err(error) = self.host.events.unmask(hypervisor::Port(port)) {
            tracing::debug!(port, %error, "unmask");
        }
    }

    fn has_own_ring(&self) -> bool {
        self.machine.store.domain(xs_protocol::DomId(0)).is_some_and(|domain| domain.conn.is_some())
            || self.conns.values().any(|conn| conn.is_ring() && self.table.domid(conn.slot_id) == 0)
    }

    fn take_rings(&mut self, fresh_host: bool) -> Result<(), Error> {
        let rings: Vec<SlotId> =
            self.table.used().filter(|(_, kind)| *kind == Kind::Ring).map(|(id, _)| id).collect();
        for slot_id in rings {
            let id = ConnId(self.table.conn_id(slot_id));
            if self.machine.store.is_connected(id) {
                self.take_ring(slot_id, id, fresh_host)?;
            } else {
                self.drop_unknown_ring(slot_id);
            }
        }
        Ok(())
    }

    /// The former leader mapped it for an INTRODUCE that never reached the log, or had let it go after a RELEASE.
    pub(super) fn drop_unknown_ring(&mut self, slot_id: SlotId) {
        if let Err(error) = self.host.events.unbind(self.port_of(slot_id)) {
            tracing::debug!(%error, "unbind");
        }
        self.table.free(slot_id);
    }

    pub(super) fn take_ring(&mut self, slot_id: SlotId, id: ConnId, fresh_host: bool) -> Result<(), Error> {
        let domid = hypervisor::DomId(self.table.domid(slot_id));
        let page = if domid.0 == 0 {
            self.host.pages.map_own().map(|(page, _)| page)
        } else {
            self.host.pages.map_guest(domid, self.table.gfn(slot_id))
        };
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%domid, %error, "cannot map the ring again");
                self.unmapped.add(slot_id, id, fresh_host);
                return Ok(());
            }
        };
        if fresh_host {
            let (_, remote) = self.table.ports(slot_id);
            match self.host.events.bind_interdomain(domid, hypervisor::Port(remote)) {
                Ok(port) => self.table.set_ports(slot_id, port.0, remote),
                Err(error) => {
                    tracing::warn!(%domid, %error, "cannot bind the ring's event channel again");
                    self.table.set_ports(slot_id, 0, remote);
                }
            }
        }
        let port = self.port_of(slot_id);
        let mut slot = self.table.slot(slot_id);
        let sound = self.skip_logged(id, &mut slot);
        let broken = port.0 == 0 || !sound || self.machine.store.is_ignored(id);
        let transport = Transport::Ring { page, port, broken };
        let conn = Conn { queued: true, ..Conn::new(id, slot_id, slot, transport) };
        if sound {
            conn.publish_indices(self.host.events.as_mut());
        } else {
            // As one that broke the protocol: its domain can reconnect, or is introduced again.
            self.end_damaged(id)?;
        }
        if port.0 != 0 {
            self.unmask(port.0);
            self.by_port.insert(port.0, id);
        }
        self.conns.insert(id.0, conn);
        self.queue.push_back(id);
        Ok(())
    }

    /// A request that was logged, but whose slot does not know it yet: it is done, only the slot catches up.
    /// False if the slot cannot be true: whatever the successor made of it would be a guess.
    pub(super) fn skip_logged(&mut self, id: ConnId, slot: &mut Slot) -> bool {
        if !slot.is_sound() {
            return false;
        }
        let record = slot.record();
        self.machine.store.trim(id, record.delivered);
        self.machine.store.discard_refused(id, record.refused);
        let last_seq = self.machine.store.last_seq(id);
        if last_seq <= record.seq {
            return true;
        }
        // One request is under way at a time, and what was logged was received.
        if last_seq != record.seq + 1 || slot.readable_bytes() < HEADER_BYTES {
            return false;
        }
        let mut header = [0; HEADER_BYTES];
        slot.peek(0, &mut header);
        let payload = Header::parse(&header).map_or(0, |header| header.len as usize);
        let size = HEADER_BYTES.saturating_add(payload);
        if size > MESSAGE_MAX || size > slot.readable_bytes() {
            return false;
        }
        slot.commit(size, 1, None);
        true
    }

    /// Ends a connection whose slot is damaged: one client sees its connection closed or its ring in error, none a wrong
    /// stream, and the takeover goes on.
    pub(super) fn end_damaged(&mut self, conn: ConnId) -> Result<(), Error> {
        let detail = format!("connection {}: its slot is damaged; the connection ends", conn.0);
        note(&self.warden, Severity::Error, "connection_damaged", detail)?;
        if self.machine.store.is_connected(conn) {
            self.propose_or_retry(&Entry::Disconnect { conn })?;
        }
        Ok(())
    }

    /// Connections of the store without an endpoint end.
    fn forget_lost(&mut self) -> Result<(), Error> {
        let lost: Vec<ConnId> = self
            .machine
            .store
            .connections()
            .filter(|(conn, peer)| {
                !self.conns.contains_key(&conn.0) && matches!(peer, xs_store::Peer::Socket)
            })
            .map(|(conn, _)| conn)
            .collect();
        for conn in lost {
            self.propose_or_retry(&Entry::Disconnect { conn })?;
        }
        self.free_lost();
        self.tell_closed()
    }

    /// Slots of clients that neither the gateway nor anybody else had any more.
    fn free_lost(&self) {
        let sockets = self.table.used().filter(|(_, kind)| *kind == Kind::Socket);
        let lost: Vec<SlotId> = sockets
            .map(|(slot_id, _)| slot_id)
            .filter(|slot_id| !self.conns.contains_key(&self.table.conn_id(*slot_id)))
            .collect();
        lost.into_iter().for_each(|slot_id| self.table.free(slot_id));
    }

    /// From here on there are clients that the gateway lacks, and the heir knows them by what this process notes.
    fn begin_to_accept(&mut self) -> Result<(), Error> {
        self.note_link();
        self.table.set_accepting(false);
        self.table.set_leader(self.arrivals.leader);
        self.listen(true)
    }

    fn deliver_all(&mut self) -> Result<(), Error> {
        self.settle_effects()?;
        let ids: Vec<ConnId> = self.conns.values().map(|conn| conn.id).collect();
        for id in ids {
            self.deliver(id)?;
        }
        Ok(())
    }

    pub(super) fn report_leading(&mut self, epoch: u64, took: Duration) -> Result<(), Error> {
        self.publish();
        let rings = self.conns.values().filter(|conn| conn.is_ring()).count();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let leading = Leading {
            epoch,
            applied: self.machine.index(),
            takeover_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            connections: count(self.conns.len() - rings),
            rings: count(rings),
        };
        report(&self.warden, from_service::Report::Leading(leading))
    }
}
