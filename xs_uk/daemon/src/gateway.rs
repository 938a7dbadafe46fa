//! The gateway: stable owner of client endpoints. It keeps them and hands them over; it reads no request.
//!
//! The leader accepts, and gives it the clients that stay. What the leader had still to give when it died comes from its
//! heir, through the same link; so a link is read to its end before the next leader is given anything.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use control::{Link, LinkError, Role, to_service};
use xs_shm::limits::{SOCKETS_MAX, TABLE_BYTES};
use xs_shm::{Board, GatewayStatus, Region, SlotState, Table};

use crate::deposit::Deposit;
use crate::endpoints::{Endpoints, Said};
use crate::error::{Error, take, take_optional};
use crate::limits::{HANDOVER_BATCH, HEIR_WAIT};
use crate::poller::{Interest, Poller};
use crate::replica::heir::NO_ID;
use crate::service::Service;

const WARDEN: u64 = 0;
const LEADER: u64 = 1;

/// With no event this long, look around all the same.
const IDLE: Duration = Duration::from_secs(1);

struct Gateway {
    service: Service,
    table: Table,
    leader: Option<Link>,
    clients: BTreeMap<u64, OwnedFd>,
    event_channels: Vec<OwnedFd>,
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
    let board = take_optional(&mut service.kept, control::names::BOARD).map(Board::open).transpose()?;
    let mut event_channels = Vec::new();
    while let Some(handle) =
        take_optional(&mut service.kept, &format!("{}{}", control::names::EVTCHN, event_channels.len()))
    {
        event_channels.push(handle);
    }
    let poller = Poller::new().map_err(Error::system("epoll_create"))?;
    poller.add(&service.warden, WARDEN, Interest::READ).map_err(Error::system("epoll_ctl"))?;
    let gateway = Gateway {
        table: Table::open(Region::open(conns, TABLE_BYTES)?),
        leader: None,
        clients: BTreeMap::new(),
        event_channels,
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
            self.poller.wait(IDLE, &mut ready).map_err(Error::system("epoll_wait"))?;
            for word in &ready {
                match *word {
                    WARDEN => {
                        if self.take_orders()? {
                            return Ok(());
                        }
                    }
                    _ => self.hear_leader()?,
                }
            }
            self.deposit.hand_over(&self.service.warden, &self.clients)?;
            self.publish();
        }
    }

    fn publish(&self) {
        let Some(board) = &self.board else { return };
        board.publish_gateway(&GatewayStatus {
            pid: std::process::id().into(),
            epoch: self.complete,
            untold: self.deposit.untold() as u64,
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

    /// Hands everything over to a new leader.
    fn greet_leader(&mut self, leader: Link) -> Result<(), Error> {
        self.hear_former_leader()?;
        self.forget_ended();
        leader.set_nonblocking(false)?;
        let all: Vec<u64> = self.clients.keys().copied().collect();
        match self.hand_over(&leader, &all) {
            // It died already; the warden promotes the next. What its heir has sent is heard below.
            Ok(()) | Err(LinkError::Closed) => {}
            Err(error) => return Err(error.into()),
        }
        leader.set_nonblocking(true)?;
        self.poller.add(&leader, LEADER, Interest::READ).map_err(Error::system("epoll_ctl"))?;
        self.leader = Some(leader);
        Ok(())
    }

    /// Hears the former leader's link to its end: until the leader and its heir are gone, or the leader has let it go
    /// for the new link that it was given. An heir that takes too long is not heard any more.
    fn hear_former_leader(&mut self) -> Result<(), Error> {
        let (began, mut ready) = (Instant::now(), Vec::new());
        let mut poller = Poller::new().map_err(Error::system("epoll_create"))?;
        if let Some(leader) = &self.leader {
            poller.add(leader, LEADER, Interest::READ).map_err(Error::system("epoll_ctl"))?;
        }
        while self.leader.is_some() {
            self.hear_leader()?;
            let Some(left) = HEIR_WAIT.checked_sub(began.elapsed()) else {
                tracing::warn!("a former leader's link does not end");
                self.drop_leader();
                break;
            };
            if self.leader.is_some() {
                poller.wait(left, &mut ready).map_err(Error::system("epoll_wait"))?;
            }
        }
        Ok(())
    }

    /// Clients whose end a dead leader could not tell.
    fn forget_ended(&mut self) {
        let table = &self.table;
        let ended: Vec<u64> = self.clients.keys().copied().filter(|id| !is_in_table(table, *id)).collect();
        self.let_go(&ended);
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

    fn hear_leader(&mut self) -> Result<(), Error> {
        while let Some(leader) = &self.leader {
            match leader.receive::<Endpoints>() {
                Ok(packet) => match packet.message.said {
                    Some(Said::Closed(closed)) => self.let_go(&closed.ids),
                    Some(Said::Clients(clients)) => self.take_new(clients.ids, packet.descriptors),
                    Some(Said::EventChannels(_)) => self.keep_event_channels(packet.descriptors),
                    Some(Said::Complete(_)) => self.complete = self.greeted,
                    _ => {}
                },
                Err(LinkError::WouldBlock) => return Ok(()),
                Err(LinkError::Closed) => self.drop_leader(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn take_new(&mut self, ids: Vec<u64>, descriptors: Vec<OwnedFd>) {
        let ids: Vec<u64> = ids.into_iter().map(|id| if id == NO_ID { self.new_id() } else { id }).collect();
        self.adopt(&ids, descriptors);
        ids.iter().filter(|id| self.clients.contains_key(id)).for_each(|id| self.deposit.opened(*id));
    }

    /// A slot for a client that was accepted by a leader that is dead. The next one touches no slot before it has heard
    /// all that we hold, and it hears nothing before the former one's link has ended. The leader accepts nobody for whom
    /// there is no slot, so there is one.
    fn new_id(&self) -> u64 {
        self.table.allocate_socket().map_or(NO_ID, |slot| self.table.conn_id(slot))
    }

    fn let_go(&mut self, ids: &[u64]) {
        ids.iter().for_each(|id| drop(self.clients.remove(id)));
        self.deposit.closed(ids);
    }

    /// A gateway that starts anew gets the clients back from the warden and from the leader. Gives those that it does
    /// not take: their slots are free or another's.
    fn adopt(&mut self, ids: &[u64], descriptors: Vec<OwnedFd>) -> Vec<u64> {
        let mut refused = Vec::new();
        for (id, client) in ids.iter().zip(descriptors) {
            if is_in_table(&self.table, *id) {
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

    fn drop_leader(&mut self) {
        if let Some(leader) = self.leader.take() {
            // A closed descriptor leaves the poller by itself; a failure here changes nothing.
            let _ = self.poller.remove(&leader);
        }
    }
}

/// Whether this connection lives, as far as the table knows.
fn is_in_table(table: &Table, id: u64) -> bool {
    let slot = Table::slot_of(id);
    slot.0 < SOCKETS_MAX && table.conn_id(slot) == id && table.state(slot) == SlotState::Open
}
