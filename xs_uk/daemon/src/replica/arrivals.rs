//! The leader accepts clients, and gives those that stay to the gateway.
//!
//! Most clients ask once and leave. Such a one costs what it costs in a daemon of a single process: it is accepted,
//! served and closed here, and nobody else hears of it. [`super::heir`] says what keeps its connection if the leader
//! dies meanwhile. One that is still there after a millisecond is given to the gateway, in packets of many, and by the
//! gateway to the warden.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use control::{Connections, LinkError, from_service::Report};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use xs_shm::Table;
use xs_store::ConnId;

use super::conn::Transport;
use super::leader::{LISTENER, Leader};
use crate::endpoints::{Endpoints, Said};
use crate::error::Error;
use crate::limits::{HANDOVER_BATCH, HANDOVER_DELAY, UNHANDED_MAX};
use crate::poller::Interest;
use crate::service::report_with;

/// The listening socket and the clients that the gateway lacks.
pub(super) struct Arrivals {
    pub listener: OwnedFd,
    /// Readable when the heir is gone.
    pub heir: OwnedFd,
    /// What this process calls itself in the connection table while it leads.
    pub leader: u64,
    /// What is waited for at the listening socket.
    interest: Interest,
    unhanded: VecDeque<(Instant, u64)>,
    /// The gateway took nothing when it was last given some.
    blocked: bool,
}

impl Arrivals {
    pub fn new(listener: OwnedFd, heir: OwnedFd, leader: u64) -> Self {
        Self { listener, heir, leader, interest: Interest::NONE, unhanded: VecDeque::new(), blocked: false }
    }

    /// The gateway lacks these.
    pub fn expect(&mut self, ids: impl Iterator<Item = u64>) {
        let now = Instant::now();
        self.unhanded = ids.map(|id| (now, id)).collect();
    }

    /// A gateway that took nothing may take something now.
    pub fn try_again(&mut self) {
        self.blocked = false;
    }

    /// How long the leader may sleep before somebody has stayed long enough.
    pub fn wait(&self) -> Option<Duration> {
        let (came, _) = self.unhanded.front().filter(|_| !self.blocked)?;
        Some(HANDOVER_DELAY.saturating_sub(came.elapsed()))
    }

    /// The next clients to be given away: those that stayed, or any if there are too many.
    fn due(&self) -> Vec<u64> {
        let crowded = self.unhanded.len() >= UNHANDED_MAX;
        let next = self.unhanded.iter().take(HANDOVER_BATCH);
        next.take_while(|(came, _)| crowded || came.elapsed() >= HANDOVER_DELAY).map(|(_, id)| *id).collect()
    }
}

impl Leader {
    /// Accepts one client: if more wait, the poller says so again, after those that are served have had their turn.
    pub(super) fn accept(&mut self) -> Result<(), Error> {
        let Some(slot_id) = self.table.vacant_socket() else {
            if self.log_limit.allow("slots_used") {
                tracing::warn!(clients = self.conns.len(), "all connection slots are in use");
            }
            return self.listen(false);
        };
        self.table.set_accepting(true);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accepted = rustix::net::accept_with(&self.arrivals.listener, flags);
        if let Ok(client) = &accepted {
            self.table.take_socket(slot_id, client.as_raw_fd());
        }
        self.table.set_accepting(false);
        match accepted {
            Ok(client) => {
                let id = self.table.conn_id(slot_id);
                self.arrivals.unhanded.push_back((Instant::now(), id));
                self.begin_client(ConnId(id), slot_id, client, false)
            }
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS)) => {
                if self.log_limit.allow("not_accepted") {
                    tracing::warn!(clients = self.conns.len(), %error, "no descriptor for a new client");
                }
                self.listen(false)
            }
            // Nobody is there, or the client was gone before it was accepted.
            Err(_) => Ok(()),
        }
    }

    /// Clients that are not accepted wait in the listening socket's queue: for a slot, for a descriptor, for a gateway
    /// that can take over who stays.
    pub(super) fn listen(&mut self, wanted: bool) -> Result<(), Error> {
        let room = self.gateway.is_some() && self.arrivals.unhanded.len() < UNHANDED_MAX;
        let interest = if wanted && room { Interest::READ } else { Interest::NONE };
        let before = std::mem::replace(&mut self.arrivals.interest, interest);
        self.poller
            .change(&self.arrivals.listener, LISTENER, before, interest)
            .map_err(Error::system("epoll_ctl"))
    }

    /// What kept new clients out may have passed.
    pub(super) fn listen_again(&mut self) -> Result<(), Error> {
        if self.arrivals.interest == Interest::NONE { self.listen(true) } else { Ok(()) }
    }

    /// Gives the gateway the clients that stayed.
    pub(super) fn hand_over_due(&mut self) -> Result<(), Error> {
        if self.arrivals.blocked || self.arrivals.unhanded.is_empty() {
            return Ok(());
        }
        self.forget_gone();
        loop {
            let due = self.arrivals.due();
            if due.is_empty() || !self.hand_over(&due)? {
                break;
            }
        }
        if self.arrivals.unhanded.len() >= UNHANDED_MAX {
            return self.listen(false);
        }
        Ok(())
    }

    /// Gives the gateway all clients that it lacks, as far as it takes them, however long ago it took nothing.
    pub(super) fn hand_over_all(&mut self) -> Result<(), Error> {
        self.arrivals.blocked = false;
        while !self.arrivals.unhanded.is_empty() {
            let next = self.arrivals.unhanded.iter().take(HANDOVER_BATCH);
            let ids: Vec<u64> = next.map(|(_, id)| *id).collect();
            if !self.hand_over(&ids)? {
                break;
            }
        }
        Ok(())
    }

    /// Tells the gateway, once, that it has all that it lacked when it was greeted.
    pub(super) fn tell_complete(&mut self) -> Result<(), Error> {
        let Some(gateway) = self.gateway.as_ref().filter(|_| self.complete_untold) else { return Ok(()) };
        if !self.arrivals.unhanded.is_empty() {
            return Ok(());
        }
        match gateway.send(&Endpoints::new(Said::Complete(true)), &[]) {
            Ok(()) => self.complete_untold = false,
            // It is told when it reads again, or the next one is.
            Err(LinkError::WouldBlock | LinkError::Closed) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The first of those that are not handed over. False if the gateway takes nothing now.
    fn hand_over(&mut self, ids: &[u64]) -> Result<bool, Error> {
        let Some(gateway) = &self.gateway else { return Ok(false) };
        let (known, descriptors): (Vec<u64>, Vec<BorrowedFd<'_>>) =
            ids.iter().filter_map(|id| Some((*id, self.client_fd(*id)?))).unzip();
        if !known.is_empty() {
            match gateway.send(&Endpoints::clients(known.clone()), &descriptors) {
                Ok(()) => {}
                // A gateway that is gone is noticed when it is next heard.
                Err(LinkError::WouldBlock | LinkError::Closed) => {
                    self.arrivals.blocked = true;
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        known.iter().for_each(|id| self.note_handed(*id));
        self.arrivals.unhanded.drain(..ids.len());
        Ok(true)
    }

    fn note_handed(&mut self, id: u64) {
        if let Some(conn) = self.conns.get_mut(&id)
            && let Transport::Socket { fd, handed, .. } = &mut conn.transport
        {
            *handed = true;
            self.table.note_descriptor(conn.slot_id, fd.as_raw_fd(), true);
        }
    }

    /// Those that left in the meantime. All of them, not only the first, if one that stays keeps too many here.
    fn forget_gone(&mut self) {
        let (conns, unhanded) = (&self.conns, &mut self.arrivals.unhanded);
        if unhanded.len() >= UNHANDED_MAX {
            unhanded.retain(|(_, id)| conns.contains_key(id));
        }
        while unhanded.front().is_some_and(|(_, id)| !conns.contains_key(id)) {
            unhanded.pop_front();
        }
    }

    /// The gateway is gone: the next one gets from the warden what only we have, even if we die before it comes.
    pub(super) fn leave_to_warden(&mut self) -> Result<(), Error> {
        self.forget_gone();
        let ids: Vec<u64> = self.arrivals.unhanded.iter().map(|(_, id)| *id).collect();
        for batch in ids.chunks(HANDOVER_BATCH) {
            let (known, descriptors): (Vec<u64>, Vec<BorrowedFd<'_>>) =
                batch.iter().filter_map(|id| Some((*id, self.client_fd(*id)?))).unzip();
            if !known.is_empty() {
                report_with(&self.warden, Report::Clients(Connections { ids: known }), &descriptors)?;
            }
        }
        Ok(())
    }

    /// Without the heir the next death would close connections: whoever has one leads.
    pub(super) fn resign(&mut self) -> Error {
        // Both can fail only because the gateway is gone as well.
        let told = self.listen(false).and_then(|()| self.hand_over_all());
        if let Err(error) = told {
            tracing::warn!(%error, "not all clients could be handed over");
        }
        Error::HeirGone
    }

    pub(super) fn client_fd(&self, id: u64) -> Option<BorrowedFd<'_>> {
        match &self.conns.get(&id)?.transport {
            Transport::Socket { fd, .. } => Some(fd.as_fd()),
            Transport::Ring { .. } => None,
        }
    }

    /// For the heir.
    pub(super) fn note_link(&self) {
        self.table.set_leader_link(self.gateway.as_ref().map(AsRawFd::as_raw_fd));
    }

    /// Whether a connection id names a slot in use by that connection.
    pub(super) fn is_in_table(&self, id: u64) -> bool {
        let slot_id = Table::slot_of(id);
        slot_id.0 < xs_shm::limits::SOCKETS_MAX
            && self.table.conn_id(slot_id) == id
            && self.table.state(slot_id) == xs_shm::SlotState::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals() -> Arrivals {
        let (a, b) = rustix::pipe::pipe().unwrap();
        Arrivals::new(a, b, 1)
    }

    #[test]
    fn clients_are_handed_over_when_they_have_stayed() {
        let mut arrivals = arrivals();
        assert!(arrivals.wait().is_none() && arrivals.due().is_empty());
        let long_ago = Instant::now().checked_sub(HANDOVER_DELAY).unwrap();
        arrivals.unhanded.push_back((long_ago, 1));
        arrivals.unhanded.push_back((Instant::now() + HANDOVER_DELAY, 2));
        assert_eq!((arrivals.wait(), arrivals.due()), (Some(Duration::ZERO), vec![1_u64]));
        // A gateway that takes nothing is not asked in a loop.
        arrivals.blocked = true;
        assert_eq!(arrivals.wait(), None);
    }

    #[test]
    fn at_the_bound_nobody_has_to_have_stayed() {
        let mut arrivals = arrivals();
        arrivals.expect(1..UNHANDED_MAX as u64);
        assert!(arrivals.due().is_empty());
        arrivals.expect(1..=UNHANDED_MAX as u64);
        assert_eq!(arrivals.due().len(), HANDOVER_BATCH);
    }
}
