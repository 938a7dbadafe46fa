//! The gateway: stable owner of client endpoints. It accepts, keeps, hands over; it reads no request.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use control::{Link, LinkError, Role, to_service};
use rustix::net::SocketFlags;
use xs_shm::limits::{SOCKETS_MAX, TABLE_BYTES};
use xs_shm::{Board, GatewayStatus, Kind, Region, SlotState, Table};

use crate::deposit::Deposit;
use crate::endpoints::{Endpoints, Said};
use crate::error::{Error, take, take_optional};
use crate::limits::{ACCEPTS_PER_TURN_MAX, HANDOVER_BATCH};
use crate::poller::{Interest, Poller};
use crate::service::Service;

const WARDEN: u64 = 0;
const LISTENER: u64 = 1;
const LEADER: u64 = 2;

/// With no event this long, look around all the same.
const IDLE: Duration = Duration::from_secs(1);

struct Gateway {
    service: Service,
    table: Table,
    listener: OwnedFd,
    listening: bool,
    leader: Option<Link>,
    clients: BTreeMap<u64, OwnedFd>,
    event_channels: Vec<OwnedFd>,
    unsent: VecDeque<u64>,
    deposit: Deposit,
    poller: Poller,
    /// Where the warden sees how far the copies are.
    board: Option<Board>,
    /// The epoch of the leader that was greeted, and of the last one that has told that all is handed over.
    greeted: u64,
    complete: u64,
}

/// Runs the role until the warden says stop.
pub fn run() -> Result<(), Error> {
    let mut service = Service::start(Role::Gateway)?;
    let conns = take(&mut service.kept, control::names::CONNS)?;
    let listener = take(&mut service.kept, control::names::LISTENER)?;
    let board = take_optional(&mut service.kept, control::names::BOARD).map(Board::open).transpose()?;
    let mut event_channels = Vec::new();
    while let Some(handle) =
        take_optional(&mut service.kept, &format!("{}{}", control::names::EVTCHN, event_channels.len()))
    {
        event_channels.push(handle);
    }
    rustix::io::ioctl_fionbio(&listener, true).map_err(Error::system("ioctl"))?;
    let poller = Poller::new().map_err(Error::system("epoll_create"))?;
    poller.add(&service.warden, WARDEN, Interest::READ).map_err(Error::system("epoll_ctl"))?;
    poller.add(&listener, LISTENER, Interest::READ).map_err(Error::system("epoll_ctl"))?;
    let gateway = Gateway {
        table: Table::open(Region::open(conns, TABLE_BYTES)?),
        listener,
        listening: true,
        leader: None,
        clients: BTreeMap::new(),
        event_channels,
        unsent: VecDeque::new(),
        deposit: Deposit::default(),
        poller,
        board,
        greeted: 0,
        complete: 0,
        service,
    };
    gateway.service.ready(0, 0)?;
    gateway.serve()
}

impl Gateway {
    fn serve(mut self) -> Result<(), Error> {
        let mut ready = Vec::new();
        loop {
            self.poller.wait(self.deposit.wait(IDLE), &mut ready).map_err(Error::system("epoll_wait"))?;
            for word in &ready {
                match *word {
                    WARDEN => {
                        if self.take_orders()? {
                            return Ok(());
                        }
                    }
                    LISTENER => self.accept()?,
                    _ => self.hear_leader()?,
                }
            }
            // What kept new clients out may have passed without one of ours leaving.
            if ready.is_empty() && !self.listening {
                self.listen(true)?;
            }
            self.send_unsent()?;
            self.deposit.hand_over(&self.service.warden, &self.clients)?;
            self.publish();
        }
    }

    fn publish(&self) {
        let Some(board) = &self.board else { return };
        board.publish_gateway(&GatewayStatus {
            pid: std::process::id().into(),
            epoch: self.complete,
            untold: (self.unsent.len() + self.deposit.untold()) as u64,
            clients: self.clients.len() as u64,
        });
    }

    /// True if the warden says stop.
    fn take_orders(&mut self) -> Result<bool, Error> {
        while let Some(packet) = self.service.warden.order()? {
            match packet.message.order {
                Some(to_service::Order::LeaderChanged(changed)) => {
                    if let Some(fd) = packet.descriptors.into_iter().next() {
                        (self.greeted, self.complete) = (changed.epoch, 0);
                        self.greet_leader(Link::from_fd(fd))?;
                    }
                }
                Some(to_service::Order::Clients(clients)) => {
                    let refused = self.adopt(&clients.ids, packet.descriptors);
                    self.deposit.closed(&refused);
                }
                Some(to_service::Order::Adopted(_)) => self.deposit.begin_anew(self.clients.keys().copied()),
                Some(to_service::Order::Stop(_)) => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }

    fn accept(&mut self) -> Result<(), Error> {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let client = match rustix::net::accept_with(&self.listener, flags) {
                Ok(client) => client,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
                    tracing::warn!(clients = self.clients.len(), "no descriptor left for a new client");
                    return self.listen(false);
                }
                // The client was gone before it was accepted.
                Err(_) => continue,
            };
            let Some(slot) = self.table.allocate_socket() else {
                tracing::warn!(clients = self.clients.len(), "all connection slots are in use");
                drop(client);
                return self.listen(false);
            };
            let id = self.table.conn_id(slot);
            self.clients.insert(id, client);
            self.unsent.push_back(id);
            self.deposit.opened(id);
        }
        Ok(())
    }

    /// Full: new clients wait in the listening socket's queue until another one leaves.
    fn listen(&mut self, listening: bool) -> Result<(), Error> {
        if self.listening != listening {
            self.listening = listening;
            let interest = Interest { read: listening, write: false };
            self.poller.modify(&self.listener, LISTENER, interest).map_err(Error::system("epoll_ctl"))?;
        }
        Ok(())
    }

    /// Hands everything over to a new leader.
    fn greet_leader(&mut self, leader: Link) -> Result<(), Error> {
        self.drop_leader();
        leader.set_nonblocking(false)?;
        self.unsent.clear();
        let all: Vec<u64> = self.clients.keys().copied().collect();
        let handed = self.hand_over(&leader, &all);
        match handed {
            Ok(()) => {}
            // It died already; the warden promotes the next.
            Err(LinkError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        leader.set_nonblocking(true)?;
        self.poller.add(&leader, LEADER, Interest::READ).map_err(Error::system("epoll_ctl"))?;
        self.leader = Some(leader);
        Ok(())
    }

    fn hand_over(&self, leader: &Link, ids: &[u64]) -> Result<(), LinkError> {
        for batch in ids.chunks(HANDOVER_BATCH) {
            leader.send(&Endpoints::clients(batch.to_vec()), &self.descriptors(batch))?;
        }
        if !self.event_channels.is_empty() {
            let handles: Vec<BorrowedFd<'_>> = self.event_channels.iter().map(AsFd::as_fd).collect();
            leader.send(&Endpoints::new(Said::EventChannels(true)), &handles)?;
        }
        leader.send(&Endpoints::new(Said::Complete(true)), &[])
    }

    fn descriptors(&self, ids: &[u64]) -> Vec<BorrowedFd<'_>> {
        ids.iter().filter_map(|id| self.clients.get(id)).map(AsFd::as_fd).collect()
    }

    fn send_unsent(&mut self) -> Result<(), Error> {
        while let (Some(id), Some(leader)) = (self.unsent.front().copied(), &self.leader) {
            let descriptors = self.descriptors(&[id]);
            if !descriptors.is_empty() {
                match leader.send(&Endpoints::clients(vec![id]), &descriptors) {
                    Ok(()) => {}
                    Err(LinkError::WouldBlock) => return self.watch_leader(true),
                    Err(LinkError::Closed) => {
                        self.drop_leader();
                        return Ok(());
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            self.unsent.pop_front();
        }
        self.watch_leader(false)
    }

    fn watch_leader(&self, write: bool) -> Result<(), Error> {
        let Some(leader) = &self.leader else { return Ok(()) };
        let interest = Interest { read: true, write };
        self.poller.modify(leader, LEADER, interest).map_err(Error::system("epoll_ctl"))
    }

    fn hear_leader(&mut self) -> Result<(), Error> {
        while let Some(leader) = &self.leader {
            match leader.receive::<Endpoints>() {
                Ok(packet) => match packet.message.said {
                    Some(Said::Closed(closed)) => self.let_go(&closed.ids)?,
                    Some(Said::Clients(clients)) => {
                        self.adopt(&clients.ids, packet.descriptors);
                        clients.ids.iter().for_each(|id| self.deposit.opened(*id));
                    }
                    Some(Said::EventChannels(_)) => self.keep_event_channels(packet.descriptors),
                    Some(Said::Complete(_)) => {
                        self.free_lost();
                        self.complete = self.greeted;
                    }
                    _ => {}
                },
                Err(LinkError::WouldBlock) => return Ok(()),
                Err(LinkError::Closed) => self.drop_leader(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn let_go(&mut self, ids: &[u64]) -> Result<(), Error> {
        for id in ids {
            self.clients.remove(id);
            self.deposit.closed(&[*id]);
            let slot = Table::slot_of(*id);
            if self.table.conn_id(slot) == *id && self.table.state(slot) == SlotState::Closed {
                self.table.free(slot);
            }
        }
        self.listen(true)
    }

    /// A gateway that starts anew gets the clients back from the warden and from the leader. Gives those that it does
    /// not take: their slots are free or another's.
    fn adopt(&mut self, ids: &[u64], descriptors: Vec<OwnedFd>) -> Vec<u64> {
        let mut refused = Vec::new();
        for (id, client) in ids.iter().zip(descriptors) {
            let slot = Table::slot_of(*id);
            let ours = slot.0 < SOCKETS_MAX
                && self.table.conn_id(slot) == *id
                && self.table.state(slot) != SlotState::Free;
            if ours {
                self.clients.insert(*id, client);
            } else {
                refused.push(*id);
            }
        }
        refused
    }

    /// They outlive us at the warden's, even if the leader dies as well.
    fn keep_event_channels(&mut self, handles: Vec<OwnedFd>) {
        let names: Vec<String> =
            (0..handles.len()).map(|number| format!("{}{number}", control::names::EVTCHN)).collect();
        let borrowed: Vec<BorrowedFd<'_>> = handles.iter().map(AsFd::as_fd).collect();
        if let Err(error) = self.service.warden.keep(&names, &borrowed) {
            tracing::debug!(%error, "the event channels are not kept by a warden");
        }
        self.event_channels = handles;
    }

    /// The leader gave back all that it holds. What neither of us holds was lost with a former gateway and leader.
    fn free_lost(&mut self) {
        let lost: Vec<_> = self
            .table
            .used()
            .filter(|(_, _, kind)| *kind == Kind::Socket)
            .map(|(slot, _, _)| slot)
            .filter(|slot| !self.clients.contains_key(&self.table.conn_id(*slot)))
            .collect();
        for slot in lost {
            self.table.free(slot);
        }
    }

    fn drop_leader(&mut self) {
        if let Some(leader) = self.leader.take() {
            // A closed descriptor leaves the poller by itself; a failure here changes nothing.
            let _ = self.poller.remove(&leader);
        }
    }
}
